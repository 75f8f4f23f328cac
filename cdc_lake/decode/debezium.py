"""Debezium's envelopes to rows of the change log, whole columns at a time.

The images stay as the JSON that arrived; only the envelope is taken apart, by one DuckDB query over all records of a
round. DuckDB parses a document once for all paths of a `json_extract_string` list: about 1 M records/s on a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from cdc_lake.budget import AMPLE
from cdc_lake.decode.cutting import Cutter
from cdc_lake.decode.inline import Cut, schema_id
from cdc_lake.decode.records import DeadLetter, Decoded, TableRows, letter, why_not_json
from cdc_lake.decode.wire import MAGIC, WireFormat, numbers
from cdc_lake.events import RecordBatch, SchemaVersion, TableId, TopicPartition, concatenated

_ENVELOPE = """
    SELECT x[1] AS op, x[2] AS before, x[3] AS after, x[4] AS schema, x[5] AS tbl,
           TRY_CAST(x[6] AS BIGINT) AS lsn,
           make_timestamptz(COALESCE(TRY_CAST(x[7] AS BIGINT), TRY_CAST(x[8] AS BIGINT) * 1000)) AS source_ts,
           NULLIF(x[9], 'false') AS snapshot, split_part(x[10], ':', 1) AS tx_id, TRY_CAST(x[11] AS BIGINT) AS tx_order,
           v IS NULL AS empty, k IS NULL OR json_valid(k) AS key_ok
    FROM (SELECT v, k, {extract}(v, ['$.op', '$.before', '$.after', '$.source.schema', '$.source.table',
          '$.source.lsn', '$.source.ts_us', '$.source.ts_ms', '$.source.snapshot', '$.transaction.id',
          '$.transaction.total_order']){close} AS x FROM records)
"""
_TRANSACTION = """
    SELECT x[1] AS status, split_part(x[2], ':', 1) AS tx_id, TRY_CAST(split_part(x[2], ':', 2) AS BIGINT) AS lsn,
           TRY_CAST(x[3] AS BIGINT) AS event_count, x[4] AS data_collections,
           make_timestamptz(TRY_CAST(x[5] AS BIGINT) * 1000) AS source_ts
    FROM (SELECT {extract}(v, ['$.status', '$.id', '$.event_count', '$.data_collections', '$.ts_ms']){close} AS x
          FROM records)
