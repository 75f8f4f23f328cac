"""Kafka records as Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import repeat

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
    prefix: bytes = b"",
) -> RecordBatch:
    """Build a batch from lists of equal length; without lists it covers `[start, end)` and holds no record.

    `prefix` is what `without_prefix` took off `values`.
    """
    return RecordBatch(
        tp=tp,
        start=start,
        end=end,
        offsets=pa.array(offsets, pa.int64()),
        timestamps=pa.array(timestamps, pa.int64()),
        keys=_binary(keys),
        values=_binary(values),
        headers=None if headers is None else pa.array(headers, pa.string()),
        prefix=prefix,
    )


# A shorter prefix costs more to compare than its copies do; a longer one is no schema, and it is kept in memory.
_PREFIX_BYTES = 1024
_LONGEST_PREFIX = 1 << 20


def without_prefix(values: list[bytes | None], known: bytes) -> tuple[bytes, list[bytes | None]]:
    """A long prefix that all present `values` share (empty: none), and the values without it.

    Connect's JsonConverter repeats the schema in every record, 4 KB before 600 B of data: taken off here, it is neither
    copied nor buffered. `known` is the prefix of the batch before: when it fits still, it is not looked for again.
    """
    present = [value for value in values if value is not None]
    if not present:
        return b"", values
    for prefix in (known, _shared(present[0], present[-1]) if len(present) > 1 else b""):
        if prefix and all(map(bytes.startswith, present, repeat(prefix))):
            length = len(prefix)
            return prefix, [value if value is None else value[length:] for value in values]
    return b"", values


def _shared(one: bytes, other: bytes) -> bytes:
    if one[:_PREFIX_BYTES] != other[:_PREFIX_BYTES] or len(one) <= _PREFIX_BYTES:
        return b""
    low, high = _PREFIX_BYTES, min(len(one), len(other), _LONGEST_PREFIX) - 1
    while low < high:  # the first `low` bytes are equal
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return one[:low]


def _binary(values: Sequence[bytes | None]) -> pa.Array:
    array = pa.array(values, pa.binary())
    # Beyond 2 GB pyarrow answers with chunks; 64-bit offsets hold it in one piece.
    return pa.array(values, pa.large_binary()) if isinstance(array, pa.ChunkedArray) else array
