"""How long a class of tables keeps what, as spans of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from cdc_lake.config_retention import RetentionClass, span_of
from cdc_lake.land.tiers import Tier


@dataclass(frozen=True, slots=True)
class Policy:
    """What a table's class asks for: `log` is how long its changes are kept, `dlq` its decided dead letters; None is
    for ever.

    `hold` keeps all of it, whatever the class says. Changes older than `after` are moved to `tier`.
    """

    name: str
    log: timedelta | None
    hold: bool = False
    dlq: timedelta | None = None
    after: timedelta | None = None
    tier: Tier | None = None

    @classmethod
    def of(cls, name: str, written: RetentionClass, *, hold: bool, tiers: Iterable[Tier] = ()) -> Policy:
        """History is read from the log: the log is kept for the longer of the two. `tiers` are those of the lake."""
        log, history = span_of(written.log), span_of(written.history or written.log)
        kept = None if log is None or history is None else max(log, history)
        policy = cls(name, kept, hold, span_of(written.dlq or written.log))
        if written.tier is None:
            return policy
        tier = next((t for t in tiers if t.name == written.tier.uri), None)
        return replace(policy, after=span_of(written.tier.after), tier=tier)
