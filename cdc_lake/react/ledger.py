"""The alerts of one source: an append-only Delta table of what became of them, and how far each rule is.

A commit holds what rules found and, as app transactions, the positions up to which they looked: both or neither. So
each finding is there once, wherever a process is killed. Positions are compared before each commit: another process
that evaluates the same rule is told from this one, and stops.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import LakeError, first_line, is_disk_full
from cdc_lake.land.layout import alerts_path
from cdc_lake.land.store import DeltaStore, Snapshot, Store
from cdc_lake.land.tables import ALERTS

# Commits that fail for a passing reason are tried again for this long.
RETRY_SECONDS = 60.0
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Place:
    """How far a rule is, and the position at which it began."""

    position: int
    since: int


class Ledger:
    """The alerts of one source.

    Delivery: each finding is committed once, with its rule's position. Idempotence: a commit that another process
    overtook raises LakeError `rules_fenced` and writes nothing.
    """

    def __init__(
        self, root: str, source: str, options: Mapping[str, str] | None = None, *, store: Store | None = None
    ) -> None:
        self.path = alerts_path(root, source)
        self._store = store or DeltaStore(options)

    def open(self) -> DeltaTable | None:
        """A fresh handle; None before the first commit."""
        return self._store.open(self.path)

    def place(self, rule: str) -> Place | None:
        """Where a rule is; None before its first commit."""
        return _place(self._store.open(self.path), rule)

    def commit(self, rows: Sequence[Row], moved: Mapping[str, tuple[Place | None, Place]]) -> None:
        """Write `rows`, and for each rule of `moved` its place, from the one it must still have.

        1. Open a fresh handle and compare the places: another one is another process's doing.
        2. Append rows and places in one commit.
        3. If it fails, read the places again before deciding: landed after all, try again, or fenced.
        """
        table = pa.Table.from_pylist([dict(r) for r in rows], ALERTS)
        held = {k: v for rule, (_, to) in moved.items() for k, v in _transactions(rule, to).items()}
        deadline, delay, attempted = time.monotonic() + RETRY_SECONDS, 0.1, False
        while True:
            handle = self._store.refresh(self.path, None)
            if self._landed(handle, moved, attempted=attempted):
                return
            reach("rules:before-commit")
            try:
                attempted = True
                self._store.append(self.path, handle, table, description="{}", transactions=held)
            except (DeltaError, OSError) as error:
                passing = isinstance(error, CommitFailedError) or not is_disk_full(error)
                if not passing or time.monotonic() > deadline or not moved:
                    raise _explained(self.path, error) from error
                self._store.pause(delay)
                delay = min(delay * 2, 5.0)
                continue
            reach("rules:after-commit")
            return

    def add(self, rows: Sequence[Row]) -> None:
        """Write what a person decided."""
        self.commit(rows, {})

    def _landed(
        self, handle: Snapshot | None, moved: Mapping[str, tuple[Place | None, Place]], *, attempted: bool
    ) -> bool:
        stored = {rule: _place(handle, rule) for rule in moved}
        if attempted and moved and stored == {rule: to for rule, (_, to) in moved.items()}:
            return True
        for rule, (known, _) in moved.items():
            if stored[rule] != known:
                raise LakeError(
                    f"Another process evaluates the rule {rule}: it is at position {_spelled(stored[rule])}, this one "
                    f"left it at {_spelled(known)}.",
                    why="Two processes that evaluate one rule would find everything twice; this one wrote nothing.",
                    next="stop the other `cdc-lake rules run`, then start this one again",
                    code="rules_fenced",
                )
        return False


def _place(table: DeltaTable | Snapshot | None, rule: str) -> Place | None:
    position = table.transaction_version(f"rule:{rule}") if table is not None else None
    if table is None or position is None:
        return None
    return Place(position, table.transaction_version(f"rule:{rule}:since") or 0)


def _transactions(rule: str, place: Place) -> dict[str, int]:
    return {f"rule:{rule}": place.position, f"rule:{rule}:since": place.since}


def _spelled(place: Place | None) -> str:
    return "its beginning" if place is None else str(place.position)


def _explained(path: str, error: Exception) -> LakeError:
    full = is_disk_full(error)
    return LakeError(
        f"Alerts could not be committed to {path}.",
        why=first_line(error),
        next="free space, then: cdc-lake rules run"
        if full
        else "check the store's permissions and space, then: cdc-lake rules run",
        code="disk_full" if full else "commit_failed",
    )
