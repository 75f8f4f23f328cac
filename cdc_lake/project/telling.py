"""What of a log and of the recorded schemas tells the shape of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import duckdb
from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import parquet_files, schemas_path
from cdc_lake.land.tables import LOG
from cdc_lake.project.files import LogFiles, scan
from cdc_lake.project.lake import Lake
from cdc_lake.project.shapes import SchemaRow
from cdc_lake.project.tail import REPAIR

_SAMPLE = 200


def read_schemas(con: duckdb.DuckDBPyConnection, lake: Lake, source: str) -> dict[TableId, list[SchemaRow]]:
    """The versions that were recorded of each table of a source."""
    path = schemas_path(lake.root, source)
    table = lake.newest(path)
    return lake.of_version("schemas", path, table, lambda _: _read_rows(con, table)) if table is not None else {}


def _read_rows(con: duckdb.DuckDBPyConnection, table: DeltaTable) -> dict[TableId, list[SchemaRow]]:
    if not (files := parquet_files(table)):
        return {}
    rows = con.execute(
        f"""SELECT schema, "table", schema_id, kind, any_value(definition), any_value(key_definition),
        any_value(from_json(settings, '"MAP(VARCHAR, VARCHAR)"')), epoch_us(min(recorded_at)), min(first_offset)
        FROM {scan(files)} GROUP BY schema, "table", schema_id, kind, CASE WHEN kind = 'columns' THEN definition END"""
    ).fetchall()
    found: dict[TableId, list[SchemaRow]] = defaultdict(list)
    for schema, name, schema_id, kind, definition, key, settings, recorded, offset in rows:
        row = SchemaRow(schema_id, kind, definition, key, settings or {}, (recorded, offset or 0))
        found[TableId(schema, name)].append(row)
    return found


def newest_schema(con: duckdb.DuckDBPyConnection, log: LogFiles) -> str | None:
    """The schema of the newest row: of a file that a compaction made, among those that landed last."""
    file = log.newest()
    if file is None or file.schema_id is not None:
        return file.schema_id if file is not None else None
    row = con.execute(
        f"""SELECT __schema_id FROM {scan([file.path])} WHERE __schema_id IS NOT NULL AND NOT {REPAIR}
        ORDER BY __ingested_at > max(__ingested_at) OVER () - INTERVAL 1 MINUTE DESC, __lsn DESC NULLS LAST,
        __offset DESC LIMIT 1"""
    ).fetchone()
    return row[0] if row is not None else None


def unkeyed_in(con: duckdb.DuckDBPyConnection, log: LogFiles) -> Callable[[str], bool]:
    """Whether rows of a version, other than truncates, were sent without a key."""

    def unkeyed(version: str) -> bool:
        where = "__schema_id = $1 AND __key IS NULL AND __op NOT IN ('t', 'e')"
        query = f"SELECT 1 FROM {scan(log.paths, LOG)} WHERE {where} LIMIT 1"
        return con.execute(query, [version]).fetchone() is not None

    return unkeyed


def sample(con: duckdb.DuckDBPyConnection, log: LogFiles) -> tuple[list[str], list[str]]:
    """Some images and keys, for a table whose events carry no schema."""
    files = [f.path for f in log.files[:4]] + [f.path for f in log.files[-4:]]
    rows = con.execute(
        f"""SELECT coalesce(__after, __before), __key FROM {scan(dict.fromkeys(files), LOG)}
        WHERE coalesce(__after, __before) IS NOT NULL ORDER BY __offset DESC LIMIT {_SAMPLE}"""
    ).fetchall()
    return [image for image, _ in rows], [key for _, key in rows if key is not None]
