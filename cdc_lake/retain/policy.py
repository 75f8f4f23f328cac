"""How long a class of tables keeps what, as spans of time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from cdc_lake.config import RetentionClass

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a table's class asks for: `log` is how long its changes are kept, `dlq` its decided dead letters; None is
    for ever.

    `hold` keeps all of it, whatever the class says.
    """

    name: str
    log: timedelta | None
    hold: bool = False
    dlq: timedelta | None = None

    @classmethod
    def of(cls, name: str, written: RetentionClass, *, hold: bool) -> Policy:
        """History is read from the log: the log is kept for the longer of the two."""
        log, history = span_of(written.log), span_of(written.history or written.log)
        kept = None if log is None or history is None else max(log, history)
        return cls(name, kept, hold, span_of(written.dlq or written.log))


def span_of(text: str) -> timedelta | None:
    """A duration of the configuration (`400d`); None is `forever`."""
    if text == "forever":
        return None
    found = re.fullmatch(r"([0-9]+)([smhdwy])", text)
    if found is None:
        raise ValueError(f"{text} is no duration")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
