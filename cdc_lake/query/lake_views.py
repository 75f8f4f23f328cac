"""The catalogue `lake`: tables, folds, the cut, transactions, schemas, dead letters, alerts, the audit."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL

from cdc_lake.events import TableId
from cdc_lake.land.layout import alerts_path, audit_path, dead_letters_path, parquet_files, schemas_path
from cdc_lake.land.tables import AUDIT, DEAD_LETTERS, SCHEMAS, TRANSACTIONS
from cdc_lake.maintain.shape import Asked, Shape, shapes_of
from cdc_lake.project.files import scan
from cdc_lake.project.lake import Lake
from cdc_lake.project.order import Cut
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.query.alert_views import alerts_sql, late_sql
from cdc_lake.query.stream_views import create_stream_views
from cdc_lake.sqltext import literal
from cdc_lake.traceids import transaction_trace_sql

_WAIT = pa.struct([("tx_id", pa.string()), ("table", pa.string()), ("missing", pa.int64()), ("expected", pa.int64())])
_TABLES = pa.schema(
    [
        ("source", pa.string()),
        ("schema", pa.string()),
        ("table", pa.string()),
        ("key", pa.list_(pa.string())),
        ("rows_landed", pa.int64()),
        ("rows_unfolded", pa.int64()),
        ("last_landed_at", pa.timestamp("us", tz="UTC")),
        ("log_version", pa.int64()),
        ("log_files", pa.int64()),
        ("schema_origin", pa.string()),
        ("unsure_columns", pa.list_(pa.string())),
        ("converted_columns", pa.list_(pa.string())),
        ("error", pa.string()),
        ("foldable", pa.int64()),
    ]
)
_FUNCTION = "cdc_lake_shape"
_SHAPE = pa.struct(
    [
        ("files", pa.int64()),
        ("bytes", pa.int64()),
        ("small_file_ratio", pa.float64()),
        ("oldest_readable_version", pa.int64()),
        ("next_due", pa.string()),
        ("next_due_why", pa.string()),
    ]
)
_FOLDS = pa.schema(
    [
        ("source", pa.string()),
        ("schema", pa.string()),
        ("table", pa.string()),
        ("cut", pa.int64()),
        ("version", pa.int64()),
        ("files", pa.int64()),
        ("log_version", pa.int64()),
    ]
)
_CUT = pa.schema(
    [
        ("source", pa.string()),
        ("position", pa.int64()),
        ("tx_id", pa.string()),
        ("lsn", pa.int64()),
        ("source_ts", pa.timestamp("us", tz="UTC")),
        ("newest", pa.int64()),
        ("stalled", pa.bool_()),
        ("dropped_letters", pa.int64()),
        ("waits_for", pa.list_(_WAIT)),
    ]
)


def create_lake_views(con: duckdb.DuckDBPyConnection, lake: Lake, sources: Sequence[SourceState]) -> None:
    """Fill the catalogue `lake`, which must be attached."""
    pairs = [(s, t) for s in sources for t in s.tables]
    _store(con, "tables_at_open", pa.Table.from_pylist([_table_row(s, t) for s, t in pairs], _TABLES), "internal.")
    _create_tables(con, lake)
    _store(con, "folds", pa.Table.from_pylist([_fold_row(s, t) for s, t in pairs if t.base is not None], _FOLDS))
    _store(con, "cut_at_open", pa.Table.from_pylist([_cut_row(s.source, s.cut) for s in sources], _CUT), "internal.")
    con.execute(
        """CREATE VIEW lake.cut AS SELECT * EXCLUDE (waits_for), greatest(0, epoch(now() - source_ts)) AS age_seconds,
        waits_for FROM lake.internal.cut_at_open"""
    )
    transactions = {s.source: s.transactions.paths if s.transactions is not None else [] for s in sources}
    _view(con, "transactions", transactions, TRANSACTIONS)
    _view(con, "schemas", {s.source: _files(lake, schemas_path(lake.root, s.source)) for s in sources}, SCHEMAS)
    letters = {s.source: _files(lake, dead_letters_path(lake.root, s.source)) for s in sources}
    _view(con, "dead_letters", letters, DEAD_LETTERS)
    _view(con, "audit", {s.source: _files(lake, audit_path(lake.root, s.source)) for s in sources}, AUDIT)
    alerts = {s.source: _files(lake, alerts_path(lake.root, s.source)) for s in sources}
    con.execute(f"CREATE VIEW lake.alerts AS {alerts_sql(alerts)}; CREATE VIEW lake.late_events AS {late_sql(alerts)}")
    create_stream_views(con, lake, [s.source for s in sources])
    con.execute(f"CREATE MACRO lake.trace_id(source, tx_id) AS {transaction_trace_sql('source', 'tx_id')}")


def _create_tables(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """`lake.tables`: what was there at opening, with the shape that each table has when that is asked for."""

    def shapes(source: pa.Array, schema: pa.Array, name: pa.Array, unfolded: pa.Array) -> pa.Array:
        rows = zip(*(column.to_pylist() for column in (source, schema, name, unfolded)), strict=True)
        found = shapes_of(lake, [Asked(s, TableId(c, t), n) for s, c, t, n in rows])
        return pa.array([None if shape is None else _shape_row(shape) for shape in found], _SHAPE)

    fields = {"files": "BIGINT", "bytes": "BIGINT", "small_file_ratio": "DOUBLE"}
    fields |= {"oldest_readable_version": "BIGINT", "next_due": "VARCHAR", "next_due_why": "VARCHAR"}
    returned = f"STRUCT({', '.join(f'{n} {t}' for n, t in fields.items())})"
    texts = ["VARCHAR"] * 3
    con.create_function(_FUNCTION, shapes, [*texts, "BIGINT"], returned, type=ARROW, null_handling=SPECIAL)
    # A function is called for the columns that a query reads, so nobody else waits for it.
    con.execute(
        f"""CREATE VIEW lake.tables AS SELECT * EXCLUDE (foldable, shape), {", ".join(f"shape.{n}" for n in fields)}
        FROM (SELECT *, system.main.{_FUNCTION}(source, schema, "table", foldable) AS shape
            FROM lake.internal.tables_at_open)"""
    )


def _shape_row(shape: Shape) -> dict[str, object]:
    return {
        "files": shape.files,
        "bytes": shape.bytes,
        "small_file_ratio": shape.small_file_ratio,
        "oldest_readable_version": shape.oldest_version,
        "next_due": shape.due or None,
        "next_due_why": shape.why or None,
    }


def foldable(table: TableState) -> int:
    """How many changes of a table a fold would take now."""
    return 0 if table.error is not None or table.tail.held else table.tail.facts.placed + table.tail.facts.free


def _files(lake: Lake, path: str) -> list[str]:
    table = lake.newest(path)
    return parquet_files(table) if table is not None else []


def _view(con: duckdb.DuckDBPyConnection, name: str, files: dict[str, list[str]], columns: pa.Schema) -> None:
    parts = [f"SELECT {literal(source)} AS source, * FROM {scan(paths, columns)}" for source, paths in files.items()]
    nothing = f"SELECT NULL::VARCHAR AS source, * FROM {scan([], columns)}"
    con.execute(f"CREATE VIEW lake.{name} AS {' UNION ALL BY NAME '.join(parts or [nothing])}")


def _store(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, schema: str = "") -> None:
    con.register("rows_to_store", rows)
    con.execute(f"CREATE TABLE lake.{schema}{name} AS SELECT * FROM rows_to_store")
    con.unregister("rows_to_store")


def _table_row(source: SourceState, table: TableState) -> dict[str, object]:
    newest = table.log.newest()
    return {
        "source": source.source,
        "schema": table.table.schema,
        "table": table.table.name,
        "key": [c.name for c in table.shapes.target.key_columns] if table.shapes is not None else None,
        "rows_landed": table.log.rows,
        "rows_unfolded": table.tail.facts.placed + table.tail.facts.free,
        "last_landed_at": newest.ingested_us if newest is not None else None,
        "log_version": table.log.version,
        "log_files": table.log.count,
        "schema_origin": table.shapes.target.origin if table.shapes is not None else None,
        "unsure_columns": table.shapes.unsure if table.shapes is not None else [],
        "converted_columns": table.shapes.converted if table.shapes is not None else [],
        "error": table.error.message if table.error is not None else None,
        "foldable": foldable(table),
    }


def _fold_row(source: SourceState, table: TableState) -> dict[str, object]:
    return {
        "source": source.source,
        "schema": table.table.schema,
        "table": table.table.name,
        "cut": table.checkpoint.cut,
        "version": table.base.version if table.base is not None else None,
        "files": len(table.base.files) if table.base is not None else 0,
        "log_version": table.checkpoint.log_version,
    }


def _cut_row(source: str, cut: Cut) -> dict[str, object]:
    return {
        "source": source,
        "position": cut.position,
        "tx_id": cut.tx_id,
        "lsn": cut.lsn,
        "source_ts": cut.source_ts,
        "newest": cut.newest,
        "stalled": cut.stalled,
        "dropped_letters": cut.dropped,
        "waits_for": [
            {"tx_id": w.tx_id, "table": w.table, "missing": w.missing, "expected": w.expected} for w in cut.waits
        ],
    }
