"""CloudEvents 1.0 on Kafka to rows of the change log, whole columns at a time.

An event becomes one image: its attributes, then the fields of its `data`, so that a topic reads as a table. Both
bindings give the same image: `binary` (attributes in headers that begin with `ce_`, the value is `data`) and
`structured` (all of it in the value). What the specification refuses is a dead letter.

    SELECT … FROM records  ──▶ mode, header entries ──▶ attributes, data ──▶ faults ──▶ image

Its key is what makes two messages one event: `source` and `id`. A message of an event that is there already gets the
operation `a` (again): it stays in the log, and no reader counts it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from cdc_lake.budget import AMPLE
from cdc_lake.decode.debezium import joined
from cdc_lake.decode.eventsql import EVENT, MODES, USUAL
from cdc_lake.decode.fields import Fields
from cdc_lake.decode.records import DeadLetter, Decoded, TableRows, letter
from cdc_lake.decode.repeats import Repeats
from cdc_lake.events import RecordBatch, SchemaVersion, TableId, TopicPartition

# The end of the year 9999, in milliseconds: a record may bear any number for its time.
_NEVER = 253_402_300_799_000
_INSTANT = pa.timestamp("us", tz="UTC")


class EventDecoder:
    """Decodes rounds of records of event topics. `tables` are the topics, each with the table that it is read as.

    `known` are the fields that were seen of each table's events, `landed` gives the events of a topic that landed last
    (see `Repeats`), `now` the time.
    """

    def __init__(
        self,
        tables: Mapping[str, TableId],
        *,
        known: Mapping[TableId, Fields] | None = None,
        landed: Callable[[str], pa.Table | None] = lambda _: None,
        joined_bytes: int = AMPLE.joined,
        threads: int = 2,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tables, self._joined, self._now = tables, joined_bytes, now
        self._fields = dict(known or {})
        # What each partition held when it was given to this process, until that is read.
        self._behind: dict[TopicPartition, int] = {}
        # The latest time of each partition, and the first of all, by Kafka's clock.
        self._latest: dict[TopicPartition, int] = {}
        self._first = _NEVER
        self._duck = duckdb.connect(config={"threads": threads})
        self._duck.execute(
            "SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET allocator_flush_threshold = '8MB'"
        )
        self._repeats = Repeats(self._duck, landed)

    def decode(self, batches: Sequence[RecordBatch], name: str | None = None) -> Decoded:
        """Decode `batches` of any of the topics. Never raises for a bad record: it becomes a dead letter.

        All events of a round are one batch, which ends when they have landed; `name` is what it is called, else nobody
        has called one so.
        """
        begun, dead = time.monotonic(), list[DeadLetter]()
        ordered = list(joined(sorted((b for b in batches if len(b)), key=lambda b: (b.tp, b.start)), self._joined))
        if not ordered:
            return Decoded([], None, dead, [], (begun, time.monotonic()))
        found = pa.concat_tables([self._parse(batch) for batch in ordered])
        upto = self._read_upto(ordered)
        ok = pc.is_null(found["fault"]).combine_chunks()
        if not pc.all(ok).as_py():
            dead.extend(_dead(ordered, found))
            found = found.filter(ok)
        if not found.num_rows:
            return Decoded([], None, dead, [], (begun, time.monotonic()))
        now = self._now()
        name = name or uuid.uuid4().hex[:16]
        rows = self._rows(found, name, now)
        tables = [
            TableRows(topic, self._tables[topic], rows.filter(pc.equal(rows["__topic"], topic)))
            for topic in pc.unique(rows["__topic"]).to_pylist()
        ]
        schemas: list[SchemaVersion] = []
        tables = [self._described(part, schemas) for part in tables]
        return Decoded(tables, _batch_end(rows, name, now, upto), dead, schemas, (begun, time.monotonic()))

    def look(self, batch: RecordBatch) -> None:
        """Events carry all that is needed."""

    def awaits(self) -> str:
        """Nothing."""
        return ""

    def assigned(self, ends: Mapping[TopicPartition, int]) -> None:
        """Look into the log again, before the next message of their topics, for events that others landed; and let the
        time of batches wait for these partitions until they are read up to here."""
        self._repeats.forget({tp.topic for tp in ends})
        self._behind |= ends

    def released(self, partitions: Collection[TopicPartition]) -> None:
        """Wait for these partitions no longer."""
        self._behind = {tp: end for tp, end in self._behind.items() if tp not in partitions}

    def _read_upto(self, batches: Sequence[RecordBatch]) -> datetime | None:
        """The time up to which all partitions were read; None: to their ends.

        One that was read ahead of the others, to which a sink comes after it was away, says nothing of what is late in
        them.
        """
        reached = {b.tp: b for b in batches}
        for batch in batches:
            times = _bounded(batch.timestamps)
            self._latest[batch.tp] = max(pc.max(times).as_py(), self._latest.get(batch.tp, 0))
            self._first = min(self._first, pc.min(times).as_py())
        self._behind = {tp: e for tp, e in self._behind.items() if tp not in reached or reached[tp].end < e}
        if not self._behind:
            return None
        # Of one that was not read yet nothing is known, so nothing moves.
        return datetime.fromtimestamp(min(self._latest.get(tp, self._first) for tp in self._behind) / 1000, UTC)

    def _parse(self, batch: RecordBatch) -> pa.Table:
        """Each record's operation, key, image, and fault (`class: reason`; null: none)."""
        values = batch.values
        if batch.prefix:
            whole = [batch.value(i) for i in range(len(batch))]
            values = pa.array(whole, pa.large_binary())
        count = len(batch)
        text = _text(values)
        records = pa.table(
            {
                "raw": values,
                "v": text,
                "utf8": pc.invert(pc.and_(pc.is_valid(values), pc.is_null(text))),
                "k": _text(batch.keys),
                "headers": batch.headers if batch.headers is not None else pa.nulls(count, pa.string()),
                "topic": pa.repeat(batch.tp.topic, count),
                "part": pa.repeat(pa.scalar(batch.tp.partition, pa.int32()), count),
                "off": batch.offsets,
                "ts": _bounded(batch.timestamps),
                "n": pa.array(range(count), pa.int64()),
            }
        )
        usual = self._ask(USUAL, records)
        others = pc.is_null(usual["image"])
        if not pc.any(others).as_py():
            return usual
        rest = self._ask(f"WITH {MODES} {EVENT}", records.filter(others))
        return pa.concat_tables([usual.filter(pc.invert(others)), rest]).sort_by("n")

    def _ask(self, query: str, records: pa.Table) -> pa.Table:
        self._duck.register("records", records)
        try:
            return self._duck.sql(query).to_arrow_table()
        finally:
            self._duck.unregister("records")

    def _rows(self, found: pa.Table, name: str, now: datetime) -> pa.Table:
        again = self._repeats.mark(found)
        count, nothing = found.num_rows, pa.nulls(found.num_rows, pa.string())
        event = pc.equal(found["op"], "c")
        op = pc.if_else(event, pc.if_else(again, "a", "c"), found["op"])
        zero = pa.repeat(pa.scalar(0, pa.int64()), count)
        return pa.table(
            {
                "__op": op,
                "__key": found["key"],
                "__before": nothing,
                "__after": found["image"],
                "__source_ts": found["sent"],
                # What is no event has no place in a batch.
                "__tx_id": pc.if_else(event, name, pa.scalar(None, pa.string())),
                "__tx_order": pc.if_else(event, pa.array(range(1, count + 1), pa.int64()), None),
                # One number for all: an event that was erased stays so, however often it is sent again.
                "__lsn": pc.if_else(event, zero, None),
                "__snapshot": nothing,
                "__topic": found["topic"],
                "__partition": found["part"],
                "__offset": found["off"],
                "__ingested_at": pa.repeat(pa.scalar(now, _INSTANT), count),
                "__schema_id": nothing,
                "__headers": found["headers"],
            }
        )

    def _described(self, part: TableRows, schemas: list[SchemaVersion]) -> TableRows:
        """With the version of the table's fields that its rows need, which is new when they have new ones."""
        known = self._fields.get(part.table, Fields())
        fields = known.with_those_of(self._duck, part.rows["__after"])
        self._fields[part.table] = fields
        version = fields.id
        first = part.rows.select(["__partition", "__offset"]).group_by("__partition").aggregate([("__offset", "min")])
        for row in first.to_pylist():
            tp = TopicPartition(part.topic, row["__partition"])
            schemas.append(
                SchemaVersion(version, part.table, "events", fields.definition, None, tp, row["__offset_min"])
            )
        place = part.rows.schema.get_field_index("__schema_id")
        ids = pa.repeat(version, part.rows.num_rows)
        return TableRows(part.topic, part.table, part.rows.set_column(place, "__schema_id", ids))


