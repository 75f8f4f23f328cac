"""`verify`: the proof that the lake equals the source, at a position that both have reached.

1. Take a snapshot of the source, then write a marker: a transaction that commits after everything the snapshot sees.
2. Read the lake and leave out transactions that the snapshot does not see: both sides are now the same moment.
3. Compare. A difference counts only when the lake has the marker; until then the lake is given time to reach it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import psycopg

from cdc_lake.errors import SourceError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.layout import parquet_files, transactions_path
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.files import scan
from cdc_lake.project.fold import fold_connection
from cdc_lake.project.printing import printed
from cdc_lake.project.snapshot import Lake, SourceState, TableState, read_source
from cdc_lake.project.types import schema_from_catalogue
from cdc_lake.query.compare import TableReport, compare, pairs
from cdc_lake.sqltext import ident

# A running sink lands a heartbeat every few seconds. Without any for this long, waiting on is of no use.
_QUIET_SECONDS = 12.0
_POLL_SECONDS = 0.25
_ROUNDS = 3
_AHEAD = "a fold is ahead of the source's snapshot"
_REWRITTEN = "truncated or rewritten while it was read"
# TRUNCATE and rewriting DDL are not MVCC-safe: an older snapshot then sees an empty table. The catalogue as of the
# snapshot and as of now tell: https://www.postgresql.org/docs/current/mvcc-caveats.html
_WAS_REWRITTEN = """
WITH one AS (SELECT format('%%I.%%I', %s::text, %s::text)::regclass AS id)
SELECT count(*) FROM (SELECT id FROM one UNION SELECT relid FROM one, pg_partition_tree(id)) p
LEFT JOIN pg_class c ON c.oid = p.id
WHERE c.oid IS NULL OR c.relfilenode <> coalesce(pg_relation_filenode(p.id), 0)
"""


@dataclass(slots=True)
class Report:
    """All tables of one source. `reached` is false when the lake did not get to the source's position."""

    source: str
    lsn: str
    snapshot: str
    reached: bool
    tables: list[TableReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row of every table is equal."""
        return all(t.ok for t in self.tables)

    @property
    def position(self) -> dict[str, Any]:
        """Where both sides were compared."""
        return {"source": self.source, "lsn": self.lsn, "snapshot": self.snapshot, "reached": self.reached}


@dataclass(frozen=True, slots=True)
class Seen:
    """A source snapshot: which transactions it sees (as `pg_current_snapshot` prints it)."""

    text: str

    @property
    def condition(self) -> str:
        """DuckDB SQL over `tx_id`: not seen. Logs hold the low 32 bits of a transaction id, snapshots all 64."""
        _, xmax, running = self.text.split(":")
        high = int(xmax)
        era = high >> 32 << 32
        id64 = f"tx_id::BIGINT + {era}"
        full = f"({id64} - CASE WHEN {id64} > {high + (1 << 31)} THEN {1 << 32} ELSE 0 END)"
        listed = f" OR {full} IN ({running})" if running else ""
        return f"({full} >= {high}{listed})"


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares one source with its part of the lake. `settings` are the connector's modes, `dsn` an administrator's."""

    dsn: str
    lake: Lake
    source: str
    captured: Callable[[TableId], bool]
    settings: Mapping[str, str]
    memory_mb: int = 512
    progress: Callable[[str], None] = lambda _: None

    def verify(self, entries: Sequence[Mapping[str, Any]], *, wait_seconds: float = 60.0) -> Report:
        """Compare all tables of `entries` (catalogue entries of the source).

        Raises SourceError when the source refuses to be read, LakeError when the lake cannot be.
        """
        try:
            report = self._round(entries, None)
            for _ in range(_ROUNDS):
                wrong = {t.table for t in report.tables if not t.ok}
                if not wrong:
                    break
                self.progress(f"{len(wrong)} tables differ: waiting until the lake has all that the source shows")
                again = [e for e in entries if TableId(e["schema"], e["table"]) in wrong]
                newer = self._round(again, wait_seconds)
                newer.tables += [t for t in report.tables if t.table not in wrong]
                report = newer
                # At the same position a difference is one, unless the two sides were not of the same moment.
                if not newer.reached or all(t.cause not in (_AHEAD, _REWRITTEN) for t in newer.tables):
                    break
        except psycopg.Error as error:
            raise SourceError(
                "The source refused to be read.",
                why=first_line(error),
                next="grant SELECT on the captured tables to the role of the source's dsn, then verify again",
            ) from None
        report.tables.sort(key=lambda t: t.table)
        return report

    def _round(self, entries: Sequence[Mapping[str, Any]], wait_seconds: float | None) -> Report:
        with psycopg.connect(self.dsn) as snapshot, fold_connection(self.memory_mb) as con:
            snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            snapshot.execute("SET LOCAL TimeZone = 'UTC'")
            snapshot.execute("SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'")
            row = snapshot.execute("SELECT pg_current_snapshot()::text, pg_current_wal_lsn()::text").fetchone()
            seen, lsn = Seen(row[0] if row else "1:1:"), str(row[1] if row else "")
            reached = wait_seconds is None or self._wait(con, _marker(self.dsn), wait_seconds)
            state = read_source(con, self.lake, self.source, self.captured)
            con.execute(f"DELETE FROM {state.ends} WHERE {seen.condition}")
            ahead = _fold_is_ahead(con, state, seen)
            report = Report(self.source, lsn, seen.text, reached)
            for entry in entries:
                table = _compare_table(con, snapshot, state, entry, self.settings)
                if not table.ok:
                    table.cause = _why(snapshot, table, ahead=ahead, reached=reached)
                self.progress(f"{table.table}: {table.rows_source:,} rows, {'equal' if table.ok else 'different'}")
                report.tables.append(table)
            return report

    def _wait(self, con: duckdb.DuckDBPyConnection, marker: str | None, seconds: float) -> bool:
        """Whether the lake got the marker's END; gives up after `seconds`, or when nothing lands any more."""
        deadline = time.monotonic() + seconds
        quiet_since, version = time.monotonic(), -1
        while time.monotonic() < min(deadline, quiet_since + _QUIET_SECONDS):
            table = self.lake.open(transactions_path(self.lake.root, self.source))
            if table is not None and table.version() != version:
                version, quiet_since = table.version(), time.monotonic()
                files = parquet_files(table)
                query = f"SELECT count(*) FROM {scan(files)} WHERE status = 'END' AND tx_id = ?"
                row = con.execute(query, [marker]).fetchone() if marker and files else None
                if row and row[0]:
                    return True
            time.sleep(_POLL_SECONDS)
        return marker is None


def _why(source: psycopg.Connection[Any], table: TableReport, *, ahead: bool, reached: bool) -> str | None:
    """Why a table differs, when something else than its rows is the reason."""
    if ahead:
        return _AHEAD
    row = source.execute(_WAS_REWRITTEN, (table.table.schema, table.table.name)).fetchone()
    if row and row[0]:
        return _REWRITTEN
    return table.cause or (None if reached else "not landed yet")


def _marker(dsn: str) -> str | None:
    """Write a transaction that is captured and come after all that the snapshot sees; its id, None without a table."""
    with psycopg.connect(dsn, autocommit=True) as con:
        found = con.execute("SELECT to_regclass('cdc_lake.heartbeat') IS NOT NULL").fetchone()
        if not found or not found[0]:
            return None
        row = con.execute(
            """INSERT INTO cdc_lake.heartbeat (id, beat) VALUES (1, clock_timestamp())
            ON CONFLICT (id) DO UPDATE SET beat = EXCLUDED.beat
            RETURNING (pg_current_xact_id()::text::bigint & 4294967295)::text"""
        ).fetchone()
        return str(row[0]) if row else None


def _fold_is_ahead(con: duckdb.DuckDBPyConnection, state: SourceState, seen: Seen) -> bool:
    """Whether a fold holds transactions that the snapshot does not see: then the two sides cannot be compared."""
    cut = max((t.checkpoint.cut for t in state.tables), default=0)
    if state.transactions is None or not cut:
        return False
    files = [f.path for f in state.transactions.files if f.offsets[0] < cut]
    if not files:
        return False
    query = f"SELECT count(*) FROM {scan(files)} WHERE status = 'END' AND __offset < {cut} AND {seen.condition}"
    row = con.execute(query).fetchone()
    return bool(row and row[0])


def _compare_table(
    con: duckdb.DuckDBPyConnection,
    source: psycopg.Connection[Any],
    state: SourceState,
    entry: Mapping[str, Any],
    settings: Mapping[str, str],
) -> TableReport:
    table = TableId(entry["schema"], entry["table"])
    columns = schema_from_catalogue(entry, settings).columns
    found = next((t for t in state.tables if t.table == table), None)
    if found is None:
        keyed = any(c.key_position is not None for c in columns)
        everything = {c.name: "NULL" for c in columns}
        report = compare(con, source, table, pairs(columns, everything, keyed), None)
        report.cause = None if report.ok else "the lake holds nothing of this table"
        return report
    return _compare_landed(con, source, state, found, columns)


def _compare_landed(
    con: duckdb.DuckDBPyConnection, source: psycopg.Connection[Any], state: SourceState, found: TableState, columns: Any
) -> TableReport:
    view = state.view(con, found, "verified")
    shapes = view.shapes
    rows = keyed_sql(view) if shapes.keyed else bag_sql(view)
    lake = {c.name: printed(c.lake_type, f"l.c{i}") for i, c in enumerate(shapes.target.columns)}
    keyed = shapes.keyed and any(c.key_position is not None for c in columns)
    report = compare(con, source, found.table, pairs(columns, lake, keyed), rows)
    absent = sorted({c.name for c in columns} - lake.keys())
    if absent:
        report.cause = f"columns the lake has not seen yet: {', '.join(ident(a) for a in absent)}"
    return report
