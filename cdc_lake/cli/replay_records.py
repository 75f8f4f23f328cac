"""Replayed events as lines of JSON and as Kafka records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa

from cdc_lake.events import TableId
from cdc_lake.query.values import Raw, dumps
from cdc_lake.query.window import POSITION

_JSON = ("__key", "__before", "__after")

Record = tuple[bytes | None, bytes, list[tuple[str, bytes]]]


def lines(batch: pa.RecordBatch) -> Iterator[str]:
    """One JSON object an event: the columns of `changes`, images as they arrived, no number of theirs changed."""
    for row in batch.to_pylist():
        yield dumps({k: _plain(k, v) for k, v in row.items()})


def _plain(name: str, value: Any) -> Any:
    if name in _JSON and value is not None:
        return Raw(value)
    return value.isoformat() if isinstance(value, datetime) else value


def records(batch: pa.RecordBatch, table: TableId, replay: str) -> Iterator[Record]:
    """Key, value and headers of each event. The value is a Debezium envelope without a schema.

    Headers: `replay.id`, and the event's own place as `replay.topic`, `replay.partition`, `replay.offset`, `replay.tx`,
    `replay.lsn`, by which a consumer knows an event that it has had.
    """
    for row in batch.to_pylist():
        key = row["__key"]
        yield None if key is None else key.encode(), _envelope(row, table).encode(), _headers(row, replay)


def _envelope(row: dict[str, Any], table: TableId) -> str:
    moment = row["__source_ts"]
    micros = round(moment.timestamp() * 1_000_000) if moment is not None else None
    tx, order = row["__tx_id"], row["__tx_order"]
    source = {
        "ts_ms": micros // 1000 if micros is not None else None,
        "ts_us": micros,
        "schema": table.schema,
        "table": table.name,
        "lsn": row["__lsn"],
        "snapshot": "true" if row["__op"] == "r" else "false",
    }
    return dumps(
        {
            "before": None if row["__before"] is None else Raw(row["__before"]),
            "after": None if row["__after"] is None else Raw(row["__after"]),
            "source": source,
            "transaction": {"id": tx, "total_order": order} if tx is not None else None,
            "op": row["__op"],
        }
    )


def _headers(row: dict[str, Any], replay: str) -> list[tuple[str, bytes]]:
    found = {
        "replay.id": replay,
        "replay.topic": row["__topic"],
        "replay.partition": row["__partition"],
        "replay.offset": row["__offset"],
        "replay.tx": row["__tx_id"],
        "replay.lsn": row["__lsn"],
        "replay.position": row[POSITION],
        "replay.schema_id": row["__schema_id"],
    }
    return [(name, str(value).encode()) for name, value in found.items() if value is not None]
