"""How far a fold has come, kept in the same Delta commit as its result.

A checkpoint is a set of app transactions of the folded table: `fold:cut` (every transaction up to this position is
folded), `fold:p:<partition>:<topic>` (every row below this offset is folded or never will be needed) and
`fold:log_version` (for people). Killed anywhere, a fold resumes from the last commit with nothing lost or doubled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from deltalake import DeltaTable, Transaction

from cdc_lake.project.files import Lows

_CUT = "fold:cut"
_LOG_VERSION = "fold:log_version"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a fold. The default is that of a table that was never folded."""

    cut: int = 0
    lows: Lows = field(default_factory=dict)
    log_version: int = -1

    def transactions(self) -> list[Transaction]:
        """The app transactions that hold this checkpoint."""
        held = [Transaction(_CUT, self.cut), Transaction(_LOG_VERSION, self.log_version)]
        return held + [Transaction(_partition_id(t, p), low) for (t, p), low in sorted(self.lows.items())]


def read_checkpoint(base: DeltaTable | None, partitions: Iterable[tuple[str, int]]) -> Checkpoint:
    """The checkpoint in `base`, with the low offsets of those `partitions` (topic, number) that have one."""
    if base is None:
        return Checkpoint()
    lows = {(t, p): low for t, p in partitions if (low := base.transaction_version(_partition_id(t, p))) is not None}
    return Checkpoint(
        cut=base.transaction_version(_CUT) or 0,
        lows=lows,
        log_version=_or(base.transaction_version(_LOG_VERSION), -1),
    )


def is_behind(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether `other` has folded anything that `one` has not."""
    return one.cut < other.cut or any(one.lows.get(p, 0) < low for p, low in other.lows.items())


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _partition_id(topic: str, partition: int) -> str:
    return f"fold:p:{partition}:{topic}"
