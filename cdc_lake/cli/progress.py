"""How far a long command has come: rewritten in place on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time

from cdc_lake.cli import output

_TERMINAL_SECONDS, _PIPE_SECONDS = 0.2, 10.0


class Meter:
    """Counts up to `total`, with the rate and the time that is left; silent under -q."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._terminal = sys.stderr.isatty() and output.verbosity() >= 0
        self._began = time.monotonic()
        self._next = self._began + (_TERMINAL_SECONDS if self._terminal else _PIPE_SECONDS)

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_TERMINAL_SECONDS if self._terminal else _PIPE_SECONDS)
        text = describe(self._what, self._done, self._total, now - self._began)
        if self._terminal:
            output.transient(text)
        else:
            output.say(text)

    def end(self) -> None:
        """Clear the line."""
        output.clear()


def describe(what: str, done: int, total: int, seconds: float) -> str:
    """`what`, how much of it, how fast, and when it will be done."""
    rate = done / max(seconds, 1e-3)
    parts = [f"{done:,} of {total:,} {what}", f"{done / total:.0%}" if total else "", f"{rate:,.0f}/s"]
    if 0 < done < total:
        left = round((total - done) / max(rate, 1e-9))
        parts.append(f"{left // 60}:{left % 60:02d} left")
    return " · ".join(p for p in parts if p)
