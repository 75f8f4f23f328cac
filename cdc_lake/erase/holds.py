"""Rows under a legal hold are not erased."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import duckdb

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.query.held import HeldKey, held_keys


@dataclass(frozen=True, slots=True)
class Holds:
    """What the configuration holds: `whole` tells of a table, `keys` of its rows."""

    whole: Callable[[TableId], bool] = lambda _table: False
    keys: Callable[[TableId], list[HeldKey]] = lambda _table: []

    def refuse(
        self, con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState, keys: Collection[str]
    ) -> None:
        """Raise LakeError when rows of `table` with any of `keys`, as the log has them, are under a hold."""
        if not keys:
            return
        if self.whole(table.table):
            raise _under_hold(f"All of {table.table} is under a legal hold, so nothing was erased.")
        written = held_keys(con, source, table, self.keys(table.table))
        for key in sorted(keys & written.keys()):
            raise _under_hold(f"The row {written[key]} of {table.table} is under a legal hold, so nothing was erased.")


def _under_hold(message: str) -> LakeError:
    return LakeError(
        message,
        why="What is under a hold must be kept, whoever asks for its erasure.",
        next="when the hold is over, take it out of `tables.….hold` in cdc-lake.yaml, then run the command once more",
        code="under_hold",
    )
