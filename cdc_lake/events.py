"""The values that pass between stages. They know nothing of the stages."""

from __future__ import annotations

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
