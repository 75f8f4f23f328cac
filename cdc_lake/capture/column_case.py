"""Columns that Debezium cannot tell apart: a table that has some ends the whole connector, at its start."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_lake.capture.postgres import Connection
from cdc_lake.capture.preflight import SourceTable, quoted
from cdc_lake.errors import SourceError
from cdc_lake.sqltext import ident

_ALIKE = """SELECT attrelid, array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped
    GROUP BY attrelid, lower(attname) HAVING count(*) > 1 ORDER BY 1, 2"""


def check_column_case(connection: Connection, tables: Sequence[SourceTable]) -> None:
    """Raise SourceError for the first of `tables` that has columns which differ in case alone."""
    by_oid = {table.oid: table for table in tables}
    found = connection.execute(_ALIKE, [list(by_oid)]).fetchone()
    if found is None:
        return
    table, (first, second, *_) = by_oid[found[0]], found[1]
    raise SourceError(
        f"The columns {ident(first)} and {ident(second)} of table {table.id} differ in case alone.",
        why="Debezium refuses such a table, and the connector would read none at all.",
        next=f"in the source: ALTER TABLE {quoted(table.id)} RENAME COLUMN {ident(second)} TO …;  or leave it out: "
        "add it to `table.exclude.list` in the connector file",
        code="column_case",
    )
