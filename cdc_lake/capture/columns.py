"""Which columns a table has by PostgreSQL's own numbers, and what rows show that are older than a column.

A column keeps its number when it is renamed, and one that is dropped and added again gets another: the number says
whether two shapes of a table speak of the same column. `attmissingval` is the value that `ADD COLUMN … DEFAULT` gave to
the rows that were there, evaluated once, at the time of the change. A default that PostgreSQL evaluates for each row
rewrites the table instead, and leaves no trace of the values but in the rows themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cdc_lake.capture.postgres import CONNECT_SECONDS, explain_statement, open_source
from cdc_lake.events import TableId

_COLUMNS = """
SELECT n.nspname AS schema, c.relname AS table, c.oid::bigint AS oid, c.relnatts::int AS last,
       a.attnum::int AS number, a.attname AS name,
       (a.attmissingval::text::text[])[1] AS missing, (array_to_json(a.attmissingval) -> 0)::text AS missing_json,
       NOT a.atthasmissing AND (a.atthasdef OR a.attidentity <> '' OR a.attnotnull) AS unsure
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p')
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[]))
ORDER BY n.nspname, c.relname, a.attnum
"""
_NUMBERS = """
SELECT n.nspname, c.relname, c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[]))
"""
# A partitioned table has no rows of its own: what its partitions show is asked of the first of them.
_OF_PARTITIONED = """
SELECT p.attname AS name, (p.attmissingval::text::text[])[1] AS missing,
       (array_to_json(p.attmissingval) -> 0)::text AS missing_json
FROM pg_partition_tree(%(oid)s::oid::regclass) t
JOIN pg_attribute p ON p.attrelid = t.relid AND p.atthasmissing AND NOT p.attisdropped
WHERE t.isleaf ORDER BY t.relid DESC
"""


def read_columns(dsn: str, tables: Sequence[TableId]) -> dict[TableId, str]:
    """What the catalogue says now of the columns of `tables`, as the JSON text that the lake records.

    `{"oid", "last", "columns": [{"number", "name", "missing", "missing_json", "unsure"}]}`: `missing` is what older
    rows show as PostgreSQL prints it (UTC, ISO), `missing_json` the same as JSON; `unsure` says that nothing tells what
    they show; `last` is the highest number of all, dropped ones too. What does not apply is left out; a table that does
    not exist is absent.

    Raises UnavailableError or SourceError as `open_source` does.
    """
    wanted = _wanted(tables)
    found: dict[TableId, dict[str, Any]] = {}
    with open_source(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        try:
            cursor.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'")
            for row in cursor.execute(_COLUMNS, wanted).fetchall():
                table = TableId(row.pop("schema"), row.pop("table"))
                entry = found.setdefault(table, {"oid": row["oid"], "last": row["last"], "columns": []})
                del row["oid"], row["last"]
                entry["columns"].append({k: v for k, v in row.items() if v is not None and v is not False})
            for entry in found.values():
                _of_partitions(cursor, entry)
        except psycopg.Error as error:
            raise explain_statement(error, "read the catalogue") from None
    return {table: json.dumps(entry, ensure_ascii=False) for table, entry in found.items()}


def read_oids(dsn: str, tables: Sequence[TableId], *, seconds: int = CONNECT_SECONDS) -> dict[TableId, int]:
    """PostgreSQL's numbers (`pg_class.oid`) of those of `tables` that exist now: a table made anew has another one.

    Raises UnavailableError, after `seconds` without an answer, or SourceError, as `open_source` does.
    """
    with open_source(dsn, seconds=seconds) as connection:
        try:
            rows = connection.execute(_NUMBERS, _wanted(tables)).fetchall()
        except psycopg.Error as error:
            raise explain_statement(error, "read the catalogue") from None
    return {TableId(schema, name): oid for schema, name, oid in rows}


def _wanted(tables: Sequence[TableId]) -> dict[str, list[str]]:
    return {"schemas": [t.schema for t in tables], "tables": [t.name for t in tables]}


def _of_partitions(cursor: psycopg.Cursor[dict[str, Any]], entry: dict[str, Any]) -> None:
    unsure = {c["name"]: c for c in entry["columns"] if c.get("unsure")}
    if not unsure:
        return
    for row in cursor.execute(_OF_PARTITIONED, {"oid": entry["oid"]}).fetchall():
        column = unsure.pop(row["name"], None)
        if column is not None:
            column.pop("unsure")
            column |= {"missing": row["missing"], "missing_json": row["missing_json"]}
