"""Where a lake is, and how its tables and files are reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import list_sources, list_tables, open_delta


@dataclass(frozen=True, slots=True)
class Lake:
    """Where a lake is, how its store is reached, and the DuckDB schema that holds our own relations."""

    root: str
    options: Mapping[str, str] | None = None
    own: str = "lake.internal"

    def sources(self) -> list[str]:
        """Sources that have anything in the lake."""
        return list_sources(self.root, self.options)

    def tables(self, source: str) -> list[TableId]:
        """Tables of a source that have a change log."""
        return list_tables(self.root, source, self.options)

    def open(self, path: str) -> DeltaTable | None:
        """A fresh handle; None when there is no such table."""
        return open_delta(path, self.options)

    def reach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let `con` read the lake's files: those on an object store need a way there."""
        if "://" in self.root:
            from cdc_lake.land.remote_files import register

            register(con, self.root, self.options)
