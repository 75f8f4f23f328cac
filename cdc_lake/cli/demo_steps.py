"""One line for every step of a longer story, with the time it took: on stderr, alive on a terminal, plain elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cdc_lake.cli import output

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """A step that is done, and its seconds."""

    name: str
    seconds: float


class Steps:
    """Prints steps as they run and remembers how long each took."""

    def __init__(self) -> None:
        self.done: list[Step] = []
        self._began = time.monotonic()
        self._alive = sys.stderr.isatty() and output.verbosity() == 0 and not output.as_json()

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Say]:
        """Run one step; the value is called with what happens inside it."""
        began = time.monotonic()
        with self._live(name) if self._alive else self._plain(name) as say:
            yield say
        self.done.append(Step(name, time.monotonic() - began))
        _print(f"[green]✓[/green] {_escape(name)}  [dim]{self.done[-1].seconds:.1f} s[/dim]")

    @contextlib.contextmanager
    def _live(self, name: str) -> Iterator[Say]:
        with output.console(stderr=True).status(_escape(name)) as status:
            yield lambda text: status.update(f"{_escape(name)}  [dim]{_escape(text.splitlines()[0][:90])}[/dim]")

    @contextlib.contextmanager
    def _plain(self, name: str) -> Iterator[Say]:
        _print(f"… {_escape(name)}")
        yield lambda text: _print(f"    [dim]{_escape(text)}[/dim]")


def _print(text: str) -> None:
    if output.verbosity() >= 0:
        output.console(stderr=True).print(text)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
