"""Commands that rewrite change logs: one at a time, and by a person's word where the store knows no lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cdc_lake.errors import LakeError

Alone = Annotated[bool, typer.Option("--alone", help="No maintenance runs on this lake: go on where no lock says so.")]


@contextmanager
def sole_or_alone(root: str, *, alone: bool, done: str, next: str) -> Iterator[None]:
    """Hold the right to rewrite the logs of the lake at `root`. Raises LakeError when another has it, or when its
    store knows no lock and nobody said `alone`: nothing was `done`."""
    from cdc_lake.land.lock import sole_rewriter

    with sole_rewriter(root) as held:
        if not (held or alone):
            raise LakeError(
                f"The lake's store knows no locks, so nothing was {done}.",
                why="A maintenance that rewrites the same log meanwhile could bring rows back, or write them twice.",
                next=next,
                code="no_lock",
            )
        yield
