"""Changes of tables as events: for a service that wants to know what a captured database says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime

import duckdb

from cdc_lake.service.event import Event, Place
from cdc_lake.sqltext import ident

_KINDS = {"c": "created", "r": "read", "u": "updated", "d": "deleted", "t": "truncated"}
_ROWS = 1_000


def changes_of(
    con: duckdb.DuckDBPyConnection, table: str, *, after: Mapping[tuple[str, int], int] | None = None
) -> Iterator[Event]:
    """The changes of a table that have landed, in the order of each partition, as events `<table>.<created|updated|…>`.

    `con` is that of `cdc_lake.connect()`, `table` is `schema.name`. `data` holds `before` and `after` (objects or
    null), `subject` the key as JSON, `place` where the change lies. `after` names the last offset that is known of
    (topic, partition): only what lies behind is given. Changes of one transaction have one correlation id. For a live
    stream of changes on a topic there are streaming models with `-- topic:`.
    """
    schema, _, name = table.rpartition(".")
    known = [value for (topic, number), offset in (after or {}).items() for value in (topic, number, offset)]
    behind = " AND ".join("NOT (__topic = ? AND __partition = ? AND __offset <= ?)" for _ in after or ()) or "true"
    found = con.execute(
        f"""SELECT __op, CAST(__key AS VARCHAR), CAST(__before AS VARCHAR), CAST(__after AS VARCHAR), __source_ts,
        __tx_id, __topic, __partition, __offset, __ingested_at
        FROM changes.{ident(schema or "public")}.{ident(name)} WHERE {behind}
        ORDER BY __topic, __partition, __offset""",
        known,
    )
    while rows := found.fetchmany(_ROWS):
        for row in rows:
            yield _event(table, row)


def _event(
    table: str,
    row: tuple[str, str | None, str | None, str | None, datetime | None, str | None, str, int, int, datetime],
) -> Event:
    op, key, before, after, time, transaction, topic, partition, offset, came = row
    return Event(
        id=f"{topic}/{partition}/{offset}",
        source=f"/cdc-lake/{table}",
        type=f"{table}.{_KINDS.get(op, op)}",
        data={"before": before and json.loads(before), "after": after and json.loads(after)},
        subject=key or "",
        time=time,
        correlation_id=f"{topic.partition('.')[0]}:{transaction}" if transaction else "",
        place=Place(topic, partition, offset, came),
    )
