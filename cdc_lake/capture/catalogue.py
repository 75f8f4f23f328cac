"""Columns and types of tables as PostgreSQL's catalogue has them, in a shape that can be stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cdc_lake.capture.postgres import explain_statement, open_source
from cdc_lake.events import TableId

# A domain may stand on a domain: the chain is followed to the type that is not one. A length or scale is stored at
# the link that sets it, so the last one seen counts.
_COLUMNS = """
WITH RECURSIVE domains AS (
    SELECT t.oid AS domain, t.typbasetype AS base, t.typtypmod AS typmod FROM pg_type t WHERE t.typtype = 'd'
    UNION ALL
    SELECT d.domain, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE d.typmod END
    FROM domains d JOIN pg_type t ON t.oid = d.base WHERE t.typtype = 'd'
), bases AS (
    SELECT d.domain, d.base, d.typmod, b.typname, b.typtype::text AS typtype, b.typelem
    FROM domains d JOIN pg_type b ON b.oid = d.base WHERE b.typtype <> 'd'
), keys AS (
    SELECT i.indrelid, k.attnum, k.position
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    WHERE i.indisprimary
)
SELECT n.nspname AS schema, c.relname AS table, c.relreplident::text AS replica_identity, c.oid::bigint AS oid,
       a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, t.typname, t.typtype::text AS typtype,
       e.typname AS element_typname, e.typtype::text AS element_typtype,
       CASE WHEN e.oid IS NOT NULL THEN format_type(e.oid, CASE WHEN e.typtype = 'd' THEN NULL ELSE a.atttypmod END) END
           AS element_type,
       format_type(COALESCE(b.base, eb.base), COALESCE(b.typmod, eb.typmod)) AS base_type,
       COALESCE(b.typname, eb.typname) AS base_typname, COALESCE(b.typtype, eb.typtype) AS base_typtype,
       a.attnotnull AS not_null, k.position::int AS key_position,
       NULLIF(a.attgenerated::text, '') AS generated, NULLIF(a.attidentity::text, '') AS identity,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default_expr
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
LEFT JOIN bases b ON b.domain = t.oid
LEFT JOIN bases eb ON eb.domain = e.oid
LEFT JOIN keys k ON k.indrelid = c.oid AND k.attnum = a.attnum
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
  AND (%(schemas)s::text[] IS NULL
       OR (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[])))
ORDER BY n.nspname, c.relname, a.attnum
"""

_TABLE_KEYS = ("schema", "table", "replica_identity", "oid")


def read_catalogue(dsn: str, tables: Sequence[TableId] | None = None) -> list[dict[str, Any]]:
    """Columns of `tables` (None: all ordinary and partitioned tables), in the order of the table's columns.

    Each entry: `schema`, `table`, `replica_identity` (d, f, n, i), `oid` and `columns`, each with `name`, `type` (as
    SQL writes it), `typname`, `typtype` (b base, e enum, d domain, c composite, r range, m multirange),
    `element_typname`, `element_typtype` and `element_type` of an array, `base_type`, `base_typname` and `base_typtype`
    of a domain (or of an array's element that is one), `not_null`, `key_position` (1-based place in the primary key),
    `generated` (s, v), `identity` (a, d) and `default_expr`; what does not apply is None. Tables that do not exist are
    absent.

    Raises UnavailableError or SourceError as `open_source` does.
    """
    wanted = {
        "schemas": None if tables is None else [t.schema for t in tables],
        "tables": None if tables is None else [t.name for t in tables],
    }
    with open_source(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        try:
            rows = cursor.execute(_COLUMNS, wanted).fetchall()
        except psycopg.Error as error:
            raise explain_statement(error, "read the catalogue") from None
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        table = {key: row.pop(key) for key in _TABLE_KEYS}
        entry = found.setdefault((table["schema"], table["table"]), {**table, "columns": []})
        entry["columns"].append(row)
    return list(found.values())


def catalogue_entries(entries: Sequence[Mapping[str, Any]]) -> dict[TableId, str]:
    """The source catalogue's tables as the JSON text that the lake records as their schema."""
    return {TableId(e["schema"], e["table"]): json.dumps(e, ensure_ascii=False) for e in entries}
