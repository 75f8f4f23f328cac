"""Whether the sink lives (/healthz) and whether it does its work (/readyz)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_lake.serve.lake_state import LakeState

if TYPE_CHECKING:
    from cdc_lake.serve.metrics import Watched

# The loop turns every fraction of a second. It stands while a rebalance waits for a flush, and a flush for a store that
# is away, which is no defect: only what Kafka itself takes for dead (`max.poll.interval.ms`) is.
LOOP_SECONDS = 300.0
# A flush that takes longer than this waits for a store that does not answer.
STORE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so, and in words what was found. The name is a label of a metric: one of a fixed few."""

    name: str
    ok: bool
    found: str

    def as_dict(self) -> dict[str, object]:
        """As /readyz prints it."""
        return {"check": self.name, "ok": self.ok, "found": self.found}


def liveness(sinks: Sequence[Watched]) -> Check:
    """Whether every loop has gone round lately."""
    now = time.monotonic()
    standing = [s for s in sinks if not s.ended and now - s.turned > LOOP_SECONDS]
    if not standing:
        return Check("loop", True, "the loop goes round")
    found = ", ".join(f"{s.source}: the loop stands since {now - s.turned:.0f} s" for s in standing)
    return Check("loop", False, found)


def readiness(sinks: Sequence[Watched], outside: Mapping[str, Check], lake: LakeState) -> list[Check]:
    """Loop, broker, registry, store and tables of every sink, then what is looked at now and then: source and lake."""
    return [
        liveness(sinks),
        _broker(sinks),
        _registry(sinks),
        _store(sinks),
        _tables(sinks),
        *outside.values(),
        Check("lake", not lake.trouble, lake.trouble or "the lake can be read"),
    ]


def _broker(sinks: Sequence[Watched]) -> Check:
    if not sinks or any(s.progress is None for s in sinks):
        return Check("broker", False, "the sink is starting")
    waiting = [f"{s.source}: {s.progress.waiting}" for s in sinks if s.progress is not None and s.progress.waiting]
    return Check("broker", not waiting, "; ".join(waiting) or "Kafka answers")


def _registry(sinks: Sequence[Watched]) -> Check:
    waiting = [f"{s.source}: {s.progress.registry}" for s in sinks if s.progress is not None and s.progress.registry]
    return Check("registry", not waiting, "; ".join(waiting) or "no schema is waited for")


def _store(sinks: Sequence[Watched]) -> Check:
    now = time.monotonic()
    since = [s.progress.flushing_since for s in sinks if s.progress is not None]
    longest = max((now - begun for begun in since if begun is not None), default=0.0)
    late = longest > STORE_SECONDS
    return Check("store", not late, f"a flush has been going on for {longest:.0f} s" if late else "flushes land")


def _tables(sinks: Sequence[Watched]) -> Check:
    stopped = [f"{tp}: {e.message}" for s in sinks if s.progress for tp, e in list(s.progress.stopped.items())]
    return Check("tables", not stopped, "; ".join(stopped[:5]) or "no table is stopped")
