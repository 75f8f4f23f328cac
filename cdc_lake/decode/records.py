"""What decoding yields: rows of the lake's tables, still without a place to go."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from cdc_lake.events import RecordBatch, SchemaVersion, TableId, TopicPartition

# The end of the year 9999: a record may bear any number for its time.
_LAST_MS = 253_402_300_799_000


@dataclass(frozen=True, slots=True)
class TableRows:
    """Change events of one source table from one topic, in the columns of the change log."""

    topic: str
    table: TableId
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot become a change event, with all that is needed to try again."""

    tp: TopicPartition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: str | None
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Everything that one round of batches decoded to. `schemas` has every run of rows of one schema, in order; `times`
    is when that began and ended, by `time.monotonic`."""

    tables: list[TableRows]
    transactions: pa.Table | None
    dead: list[DeadLetter]
    schemas: list[SchemaVersion]
    times: tuple[float, float]


class Decodes(Protocol):
    """Makes rows of records. It is called from one thread at a time, but for `assigned`."""

    def decode(self, batches: Sequence[RecordBatch]) -> Decoded:
        """Decode `batches` of any topics. Never raises for a bad record: it becomes a dead letter."""

    def look(self, batch: RecordBatch) -> None:
        """These records will be decoded: begin to fetch what that needs. Never waits; called by the sink's loop."""

    def awaits(self) -> str:
        """In words, what must come before the records that were looked at can be decoded; empty when nothing must.
        Never waits; called by the sink's loop."""

    def assigned(self, ends: Mapping[TopicPartition, int]) -> None:
        """These partitions were given to this process, each with the offset at which it ends now. Others may have
        landed what they hold until then."""

    def released(self, partitions: Collection[TopicPartition]) -> None:
        """This process reads these partitions no longer."""


def why_not_json(value: bytes | None) -> tuple[str, str] | None:
    """Why `value` is not one JSON object: (error class, reason); None when it is one or is null."""
    if value is None:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        return "invalid_utf8", f"byte {error.start} is not UTF-8"
    try:
        document = json.loads(text)
    except ValueError as error:
        return "invalid_json", str(error)
    except RecursionError:
        return "invalid_json", "nested too deeply"
    return None if isinstance(document, dict) else ("not_an_envelope", "the value is not a JSON object")


def letter(batch: RecordBatch, row: int, error_class: str, reason: str) -> DeadLetter:
    """The record in a row of `batch` as a dead letter."""
    return DeadLetter(
        TopicPartition(batch.tp.topic, batch.tp.partition),
        batch.offsets[row].as_py(),
        batch.timestamps[row].as_py(),
        batch.keys[row].as_py(),
        batch.value(row),
        batch.headers[row].as_py() if batch.headers is not None else None,
        error_class,
        reason,
    )


def dead_letter_rows(dead: Sequence[DeadLetter], schema: pa.Schema) -> pa.Table:
    """Dead letters as rows of the lake's table `schema`."""
    now = datetime.now(UTC)
    return pa.Table.from_pylist([_dead_row(letter, now) for letter in dead], schema=schema)


def _dead_row(letter: DeadLetter, now: datetime) -> dict[str, Any]:
    return {
        "id": f"{letter.tp.topic}/{letter.tp.partition}/{letter.offset}",
        "topic": letter.tp.topic,
        "partition": letter.tp.partition,
        "offset": letter.offset,
        "timestamp": datetime.fromtimestamp(min(max(letter.timestamp_ms, 0), _LAST_MS) / 1000, UTC),
        "key": letter.key,
        "value": letter.value,
        "headers": letter.headers,
        "schema_id": None,
        "error_class": letter.error_class,
        "reason": letter.reason,
        "ingested_at": now,
    }
