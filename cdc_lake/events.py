"""The values that pass between stages. They know nothing of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """One partition of one Kafka topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True, order=True)
class TableId:
    """A table by its true name in the source (not the sanitised name in a topic)."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive Kafka records of one partition, as columns of equal length.

    `offsets` int64 ascending (gaps are control or compacted records), `timestamps` int64 ms since the epoch, `keys`
    and `values` binary (null: absent key, tombstone), `headers` None when no record has any, else a string column
    of JSON objects (name -> value as text; null: no headers).
    `prefix` is what every present value begins with; it is left off in `values`.
    `start` is the position the batch was read from and `end` the position to read from next: `[start, end)` is
    covered whole, even where it holds no record.
    """

    tp: TopicPartition
    start: int
    end: int
    offsets: pa.Array
    timestamps: pa.Array
    keys: pa.Array
    values: pa.Array
    headers: pa.Array | None = None
    prefix: bytes = b""

    def value(self, row: int) -> bytes | None:
        """The whole value of one record, as it came."""
        rest: bytes | None = self.values[row].as_py()
        return None if rest is None else self.prefix + rest

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""
        headers = self.headers.nbytes if self.headers is not None else 0
        return int(self.offsets.nbytes + self.timestamps.nbytes + self.keys.nbytes + self.values.nbytes + headers)


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A schema that the rows of a table refer to by `id`, and the record of a partition from which on it holds.

    `kind` is `connect` (`definition` is the schema beside the events), `catalogue` (an entry of the source's catalogue)
    or `columns` (what the catalogue said of the columns when the version `id` was seen, see `capture.columns`).
    """

    id: str
    table: TableId
    kind: str
    definition: str
    key_definition: str | None
    tp: TopicPartition
    first_offset: int


def concatenated(batches: Sequence[RecordBatch]) -> RecordBatch:
    """One batch in place of several of the same partition and prefix that follow each other."""
    if len(batches) == 1:
        return batches[0]
    headers = None
    if any(b.headers is not None for b in batches):
        headers = pa.concat_arrays([pa.nulls(len(b), pa.string()) if b.headers is None else b.headers for b in batches])
    return RecordBatch(
        tp=batches[0].tp,
        start=batches[0].start,
        end=batches[-1].end,
        offsets=pa.concat_arrays([b.offsets for b in batches]),
        timestamps=pa.concat_arrays([b.timestamps for b in batches]),
        keys=_concatenated_binary([b.keys for b in batches]),
        values=_concatenated_binary([b.values for b in batches]),
        headers=headers,
        prefix=batches[0].prefix,
    )


def _concatenated_binary(arrays: Sequence[pa.Array]) -> pa.Array:
    kinds = {array.type for array in arrays}
    return pa.concat_arrays(arrays if len(kinds) == 1 else [array.cast(pa.large_binary()) for array in arrays])
