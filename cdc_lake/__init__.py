"""Every change of a database, once and in order, in Delta Lake; asked with SQL in DuckDB.

The package reads as the data flows: `capture` tells Debezium what to capture, `consume` reads Kafka, `decode` turns
records into change events, `land` appends them to the change log, `project` folds the log into read models, `query`
answers SQL over them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb

    from cdc_lake.config import Config

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]


def connect(
    config: Config | str | Path | None = None, as_of: str | None = None, *, tables: Sequence[str] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection with `current`, `changes`, `history` and `lake` attached.

    `config` is a Config, the path of a `cdc-lake.yaml`, or None for the one in the current folder. The connection is
    a snapshot: all tables are read at one cut, that of the moment it was opened, or that of `as_of`: a time (ISO 8601,
    UTC without a zone), an LSN or a transaction id.

    A program that connects again and again for what is new names the `tables` it reads (`orders` is `public.orders`):
    there are views of these alone, and it opens in a fraction of the time.

    Raises `CdcLakeError` when the config or the lake cannot be read, or does not hold that moment, or a table is
    unknown.
    """
    from cdc_lake.query.session import open_session
    from cdc_lake.trace.ambient import session_span

    with session_span() as cuts:
        session = open_session(config, as_of=as_of, tables=tables)
        cuts += [(source, cut.tx_id) for source, cut in session.cuts.items()]
    return session.connection
