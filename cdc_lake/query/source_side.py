"""The source as one of its snapshots shows it, and which transactions that snapshot sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import psycopg

from cdc_lake.errors import LakeError, SourceError, first_line
from cdc_lake.events import TableId
from cdc_lake.project.snapshot import SourceState
from cdc_lake.query.source_rights import marker_refused

# TRUNCATE and rewriting DDL are not MVCC-safe: an older snapshot then sees an empty table. The catalogue as of the
# snapshot and as of now tell: https://www.postgresql.org/docs/current/mvcc-caveats.html
# After the table was read its lock keeps all of these away, so then the answer is final.
_WAS_REWRITTEN = """
WITH one AS (SELECT format('%%I.%%I', %s::text, %s::text)::regclass AS id)
SELECT count(*) FROM (SELECT id FROM one UNION SELECT relid FROM one, pg_partition_tree(id)) p
LEFT JOIN pg_class c ON c.oid = p.id
WHERE c.oid IS NULL OR c.relfilenode <> coalesce(pg_relation_filenode(p.id), 0)
"""


@dataclass(frozen=True, slots=True)
class SourceSide:
    """A snapshot of the source. `transactions` says which it sees, as `pg_current_snapshot` prints it."""

    connection: psycopg.Connection[Any]
    transactions: str
    lsn: str
    taken_at: datetime

    @property
    def unseen(self) -> str:
        """DuckDB SQL over `tx_id`: not seen. Logs hold the low 32 bits of a transaction id, snapshots all 64."""
        _, xmax, running = self.transactions.split(":")
        high = int(xmax)
        era = high >> 32 << 32
        id64 = f"tx_id::BIGINT + {era}"
        full = f"({id64} - CASE WHEN {id64} > {high + (1 << 31)} THEN {1 << 32} ELSE 0 END)"
        listed = f" OR {full} IN ({running})" if running else ""
        return f"({full} >= {high}{listed})"

    @property
    def lsn_number(self) -> int:
        """The LSN as the log has it."""
        high, low = self.lsn.split("/")
        return (int(high, 16) << 32) + int(low, 16)

    def position(self, con: duckdb.DuckDBPyConnection, state: SourceState) -> int:
        """The last transaction of the lake's order that the snapshot sees; 0 when it does not see one before that.

        Every seen transaction must have landed. Raises LakeError for a source without transaction metadata.
        """
        if state.transactions is None:
            raise LakeError(
                f"The rows of {state.source} cannot be repaired one by one.",
                why="Its connector sends no transaction metadata, so nothing says which later changes must win.",
                next="read the whole table again: cdc-lake connector snapshot NAME TABLE",
                code="repair_no_transactions",
            )
        query = f"SELECT max(pos) FILTER (NOT {self.unseen}), min(pos) FILTER ({self.unseen}) FROM {state.ends}"
        seen, unseen = con.execute(f"{query} WHERE pos > 0").fetchone() or (None, None)
        last = max(seen or 0, state.after)
        return 0 if unseen is not None and unseen < last else last

    def rewritten(self, table: TableId) -> bool:
        """Whether the table was truncated, rewritten or dropped since the snapshot, which then shows it empty."""
        row = self.connection.execute(_WAS_REWRITTEN, (table.schema, table.name)).fetchone()
        return bool(row and row[0])


def take_snapshot(connection: psycopg.Connection[Any]) -> SourceSide:
    """Begin a transaction that reads the source as it is now, whatever is written meanwhile."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    connection.execute("SET LOCAL TimeZone = 'UTC'")
    connection.execute("SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'")
    row = connection.execute(
        "SELECT pg_current_snapshot()::text, pg_current_wal_lsn()::text, clock_timestamp()"
    ).fetchone()
    if row is None:
        raise ValueError("a query without a table has one row")
    return SourceSide(connection, *row)


def write_marker(dsn: str) -> str | None:
    """Write a transaction that is captured and come after all that a snapshot sees; its id, None without a table.

    Raises SourceError when the role may not.
    """
    with psycopg.connect(dsn, autocommit=True) as con:
        try:
            return _marked(con)
        except psycopg.errors.InsufficientPrivilege as error:
            raise marker_refused(con, error) from None


def _marked(con: psycopg.Connection[Any]) -> str | None:
    found = con.execute("SELECT to_regclass('cdc_lake.heartbeat') IS NOT NULL").fetchone()
    if not found or not found[0]:
        return None
    row = con.execute(
        """INSERT INTO cdc_lake.heartbeat (id, beat) VALUES (1, clock_timestamp())
        ON CONFLICT (id) DO UPDATE SET beat = EXCLUDED.beat
        RETURNING (pg_current_xact_id()::text::bigint & 4294967295)::text"""
    ).fetchone()
    return str(row[0]) if row else None


def read_refused(error: psycopg.Error) -> SourceError:
    """The source did not let itself be read to the end."""
    return SourceError(
        "The source ended the comparison before it was done.",
        why=first_line(error),
        next="cdc-lake doctor  looks at the source and at the rights; then verify again",
    )


def not_reached(source: str, *, marked: bool) -> LakeError:
    """The lake did not get to the position of the source's snapshot, so no row can be repaired there."""
    if not marked:
        return LakeError(
            f"The rows of {source} cannot be repaired one by one.",
            why="There is no table cdc_lake.heartbeat in the source: nothing says when the lake has reached it.",
            next="cdc-lake connector register FILE  prepares it",
            code="repair_no_heartbeat",
        )
    return LakeError(
        f"The lake has not reached the source's position, so nothing of {source} was repaired.",
        why="What is only on its way is no difference: nothing has landed for a while.",
        next="cdc-lake sink run  beside it, and cdc-lake connector status NAME",
        code="repair_not_reached",
    )