"""
# Every call into Arrow or DuckDB waits for the interpreter's lock, which the polling thread holds most of the time.
_ALONE_BYTES = 8_000_000
# What is parsed at once, and the rows that DuckDB takes at most.
_PARSED_BYTES, _VECTOR_ROWS = 8_000_000, 2048
_WITH_IMAGE = ("c", "u", "r")
_OPERATIONS = (*_WITH_IMAGE, "d", "t")


@dataclass(frozen=True, slots=True)
class _Records:
    """A batch as one row a record; what its schema ids stand for; and why records could not be read, by row."""

    table: pa.Table
    schemas: dict[str, tuple[str, str | None]]
    faults: dict[int, tuple[str, str]]


class Decoder:
    """Decodes rounds of record batches. Holds what it learned of each topic's inline schemas between rounds."""

    def __init__(
        self,
        *,
        transaction_topic: str | None,
        home: Callable[[str], TableId | None] = lambda _: None,
        joined: int = AMPLE.joined,
        threads: int = 2,
        duck: duckdb.DuckDBPyConnection | None = None,
        wire: WireFormat | None = None,
    ) -> None:
        self._wire = wire or WireFormat()
        # The table of a topic's tombstones when no other record of their round names it.
        self._home = home
        self._transaction_topic = transaction_topic
        self._cutter = Cutter(self._wire)
        self._key_schemas: dict[str, str] = {}
        self._unkeyed: set[str] = set()
        self._joined = joined
        self._duck = duck or duckdb.connect(config={"threads": threads})
        # What DuckDB parsed of one round it gives back, in place of keeping it for the next.
        self._duck.execute(
            "SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET allocator_flush_threshold = '8MB'"
        )

    def decode(self, batches: Sequence[RecordBatch]) -> Decoded:
        """Decode `batches` of any topics. Never raises for a bad record: it becomes a dead letter."""
        begun, dead = time.monotonic(), list[DeadLetter]()
        ordered = list(joined(sorted((b for b in batches if len(b)), key=lambda b: (b.tp, b.start)), self._joined))
        metadata = [b for b in ordered if b.tp.topic == self._transaction_topic]
        events = [b for b in ordered if b.tp.topic != self._transaction_topic]
        tables: list[TableRows] = []
        schemas: list[SchemaVersion] = []
        if events:
            tables = self._events(events, dead, schemas)
        transactions = self._transactions(metadata, dead) if metadata else None
        return Decoded(tables, transactions, dead, schemas, (begun, time.monotonic()))

    def look(self, batch: RecordBatch) -> None:
        """Begin to fetch the registered schemas of records that will be decoded."""
        if (schemas := self._wire.schemas) is not None:
            schemas.want(numbers(batch.values, batch.prefix) | numbers(batch.keys))

    def awaits(self) -> str:
        """What must come from the registry first."""
        return "" if self._wire.schemas is None else self._wire.schemas.awaits()

    def assigned(self, ends: Mapping[TopicPartition, int]) -> None:
        """What it remembers of topics holds whoever reads them."""

    def released(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing is remembered of partitions."""

    def _events(
        self, batches: Sequence[RecordBatch], dead: list[DeadLetter], schemas: list[SchemaVersion]
    ) -> list[TableRows]:
        cut = [self._cut(batch) for batch in batches]
        records = _concat([part.table for part in cut])
        envelope = self._extract(_ENVELOPE, records)
        ok = _acceptable(envelope)
        if not pc.all(ok).as_py():
            dead.extend(_dead(batches, ok, cut))
        result: list[TableRows] = []
        ids: dict[str, tuple[str, str | None]] = {}
        for part in cut:
            ids.update(part.schemas)
        for topic, start, end in _topic_ranges(batches):
            rows = _log_rows(records.slice(start, end - start), envelope.slice(start, end - start))
            kept = rows if pc.all(ok.slice(start, end - start)).as_py() else rows.filter(ok.slice(start, end - start))
            result.extend(_by_table(topic, kept, self._home(topic)))
        schemas.extend(_runs(result, ids))
        return [TableRows(t.topic, t.table, t.rows.drop_columns(["schema", "tbl"])) for t in result]

    def _cut(self, batch: RecordBatch) -> _Records:
        topic = batch.tp.topic
        values, keys = self._cutter.values(batch), self._cutter.keys(batch)
        if keys.schemas and keys.schema_index.null_count < len(batch):
            self._unkeyed.discard(topic)
            self._key_schemas[topic] = keys.schemas[-1]
        elif topic in self._unkeyed or not _only_truncates(values):
            # The table has no key, or ALTER TABLE took it away.
            self._unkeyed.add(topic)
            self._key_schemas.pop(topic, None)
            keys = replace(keys, schemas=())
        column, found = _schema_ids(values, keys, self._key_schemas.get(topic))
        count = len(batch)
        headers = batch.headers if batch.headers is not None else pa.nulls(count, pa.string())
        table = pa.table(
            {
                "v": _utf8(values.payloads),
                "k": _utf8(keys.payloads),
                "schema_id": column,
                "topic": pa.repeat(topic, count),
                "partition": pa.repeat(pa.scalar(batch.tp.partition, pa.int32()), count),
                "offset": batch.offsets,
                "headers": headers,
            }
        )
        faults = {row: (why[0], f"key: {why[1]}") for row, why in keys.faults.items()} | dict(values.faults)
        return _Records(table, found, faults)

    def _extract(self, query: str, records: pa.Table) -> pa.Table:
        return _concat([self._ask(query, part) for part in _parts(records)])

    def _ask(self, query: str, records: pa.Table) -> pa.Table:
        self._duck.register("records", records)
        try:
            try:
                return self._duck.sql(query.format(extract="json_extract_string", close="")).to_arrow_table()
            except duckdb.InvalidInputException:
                # Some record is not JSON. TRY answers null for just those, at a price that good rounds do not pay.
                return self._duck.sql(query.format(extract="TRY(json_extract_string", close=")")).to_arrow_table()
        finally:
            self._duck.unregister("records")

    def _transactions(self, batches: Sequence[RecordBatch], dead: list[DeadLetter]) -> pa.Table:
        cut = [self._cut(batch) for batch in batches]
        records = _concat([part.table for part in cut])
        found = self._extract(_TRANSACTION, records)
        ok = pc.fill_null(
            pc.and_(pc.is_in(found["status"], pa.array(["BEGIN", "END"])), pc.is_valid(found["tx_id"])), False
        )
        ok = ok.combine_chunks() if isinstance(ok, pa.ChunkedArray) else ok
        if not pc.all(ok).as_py():
            dead.extend(_dead(batches, ok, cut))
        for column in ("topic", "partition", "offset"):
            found = found.append_column(f"__{column}", records[column])
        return _stamped(found).filter(ok)


def _parts(records: pa.Table) -> list[pa.Table]:
    """`records` in parts of few bytes when they are long: DuckDB holds what it parsed of a whole vector of them, and a
    parsed document is four times its text."""
    rows = max(1, _PARSED_BYTES * records.num_rows // max(1, records.nbytes))
    if rows >= _VECTOR_ROWS:
        return [records]
    return [records.slice(start, rows) for start in range(0, records.num_rows, rows)]


def _only_truncates(values: Cut) -> bool:
    return bool(pc.all(pc.fill_null(pc.match_substring(values.payloads, '"op":"t"'), True)).as_py())


def _schema_ids(values: Cut, keys: Cut, last_key: str | None) -> tuple[pa.Array, dict[str, tuple[str, str | None]]]:
    """The schema id of each record, and what the ids stand for: the schemas of its value and of its key.

    A record without a key (a truncate) is of the key schema of the records around it, at last of `last_key`.
    """
    if not values.schemas:
        return pa.nulls(len(values.payloads), pa.string()), {}
    key_schemas: tuple[str | None, ...] = keys.schemas or (last_key,)
    combined = values.schema_index
    if len(key_schemas) > 1:
        nearest = pc.fill_null_backward(pc.fill_null_forward(keys.schema_index))
        combined = pc.add(pc.multiply(values.schema_index, len(key_schemas)), nearest)
    pairs = [(value, key) for value in values.schemas for key in key_schemas]
    ids = [schema_id(value, key) for value, key in pairs]
    return pc.take(pa.array(ids, pa.string()), combined), dict(zip(ids, pairs, strict=True))


def _runs(tables: Sequence[TableRows], ids: dict[str, tuple[str, str | None]]) -> Iterator[SchemaVersion]:
    """Each run of a table's rows that have one schema, partition by partition: where a version begins to hold."""
    for part in tables:
        rows = part.rows.select(["__partition", "__offset", "__schema_id"])
        for partition in pc.unique(rows["__partition"]).to_pylist():
            mine = rows.filter(pc.and_(pc.equal(rows["__partition"], partition), pc.is_valid(rows["__schema_id"])))
            if mine.num_rows == 0:
                continue
            names = mine["__schema_id"].combine_chunks()
            starts = [0]
            if len(pc.unique(names)) > 1:
                starts += [i + 1 for i in pc.indices_nonzero(pc.not_equal(names[1:], names[:-1])).to_pylist()]
            for start in starts:
                definition, key = ids[names[start].as_py()]
                tp, offset = TopicPartition(part.topic, partition), mine["__offset"][start].as_py()
                yield SchemaVersion(names[start].as_py(), part.table, "connect", definition, key, tp, offset)


def joined(batches: Sequence[RecordBatch], limit: int) -> Iterator[RecordBatch]:
    """Neighbours of one partition as one batch of a bounded size, so that the work on columns is a few long calls."""
    run: list[RecordBatch] = []
    held = 0
    for batch in batches:
        nbytes = batch.nbytes
        same = bool(run) and batch.tp == run[0].tp and batch.prefix == run[0].prefix
        if run and (not same or nbytes > _ALONE_BYTES or held + nbytes > limit):
            yield concatenated(run)
            run, held = [], 0
        run.append(batch)
        held += nbytes
    if run:
        yield concatenated(run)


def _utf8(column: pa.Array) -> pa.Array:
    """`column` as text. Bytes that are not UTF-8 become a text that is not JSON either, for the envelope check."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_text_or_marker(v) for v in column.to_pylist()], pa.string())


def _text_or_marker(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"


def _concat(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if len(tables) > 1 else tables[0]


def _acceptable(envelope: pa.Table) -> pa.Array:
    """Which records are change events (or tombstones); a boolean for each."""
    op = envelope["op"]
    has_image = pc.and_(pc.is_in(op, pa.array(_WITH_IMAGE)), pc.starts_with(envelope["after"], "{"))
    ends = pc.is_in(op, pa.array(["d", "t"]))
    named = pc.and_(pc.is_valid(envelope["schema"]), pc.is_valid(envelope["tbl"]))
    event = pc.and_(pc.and_(pc.or_kleene(has_image, ends), named), envelope["key_ok"])
    ok = pc.fill_null(pc.or_kleene(event, pc.and_(envelope["empty"], envelope["key_ok"])), False)
    return ok.combine_chunks() if isinstance(ok, pa.ChunkedArray) else ok


def _topic_ranges(batches: Sequence[RecordBatch]) -> Iterator[tuple[str, int, int]]:
    start = end = 0
    for i, batch in enumerate(batches):
        end += len(batch)
        if i + 1 == len(batches) or batches[i + 1].tp.topic != batch.tp.topic:
            yield batch.tp.topic, start, end
            start = end


def _log_rows(records: pa.Table, envelope: pa.Table) -> pa.Table:
    rows = pa.table(
        {
            "__op": pc.if_else(envelope["empty"], "x", envelope["op"]),
            "__key": records["k"],
            "__before": envelope["before"],
            "__after": envelope["after"],
            "__source_ts": envelope["source_ts"],
            "__tx_id": envelope["tx_id"],
            "__tx_order": envelope["tx_order"],
            "__lsn": envelope["lsn"],
            "__snapshot": envelope["snapshot"],
            "__topic": records["topic"],
            "__partition": records["partition"],
            "__offset": records["offset"],
            "__schema_id": records["schema_id"],
            "__headers": records["headers"],
            "schema": envelope["schema"],
            "tbl": envelope["tbl"],
        }
    )
    return _stamped(rows)


def _stamped(rows: pa.Table) -> pa.Table:
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC"))
    return rows.append_column("__ingested_at", pa.repeat(now, rows.num_rows))


def _by_table(topic: str, rows: pa.Table, home: TableId | None) -> Iterator[TableRows]:
    """Split a topic's rows by true table name: sanitised topic names can collide. Tombstones go with the first.

    Tombstones alone go to `home`, the table of earlier rounds.
    """
    names = rows.group_by(["schema", "tbl"]).aggregate([]).to_pylist()
    tables = [TableId(n["schema"], n["tbl"]) for n in names if n["tbl"] is not None]
    if not tables and home is not None and rows.num_rows:
        tables = [home]
    if len(tables) == 1:
        yield TableRows(topic, tables[0], rows)
        return
    for i, table in enumerate(tables):
        mine = pc.and_(pc.equal(rows["schema"], table.schema), pc.equal(rows["tbl"], table.name))
        yield TableRows(topic, table, rows.filter(pc.fill_null(mine, i == 0)))


def _dead(batches: Sequence[RecordBatch], ok: pa.Array, cut: Sequence[_Records]) -> Iterator[DeadLetter]:
    bad = set(pc.indices_nonzero(pc.invert(ok)).to_pylist())
    start = 0
    for batch, records in zip(batches, cut, strict=True):
        for i in (n - start for n in sorted(bad) if start <= n < start + len(batch)):
            error_class, reason = records.faults.get(i) or _why_dead(batch, records, i)
            yield letter(batch, i, error_class, reason)
        start += len(batch)


def _why_dead(batch: RecordBatch, records: _Records, row: int) -> tuple[str, str]:
    key, value = batch.keys[row].as_py(), batch.value(row)
    # Of what came through a registry its JSON is what says why.
    if key is not None and key.startswith(MAGIC):
        key = records.table["k"][row].as_py().encode()
    if value is not None and value.startswith(MAGIC):
        value = records.table["v"][row].as_py().encode()
    return why_not_json(value) or _why_not_event(key, value)


def _why_not_event(key: bytes | None, value: bytes | None) -> tuple[str, str]:
    if (why := why_not_json(key)) is not None:
        return why[0], f"key: {why[1]}"
    document = json.loads(value or b"{}")
    payload = document.get("payload", document) if "schema" in document else document
    if not isinstance(payload, dict) or "op" not in payload or not isinstance(payload.get("source"), dict):
        return "not_an_envelope", "no `op` and `source`: not a Debezium change event (unwrapped by a transform?)"
    if payload["op"] not in _OPERATIONS:
        return "unknown_operation", f"operation {payload['op']!r} is none of {', '.join(_OPERATIONS)}"
    return "not_an_envelope", "the event names no table, or lacks the row image of its operation"
