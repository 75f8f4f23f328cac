"""Where a lake is, and how its tables and files are reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from cdc_lake.land.layout import open_delta


@dataclass(frozen=True, slots=True)
class Lake:
    """Where a lake is, how its store is reached, and the DuckDB schema that holds our own relations."""

    root: str
    options: Mapping[str, str] | None = None
    own: str = "lake.internal"

    def open(self, path: str) -> DeltaTable | None:
        """A fresh handle; None when there is no such table."""
        return open_delta(path, dict(self.options) if self.options else None)

    def reach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let `con` read the lake's files: those on an object store need a way there."""
        if "://" in self.root:
            from cdc_lake.land.remote_files import register

            register(con, self.root, self.options)
