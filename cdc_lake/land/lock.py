"""One rewriter of change logs at a time.

Appends may come from anywhere at any moment: Delta's commits keep them apart. What rewrites files of a log needs more:
delta-rs 1.6 lets two compactions that began at one version both commit, and every row is there twice then.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc_lake.errors import LakeError

# A file, and so no source: those are folders.
_NAME = "~maintain.lock"


@contextmanager
def sole_rewriter(root: str) -> Iterator[bool]:
    """Hold the right to rewrite the logs of the lake at `root`; False when its store knows no lock (any URI).

    The operating system takes the lock back from a process that dies. Raises LakeError when another one has it.
    """
    if "://" in root:
        yield False
        return
    folder = Path(root)
    if not folder.is_dir():
        yield True
        return
    try:
        held = (folder / _NAME).open("a")
    except OSError as error:
        raise LakeError(f"The lake folder {root} cannot be written.", why=str(error), next=f"check {root}") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LakeError(
                "Another maintenance of this lake is at work.",
                why="Two that rewrite one change log at a time could write its rows twice.",
                next="let it end, then run the command again; --dry-run only looks",
                code="maintain_busy",
            ) from None
        yield True
