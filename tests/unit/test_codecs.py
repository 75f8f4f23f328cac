"""One contract for every format: the same events give the same rows, whatever format each of them came in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from cdc_lake.consume.columns import record_batch, without_prefix
from cdc_lake.decode.debezium import Decoder
from cdc_lake.decode.records import Decoded
from cdc_lake.decode.wire import WireFormat
from cdc_lake.events import RecordBatch, TopicPartition
from tests.registry_world import FakeRegistry, avro_bytes, avro_of, avro_value, json_schema_of, wire

TP = TopicPartition("pos.public.sales", 0)
TRANSACTIONS = "pos.transaction"


def struct(name: str, *fields: dict[str, Any], optional: bool = False) -> dict[str, Any]:
    return {"type": "struct", "fields": list(fields), "optional": optional, "name": name}


def field(called: str, kind: str, *, optional: bool = False, **more: Any) -> dict[str, Any]:
    return {"type": kind, "optional": optional, **more, "field": called}


def envelope(*columns: dict[str, Any]) -> dict[str, Any]:
    row = struct("pos.public.sales.Value", *columns, optional=True)
    source = struct(
        "io.debezium.connector.postgresql.Source",
        *(field(n, "string") for n in ("schema", "table")),
        *(field(n, "int64", optional=True) for n in ("lsn", "ts_us")),
        field("snapshot", "string", optional=True),
    )
    block = struct("event.block", field("id", "string"), field("total_order", "int64"), optional=True)
    return struct(
        "pos.public.sales.Envelope",
        {**row, "field": "before"},
        {**row, "field": "after"},
        {**source, "field": "source"},
        {**block, "field": "transaction"},
        field("op", "string"),
    )


SCALE = {"scale": "2"}
COLUMNS = (
    field("id", "int64"),
    field("note", "string", optional=True),
    field("price", "bytes", optional=True, name="org.apache.kafka.connect.data.Decimal", version=1, parameters=SCALE),
    field("weight", "double", optional=True),
    field("ratio", "float", optional=True),
    {
        **{"type": "array", "items": {"type": "int32", "optional": True}, "optional": True},
        "field": "sizes",
    },
    field("sold", "int64", optional=True, name="io.debezium.time.MicroTimestamp", version=1),
    field("vip", "boolean", default=False),
)
KEY = struct("pos.public.sales.Key", field("id", "int64"))


def row(number: int, **values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("note", "price", "weight", "ratio", "sizes", "sold"))
    return {"id": number, **empty, "vip": False, **values}


def event(op: str, number: int, before: Any = None, after: Any = None) -> dict[str, Any]:
    source = {"schema": "public", "table": "sales", "lsn": number, "ts_us": 10 + number, "snapshot": None}
    return {
        "before": before,
        "after": after,
        "source": source,
        "transaction": {"id": f"7:{number}", "total_order": number},
        "op": op,
    }


EVENTS = (
    event("c", 1, after=row(1, note='é "quoted" \\ \n 😀', price="AP8=", weight=0.1, ratio=3.4, sizes=[1, None, 3])),
    event("u", 2, row(1), row(1, weight="NaN", ratio="-Infinity", sold=2**53 + 1, vip=True)),
    event("c", 3, after=row(-(2**63), note="", sizes=[])),
    event("d", 4, row(1)),
)

Write = Callable[[FakeRegistry, dict[str, Any], Any], bytes]


def compact(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def written_inline(_: FakeRegistry, schema: dict[str, Any], payload: Any) -> bytes:
    return compact({"schema": schema, "payload": payload})


def written_avro(registry: FakeRegistry, schema: dict[str, Any], payload: Any) -> bytes:
    avro = avro_of(schema)
    return wire(_number(registry, "AVRO", json.dumps(avro)), avro_bytes(avro, avro_value(schema, payload)))


def written_json_schema(registry: FakeRegistry, schema: dict[str, Any], payload: Any) -> bytes:
    return wire(_number(registry, "JSON", json.dumps(json_schema_of(schema))), compact(payload))


def written_connect(registry: FakeRegistry, schema: dict[str, Any], payload: Any) -> bytes:
    return wire(_number(registry, "KCONNECT", json.dumps(schema)), compact(payload))


def _number(registry: FakeRegistry, kind: str, text: str) -> int:
    known = (number for number, one in registry.known.items() if (one.kind, one.text) == (kind, text))
    return next(known, 0) or registry.add(kind, text)


FORMATS: dict[str, Write] = {
    "inline": written_inline,
    "avro": written_avro,
    "json schema": written_json_schema,
    "connect schema": written_connect,
}
each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)


def batch(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, *, tp: TopicPartition = TP
) -> RecordBatch:
    prefix, rest = without_prefix(list(values), b"")
    count = len(values)
    return record_batch(
        tp,
        0,
        count,
        offsets=range(count),
        timestamps=[0] * count,
        keys=keys or [None] * count,
        values=rest,
        prefix=prefix,
    )


def decoder(registry: FakeRegistry | None, **options: Any) -> Decoder:
    return Decoder(transaction_topic=TRANSACTIONS, threads=1, wire=WireFormat(registry), **options)


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    assert not decoded.dead, decoded.dead
    (part,) = decoded.tables
    return [_read(one) for one in part.rows.drop_columns(["__ingested_at"]).to_pylist()]


def _read(one: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in ("__before", "__after") and v is not None else v for k, v in one.items()}


def sent(write: Write, registry: FakeRegistry) -> RecordBatch:
    values = [write(registry, envelope(*COLUMNS), one) for one in EVENTS]
    keys = [write(registry, KEY, {"id": (one["after"] or one["before"])["id"]}) for one in EVENTS]
    return batch([*values, None], [*keys, keys[-1]])


@each_format
def test_rows_keys_and_schemas_are_those_of_json(write: Write) -> None:
    registry, nothing = FakeRegistry(), FakeRegistry()
    expected = decoder(None).decode([sent(written_inline, nothing)])
    found = decoder(registry).decode([sent(write, registry)])
    assert rows(found) == rows(expected)
    assert [(v.id, v.key_definition) for v in found.schemas] == [(v.id, v.key_definition) for v in expected.schemas]
    assert [row["__op"] for row in rows(found)] == ["c", "u", "c", "d", "x"]


def test_a_topic_may_change_its_format_in_the_middle_and_back() -> None:
    registry = FakeRegistry()
    writers = (written_avro, written_inline, written_json_schema, written_avro)
    values: list[bytes | None] = [w(registry, envelope(*COLUMNS), e) for w, e in zip(writers, EVENTS, strict=True)]
    keys: list[bytes | None] = [w(registry, KEY, {"id": 1}) for w in reversed(writers)]
    found = decoder(registry).decode([batch(values, keys)])
    expected = decoder(None).decode([sent(written_inline, registry)])
    assert [r["__after"] for r in rows(found)] == [r["__after"] for r in rows(expected)][:4]
    assert {r["__key"] for r in rows(found)} == {'{"id":1}'}
    # One version: the schema is the same one, whatever it was written in.
    assert {r["__schema_id"] for r in rows(found)} == {rows(expected)[0]["__schema_id"]}


@each_format
def test_a_change_of_the_schema_begins_a_version_at_its_record(write: Write) -> None:
    registry = FakeRegistry()
    wider = envelope(*COLUMNS, field("colour", "string", optional=True))
    values: list[bytes | None] = [
        write(registry, envelope(*COLUMNS), EVENTS[0]),
        write(registry, wider, event("c", 2, after={**row(2), "colour": "red"})),
    ]
    found = decoder(registry).decode([batch(values)])
    assert [v.first_offset for v in found.schemas] == [0, 1]
    assert "colour" in json.loads(found.schemas[1].definition)["fields"][1]["fields"][-1]["field"]
    assert [r["__after"].get("colour") for r in rows(found)] == [None, "red"]


@each_format
def test_ends_of_transactions_are_read(write: Write) -> None:
    registry = FakeRegistry()
    counts = struct("event.collection", field("data_collection", "string"), field("event_count", "int64"))
    schema = struct(
        "io.debezium.connector.common.TransactionMetadataValue",
        *(field(n, "string") for n in ("status", "id")),
        field("event_count", "int64", optional=True),
        {"type": "array", "items": counts, "optional": True, "field": "data_collections"},
        field("ts_ms", "int64"),
    )
    end = {
        "status": "END",
        "id": "7:99",
        "event_count": 2,
        "data_collections": [{"data_collection": "public.sales", "event_count": 2}],
        "ts_ms": 5,
    }
    found = decoder(registry).decode([batch([write(registry, schema, end)], tp=TopicPartition(TRANSACTIONS, 0))])
    assert not found.dead
    assert found.transactions is not None
    (told,) = found.transactions.to_pylist()
    assert (told["tx_id"], told["lsn"], told["event_count"]) == ("7", 99, 2)
    assert json.loads(told["data_collections"]) == end["data_collections"]


@each_format
def test_what_is_no_change_event_is_a_dead_letter_with_its_own_bytes(write: Write) -> None:
    registry = FakeRegistry()
    flat = write(registry, struct("flat", field("id", "int64")), {"id": 1})
    good = write(registry, envelope(*COLUMNS), EVENTS[0])
    found = decoder(registry).decode([batch([flat, good])])
    (letter,) = found.dead
    assert (letter.value, letter.offset, letter.error_class) == (flat, 0, "not_an_envelope")
    assert "unwrapped by a transform" in letter.reason
    assert sum(t.rows.num_rows for t in found.tables) == 1


def good(registry: FakeRegistry) -> bytes:
    return written_avro(registry, envelope(*COLUMNS), EVENTS[0])


def test_a_schema_that_the_registry_has_not_is_a_dead_letter_that_names_it() -> None:
    registry = FakeRegistry()
    found = decoder(registry).decode([batch([good(registry), wire(77, b"abc"), good(registry)])])
    (letter,) = found.dead
    assert (letter.offset, letter.error_class) == (1, "unknown_schema")
    assert "77" in letter.reason
    assert [r["__offset"] for t in found.tables for r in t.rows.to_pylist()] == [0, 2]


def test_a_key_that_cannot_be_read_is_a_dead_letter_too() -> None:
    registry = FakeRegistry()
    found = decoder(registry).decode([batch([good(registry), None], [wire(77, b"k"), wire(78, b"k")])])
    assert [letter.reason.partition(":")[0] for letter in found.dead] == ["key", "key"]
    assert not any(t.rows.num_rows for t in found.tables)


def test_without_a_registry_the_reason_says_what_to_set() -> None:
    found = decoder(None).decode([batch([good(FakeRegistry()), b"\0", written_inline(FakeRegistry(), KEY, {})])])
    first, short, other = found.dead
    assert (first.error_class, short.error_class, other.error_class) == (
        "no_registry",
        "not_wire_format",
        "not_an_envelope",
    )
    assert "registry.url" in first.reason


@pytest.mark.parametrize(
    "damage", [lambda v: v[:-2], lambda v: v + b"\0", lambda v: v[:5]], ids=["cut", "long", "none"]
)
def test_a_record_that_does_not_fit_its_schema_is_a_dead_letter(damage: Callable[[bytes], bytes]) -> None:
    registry = FakeRegistry()
    value = good(registry)
    found = decoder(registry).decode([batch([damage(value), value])])
    (letter,) = found.dead
    assert (letter.offset, letter.error_class, letter.value) == (0, "not_its_schema", damage(value))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("PROTOBUF", "message M {}"),
        ("AVRO", "{"),
        ("AVRO", '["int","string"]'),
        ("JSON", '{"type":"array"'),
        ("JSON", "7"),
    ],
)
def test_a_schema_that_cannot_be_read_is_a_dead_letter_that_says_why(kind: str, text: str) -> None:
    registry = FakeRegistry()
    number = registry.add(kind, text)
    (letter,) = decoder(registry).decode([batch([wire(number, b"\0")])]).dead
    assert letter.error_class == "unsupported_schema"
    assert f"schema {number}" in letter.reason


def test_records_whose_long_beginning_was_left_off_are_read() -> None:
    registry = FakeRegistry()
    long = envelope(field("text", "string"), *COLUMNS)
    values: list[bytes | None] = [
        written_avro(registry, long, event("c", n, after={"text": "x" * 3000, **row(n)})) for n in (1, 1)
    ]
    made = batch(values)
    assert made.prefix.startswith(b"\0")
    found = decoder(registry)
    found.look(made)
    assert registry.wanted == {1}
    assert [r["__after"]["text"] for r in rows(found.decode([made]))] == ["x" * 3000] * 2


def test_what_will_be_needed_is_asked_for_before_and_waited_for_in_words() -> None:
    registry = FakeRegistry(away="waiting for the registry")
    made = batch([good(registry), b"{}", None, b"", b"\0", b"\0\0"], [wire(9, b""), None, b"{}", b"", None, None])
    there = decoder(registry)
    there.look(made)
    assert registry.wanted == {1, 9}
    assert there.awaits() == "waiting for the registry"
    assert not decoder(None).awaits()


def test_what_is_read_lands_in_64_bit_columns_too() -> None:
    registry = FakeRegistry()
    made = sent(written_avro, registry)
    wide = record_batch(TP, 0, 5, offsets=range(5), timestamps=[0] * 5)
    large = type(made)(
        made.tp, 0, 5, wide.offsets, wide.timestamps, made.keys, made.values.cast(pa.large_binary()), None, b""
    )
    assert len(rows(decoder(registry).decode([large]))) == 5
