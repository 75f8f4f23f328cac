"""A session: DuckDB over the lake as it was when the session was opened, all tables at one cut."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from cdc_lake.config import Config, load_config
from cdc_lake.events import TableId
from cdc_lake.land.store_errors import store_named
from cdc_lake.land.tiers import Tier
from cdc_lake.project.cache import Cache
from cdc_lake.project.lake import Lake
from cdc_lake.project.order import Cut
from cdc_lake.project.snapshot import SourceState, prepare, read_source
from cdc_lake.query.catalogue import attach, create_views
from cdc_lake.query.lake_views import create_lake_views
from cdc_lake.query.needs import Needs, everything, needs_of_sql, needs_of_tables
from cdc_lake.query.past import create_moment_macros, sources_as_of

__all__ = ["Cache", "Session", "open_lake", "open_session", "read_sources"]


@dataclass(frozen=True, slots=True)
class Session:
    """An open connection and what it shows. It stays a snapshot: later commits are seen by later sessions."""

    connection: duckdb.DuckDBPyConnection
    sources: tuple[SourceState, ...]

    @property
    def cut(self) -> Cut:
        """The cut of the first source; `cuts` has all."""
        return self.sources[0].cut if self.sources else Cut()

    @property
    def cuts(self) -> dict[str, Cut]:
        """The cut of each source."""
        return {s.source: s.cut for s in self.sources}

    @property
    def tables(self) -> list[TableId]:
        """All tables that have landed."""
        return [t.table for s in self.sources for t in s.tables]

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def open_lake(config: Config, cache: Cache | None = None) -> Lake:
    """Where the configuration's lake is, and the tiers of its classes; `cache` is of who reads it again and again."""
    tiers = tuple(Tier(uri, options or None, name) for name, (uri, options) in config.tiers().items())
    return Lake(config.lake_uri, config.lake.options or None, tiers=tiers, cache=cache)


def read_sources(con: duckdb.DuckDBPyConnection, config: Config, cache: Cache | None = None) -> tuple[SourceState, ...]:
    """The state of every source in the lake, read into a fresh connection.

    Raises LakeError when a table of the lake cannot be read.
    """
    prepare(con)
    lake = open_lake(config, cache)
    return tuple(read_source(con, lake, name, config.captures, number=i) for i, name in enumerate(lake.sources()))


def open_session(
    config: Config | str | Path | None = None,
    as_of: str | None = None,
    *,
    tables: Sequence[str] | None = None,
    sql: str | None = None,
    cache: Cache | None = None,
) -> Session:
    """Open a connection with the catalogues `current` (the default, `public` on the search path), `changes`, `history`
    and `lake`.

    `as_of` is a moment of the past: a time (ISO 8601, UTC without a zone), an LSN or a transaction id; all tables are
    then as the source showed them at that moment. A lake without tables opens too. With `tables`, there are views of
    these only, and with `sql`, of what that query reads: a quarter of the time. Who opens one session after the other
    hands the same `cache` to each.
    Raises ConfigError, MomentError, LakeError when a table of the lake cannot be read, UnavailableError when its store
    does not answer, UsageError for an unknown one in `tables`.
    """
    settings = config if isinstance(config, Config) else load_config(config)
    # DuckDB would spill into the folder that the user stands in.
    con = duckdb.connect(config={"temp_directory": str(Path(tempfile.gettempdir()) / f"cdc-lake-{os.getpid()}")})
    try:
        with store_named(settings.lake_uri):
            sources = read_sources(con, settings, cache)
            if as_of is not None:
                sources = sources_as_of(con, sources, as_of)
            attach(con)
            create_views(con, sources, _needs(con, [t.table for s in sources for t in s.tables], tables, sql))
            create_lake_views(con, open_lake(settings), sources)
            create_moment_macros(con, sources)
    except BaseException:
        con.close()
        raise
    return Session(con, sources)


def _needs(
    con: duckdb.DuckDBPyConnection, known: Collection[TableId], tables: Sequence[str] | None, sql: str | None
) -> Needs:
    if tables is not None:
        return needs_of_tables(tables, known)
    return everything if sql is None else needs_of_sql(con, sql, known)
