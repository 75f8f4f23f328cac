"""Kafka records as Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from cdc_lake.events import RecordBatch, TopicPartition

Header = tuple[str, bytes | None]


def header_json(headers: Sequence[Header] | None) -> str | None:
    """Headers as a JSON object of texts; None when there are none. Bytes that are not UTF-8 are shown as `\\xNN`.

    Of headers with the same name the last one counts, as in Kafka's own `lastHeader`.
    """
    if not headers:
        return None
    texts = {name: None if value is None else value.decode("utf-8", "backslashreplace") for name, value in headers}
    return json.dumps(texts, ensure_ascii=False)


def record_batch(
    tp: TopicPartition,
    start: int,
    end: int,
    *,
    offsets: Sequence[int] = (),
    timestamps: Sequence[int] = (),
    keys: Sequence[bytes | None] = (),
    values: Sequence[bytes | None] = (),
    headers: Sequence[str | None] | None = None,
) -> RecordBatch:
    """Build a batch from lists of equal length; without lists it covers `[start, end)` and holds no record."""
    return RecordBatch(
        tp=tp,
        start=start,
        end=end,
        offsets=pa.array(offsets, pa.int64()),
        timestamps=pa.array(timestamps, pa.int64()),
        keys=_binary(keys),
        values=_binary(values),
        headers=None if headers is None else pa.array(headers, pa.string()),
    )


def _binary(values: Sequence[bytes | None]) -> pa.Array:
    array = pa.array(values, pa.binary())
    # Beyond 2 GB pyarrow answers with chunks; 64-bit offsets hold it in one piece.
    return pa.array(values, pa.large_binary()) if isinstance(array, pa.ChunkedArray) else array
