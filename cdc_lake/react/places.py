"""Rows and positions in one commit of a Delta table: what rules found, and what streaming models made.

A commit holds rows and, as app transactions, the positions up to which somebody looked: both or neither. So each row is
there once, wherever a process is killed. Positions are compared before each commit: another process that does the same
work is told from this one, and stops.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import LakeError, first_line, is_disk_full
from cdc_lake.land.store import DeltaStore, Snapshot, Store

# Commits that fail for a passing reason are tried again for this long.
RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """How far a rule or a model is, the position at which it began, and (of a model) the form it had then."""

    position: int
    since: int
    form: int = 0


Moved = Mapping[str, tuple[Place | None, Place]]


@dataclass(frozen=True, slots=True)
class Words:
    """How things are called: in app transactions (`kind`), at crash points (`stage`), and to people; `code`
    is that of the error when another process was first."""

    kind: str
    stage: str
    doing: str
    command: str
    code: str


class PlacedTable:
    """One Delta table that is committed to with positions.

    Delivery: each row is committed once, with its position. Idempotence: a commit that another process overtook raises
    LakeError (`words.code`) and writes nothing.
    """

    def __init__(self, path: str, words: Words, store: Store | None, options: Mapping[str, str] | None) -> None:
        self.path, self._words = path, words
        self._store = store or DeltaStore(options)

    def open(self) -> DeltaTable | None:
        """A fresh handle; None before the first commit."""
        return self._store.open(self.path)

    def place(self, name: str) -> Place | None:
        """Where a rule or model is; None before its first commit."""
        return self._place(self._store.open(self.path), name)

    def commit(self, rows: pa.Table, moved: Moved) -> None:
        """Write `rows`, and for each name of `moved` its place, from the one it must still have.

        1. Open a fresh handle and compare the places: another one is another process's doing.
        2. Append rows and places in one commit.
        3. If it fails, read the places again before deciding: landed after all, try again, or fenced.
        """
        held = {k: v for name, (_, to) in moved.items() for k, v in self.transactions(name, to).items()}
        deadline, delay, attempted = time.monotonic() + RETRY_SECONDS, 0.1, False
        while True:
            handle = self._store.refresh(self.path, None)
            if self._landed(handle, moved, attempted=attempted):
                return
            reach(f"{self._words.stage}:before-commit")
            try:
                attempted = True
                self._store.append(self.path, handle, rows, description="{}", transactions=held)
            except (DeltaError, OSError) as error:
                passing = isinstance(error, CommitFailedError) or not is_disk_full(error)
                if not passing or time.monotonic() > deadline or not moved:
                    raise self.explained(error) from error
                self._store.pause(delay)
                delay = min(delay * 2, 5.0)
                continue
            reach(f"{self._words.stage}:after-commit")
            return

    def _landed(self, handle: Snapshot | None, moved: Moved, *, attempted: bool) -> bool:
        stored = {name: self._place(handle, name) for name in moved}
        if attempted and moved and stored == {name: to for name, (_, to) in moved.items()}:
            return True
        for name, (known, _) in moved.items():
            if stored[name] != known:
                raise self._fenced(name, stored[name], known)
        return False

    def transactions(self, name: str, place: Place) -> dict[str, int]:
        """A place as app transactions."""
        own = f"{self._words.kind}:{name}"
        held = {own: place.position, f"{own}:since": place.since}
        return held | ({f"{own}:form": place.form} if place.form else {})

    def _place(self, table: DeltaTable | Snapshot | None, name: str) -> Place | None:
        own = f"{self._words.kind}:{name}"
        position = table.transaction_version(own) if table is not None else None
        if table is None or position is None:
            return None
        since, form = (table.transaction_version(f"{own}:{part}") or 0 for part in ("since", "form"))
        return Place(position, since, form)

    def _fenced(self, name: str, stored: Place | None, known: Place | None) -> LakeError:
        words = self._words
        return LakeError(
            f"Another process evaluates the {words.kind} {name}: it is at position {_spelled(stored)}, this one left "
            f"it at {_spelled(known)}.",
            why=f"Two processes that evaluate one {words.kind} would find everything twice; this one wrote nothing.",
            next=f"stop the other `cdc-lake {words.command} run`, then start this one again",
            code=words.code,
        )

    def explained(self, error: Exception) -> LakeError:
        """The error of a commit, in words for a person."""
        full, again = is_disk_full(error), f"cdc-lake {self._words.command} run"
        return LakeError(
            f"{self._words.doing} could not be committed to {self.path}.",
            why=first_line(error),
            next=f"free space, then: {again}" if full else f"check the store's permissions and space, then: {again}",
            code="disk_full" if full else "commit_failed",
        )


def _spelled(place: Place | None) -> str:
    return "its beginning" if place is None else str(place.position)
