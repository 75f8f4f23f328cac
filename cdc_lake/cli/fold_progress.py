"""How far the fold of a large table has come, on one line: rewritten on a terminal, every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cdc_lake.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_lake.events import TableId

_TERMINAL_SECONDS, _PIPE_SECONDS = 0.5, 10.0
# Before this part is done, how long the rest takes is a guess that helps nobody.
_TOLD_FROM = 0.02


class FoldProgress:
    """A watcher of folds (see `project.fold.Watcher`). `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = sys.stderr.isatty() and output.verbosity() >= 0
        self._clock = clock
        self._doing: tuple[TableId, str] | None = None
        self._since = self._next = clock()

    def __call__(self, table: TableId, what: str, done: float) -> None:
        """Show it when that is due; a new step always is."""
        now = self._clock()
        if self._doing != (table, what):
            self._doing, self._since, self._next = (table, what), now, now
        if now < self._next:
            return
        self._next = now + (_TERMINAL_SECONDS if self._terminal else _PIPE_SECONDS)
        left = f", about {_span((now - self._since) * (1 - done) / done)} left" if done >= _TOLD_FROM else ""
        (output.transient if self._terminal else output.say)(f"{table}: {what} {done:.0%}{left}")

    def end(self) -> None:
        """Take the line away, so that a result can follow."""
        output.clear()


def _span(seconds: float) -> str:
    """`40 s`, `3:05 min`, `1:02 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
