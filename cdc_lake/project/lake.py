"""Where a lake is, and how its tables and files are reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import list_sources, list_tables, open_delta
from cdc_lake.land.tiers import Tier


@dataclass(frozen=True, slots=True)
class Lake:
    """Where a lake is, how its store is reached, and the DuckDB schema that holds our own relations. `tiers` are the
    places where older parts of its logs may be."""

    root: str
    options: Mapping[str, str] | None = None
    own: str = "lake.internal"
    tiers: tuple[Tier, ...] = ()

    def sources(self) -> list[str]:
        """Sources that have anything in the lake."""
        return list_sources(self.root, self.options)

    def tables(self, source: str) -> list[TableId]:
        """Tables of a source that have a change log."""
        return list_tables(self.root, source, self.options)

    def options_at(self, path: str) -> Mapping[str, str] | None:
        """The storage options by which `path`, in the lake or in one of its tiers, is reached."""
        return next((t.options for t in self.tiers if t.holds(path)), self.options)

    def open(self, path: str) -> DeltaTable | None:
        """A fresh handle; None when there is no such table."""
        return open_delta(path, self.options_at(path))

    def reach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let `con` read the lake's files: those on an object store need a way there."""
        places = [(self.root, self.options), *((t.uri, t.options) for t in self.tiers)]
        remote = [(root, options) for root, options in places if "://" in root]
        if remote:
            from cdc_lake.land.remote_files import register_all

            register_all(con, remote)
