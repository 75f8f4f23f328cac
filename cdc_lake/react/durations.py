"""Spans of time as people write them: `3 days`, `2h`, `90 seconds`."""

from __future__ import annotations

import re

SECOND = 1_000_000
_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), SECOND // 1000),
    **dict.fromkeys(("s", "sec", "second", "seconds"), SECOND),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * SECOND),
    **dict.fromkeys(("h", "hour", "hours"), 3600 * SECOND),
    **dict.fromkeys(("d", "day", "days"), 86_400 * SECOND),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400 * SECOND),
}
_FORM = re.compile(r"\s*(\d{1,9})\s*([a-z]+)\s*", re.IGNORECASE)


def microseconds(text: str) -> int:
    """The span in microseconds. Raises ValueError, in words for a person."""
    found = _FORM.fullmatch(text)
    unit = _UNITS.get(found[2].lower()) if found is not None else None
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no span of time: write it as 90 seconds, 15 minutes, 2 hours, 3 days or 1 week")
    return int(found[1]) * unit


def spelled(micros: int) -> str:
    """The span in the greatest unit that it is a whole number of."""
    for unit in ("week", "day", "hour", "minute", "second", "millisecond"):
        count, rest = divmod(micros, _UNITS[unit])
        if not rest and count:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return "0 seconds"
