"""Where a lake is, and how its tables and files are reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import duckdb
from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import list_sources, list_tables, open_delta
from cdc_lake.land.tiers import Tier
from cdc_lake.project.cache import Cache

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lake:
    """Where a lake is, how its store is reached, and the DuckDB schema that holds our own relations. `tiers` are the
    places where older parts of its logs may be, `cache` what is kept from one reading to the next."""

    root: str
    options: Mapping[str, str] | None = None
    own: str = "lake.internal"
    tiers: tuple[Tier, ...] = ()
    cache: Cache | None = field(default=None, compare=False, repr=False)

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

    def newest(self, path: str) -> DeltaTable | None:
        """A handle for the reading under way: with a cache, the next one may move it on."""
        return self.open(path) if self.cache is None else self.cache.open(path, self.options_at(path))

    def of_version(self, kind: str, path: str, handle: DeltaTable, make: Callable[[T | None], T]) -> T:
        """What `make` makes of a table, with a cache once for each version; see `Cache.of_version`."""
        return make(None) if self.cache is None else self.cache.of_version(kind, path, handle, make)

    def reach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let `con` read the lake's files: those on an object store need a way there."""
        places = [(self.root, self.options), *((t.uri, t.options) for t in self.tiers)]
        remote = [(root, options) for root, options in places if "://" in root]
        if remote:
            from cdc_lake.land.remote_files import register_all

            register_all(con, remote)