def _bounded(timestamps: pa.Array) -> pa.Array:
    return pc.min_element_wise(pc.max_element_wise(timestamps, 0), _NEVER)


def _text(column: pa.Array) -> pa.Array:
    """`column` as text, null where it is not UTF-8."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(v) for v in column.to_pylist()], pa.string())


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _batch_end(rows: pa.Table, name: str, now: datetime, upto: datetime | None) -> pa.Table | None:
    """The end of a batch. Its time is that of its latest record by Kafka's clock, and never ahead of ours, nor of what
    was read of all partitions (`upto`)."""
    counted = rows.filter(pc.is_valid(rows["__tx_id"]))
    if not counted.num_rows:
        return None
    latest = pc.max(counted["__source_ts"]).as_py()
    return pa.table(
        {
            "status": ["END"],
            "tx_id": [name],
            "lsn": pa.nulls(1, pa.int64()),
            "event_count": pa.array([counted.num_rows], pa.int64()),
            "data_collections": ["[]"],
            "source_ts": pa.array([min(latest or now, now, upto or now)], _INSTANT),
            "__ingested_at": pa.array([now], _INSTANT),
        }
    )


def _dead(batches: Sequence[RecordBatch], found: pa.Table) -> Iterator[DeadLetter]:
    start = 0
    for batch in batches:
        faults = found["fault"].slice(start, len(batch)).to_pylist()
        for i, fault in enumerate(faults):
            if fault is not None:
                error_class, _, reason = fault.partition(": ")
                yield letter(batch, i, error_class, reason)
        start += len(batch)
