"""Rows of a model to a Kafka topic, as CloudEvents 1.0 in their binary form: the table is the outbox.

What is not sent yet is what the table has behind the position of the topic, so nothing is lost while Kafka is away, and
a process that dies in between goes on where the topic is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Protocol

import duckdb

from cdc_lake.react.stream.shape import Shape
from cdc_lake.react.stream.table import ModelTable
from cdc_lake.sqltext import ident, literal

Record = tuple[bytes | None, bytes, list[tuple[str, bytes]]]
# Rows of one transaction, unless one position has more.
MOST = 5_000


class Topic(Protocol):
    """Takes records together with a position: both or neither."""

    def position(self) -> int | None:
        """The position of the last transaction; None before the first."""

    def send(self, records: Iterable[Record], position: int) -> None:
        """Send records and the position that they lead to. Raises UnavailableError; none of them counts then."""


def sender_name(source: str, model: str) -> str:
    """The name under which a model's rows are sent: that of the transactions and of the group of their position."""
    return f"cdc-lake-stream-{source}-{model}"


def deliver(shape: Shape, table: ModelTable, topic: Topic, *, most: int = MOST) -> int:
    """Send the rows behind the topic's position, in the order of positions; how many. Raises UnavailableError."""
    delta, sent = table.rows.open(), 0
    if delta is None:
        return 0
    noted, known = table.sent(), topic.position()
    after = max(-1 if known is None else known, -1 if noted is None else noted.position)
    batch, last = list[Record](), after
    for position, records in _by_position(shape, delta.to_pyarrow_dataset(), after):
        batch += records
        if len(batch) >= most:
            topic.send(batch, position)
            sent, batch = sent + len(batch), []
        last = position
    if batch:
        topic.send(batch, last)
    if last > (-1 if noted is None else noted.position):
        table.mark_sent(last)
    return sent + len(batch)


def _by_position(shape: Shape, rows: Any, after: int) -> Iterator[tuple[int, list[Record]]]:
    """The records of each position; a transaction holds whole ones."""
    for position, group in groupby(rows_behind(shape, rows, after), key=lambda row: int(row["__position"])):
        yield position, [_record(shape.source, shape.name, row) for row in group]


def rows_behind(shape: Shape, rows: Any, after: int) -> Iterator[dict[str, Any]]:
    """The rows of a model behind a position, in order: `__position`, `__id`, `at`, and `key` and `data` as JSON."""
    own = ", ".join(f"{literal(n)}, {ident(n)}" for n, _ in shape.columns)
    keyed = ", ".join(f"{literal(n)}, {ident(n)}" for n in shape.model.key)
    key = f"CAST(json_object({keyed}) AS VARCHAR)" if keyed else "NULL"
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        con.register("rows_to_send", rows)
        reader = con.sql(
            f"""SELECT __position, __id, strftime(__time, '%Y-%m-%dT%H:%M:%S.%fZ') AS at, {key} AS key,
            CAST(json_object({own}) AS VARCHAR) AS data FROM rows_to_send WHERE __position > {after}
            ORDER BY __position, __id"""
        ).to_arrow_reader(MOST)
        for batch in reader:
            yield from batch.to_pylist()


def attributes_of(source: str, model: str, row: dict[str, Any]) -> dict[str, str]:
    """The attributes of the CloudEvent that a row is."""
    return {
        "specversion": "1.0",
        "id": row["__id"],
        "source": f"/cdc-lake/{source}/streams/{model}",
        "type": f"cdc-lake.stream.{model}",
        **({"time": row["at"]} if row["at"] is not None else {}),
        "position": str(row["__position"]),
    }


def _record(source: str, model: str, row: dict[str, Any]) -> Record:
    named = {f"ce_{name}": value for name, value in attributes_of(source, model, row).items()}
    headers = [(n, str(v).encode()) for n, v in {**named, "content-type": "application/json"}.items()]
    key = None if row["key"] is None else row["key"].encode()
    return key, row["data"].encode(), headers
