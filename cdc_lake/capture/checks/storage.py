"""Checks of how tables are stored: partitions, and values so large that PostgreSQL keeps them beside the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg

from cdc_lake.capture.checks.tables import TableFacts
from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.checks import Check, listed, many, ok, size, warn
from cdc_lake.events import TableId

_LARGE = 1 << 20

_TOAST = """
SELECT n.nspname, c.relname, pg_relation_size(c.reltoastrelid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped AND a.attlen = -1 AND a.attstorage IN ('x', 'e', 'm') ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.reltoastrelid <> 0 AND c.oid::bigint = ANY(%s) AND pg_relation_size(c.reltoastrelid) >= %s
ORDER BY 3 DESC
"""


def read_toast(connection: Connection, oids: Sequence[int]) -> dict[TableId, tuple[int, tuple[str, ...]]]:
    """Tables with a megabyte or more out of line, the largest first: how many bytes, and the columns they may be of."""
    try:
        rows = connection.execute(_TOAST, (list(oids), _LARGE)).fetchall()
    except psycopg.Error as error:
        raise explain_statement(error, "read the sizes of the tables") from None
    return {TableId(schema, name): (count, tuple(columns)) for schema, name, count, columns in rows}


def check_storage(facts: TableFacts, toast: Mapping[TableId, tuple[int, tuple[str, ...]]]) -> list[Check]:
    """Judge partitions and values out of line."""
    return [_partitioned(facts), _toast(facts, toast)]


def _partitioned(facts: TableFacts) -> Check:
    roots = {t.oid: t.id for t in facts.tables if t.kind == "p"}
    parts = Counter(root for p in facts.partitions for root in p.ancestors if root in roots)
    found = listed(f"{table} ({many(parts[oid], 'partition')})" for oid, table in roots.items())
    return ok("tables.partitioned", f"{found}: one table each in the lake" if roots else "no table is partitioned")


def _toast(facts: TableFacts, toast: Mapping[TableId, tuple[int, tuple[str, ...]]]) -> Check:
    name = "tables.large_values"
    found = listed(f"{table} ({size(count)}: {', '.join(columns)})" for table, (count, columns) in toast.items())
    whole = [t.id for t in facts.leaves if t.identity == "f" and t.id in toast]
    if whole:
        return warn(
            name,
            found,
            why=f"{listed(whole)} has REPLICA IDENTITY FULL: each UPDATE and DELETE writes the large old values into "
            "PostgreSQL's change log too.",
            fix="give it a primary key and REPLICA IDENTITY DEFAULT; the lake carries unchanged values forward itself",
        )
    return ok(name, f"{found}; values that an UPDATE leaves are carried forward" if toast else "none out of line")
