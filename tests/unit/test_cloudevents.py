"""CloudEvents are read as the CNCF's SDK reads them, in both bindings, and what it refuses is a dead letter."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_lake.consume.columns import header_json, record_batch
from cdc_lake.decode.cloudevents import EventDecoder
from cdc_lake.decode.records import Decoded
from cdc_lake.decode.repeats import Repeats
from cdc_lake.events import TableId, TopicPartition
from tests.events import Message, binary, structured

TABLE = TableId("events", "scans")
PLACE = {"kafka_partition", "kafka_offset"}


def decode(messages: Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]) -> Decoded:
    batch = record_batch(
        TopicPartition("scans", 0),
        0,
        len(messages),
        offsets=range(len(messages)),
        timestamps=[1_764_000_000_000] * len(messages),
        keys=[key for key, _, _ in messages],
        values=[value for _, value, _ in messages],
        headers=[header_json(headers) for _, _, headers in messages],
    )
    return EventDecoder({"scans": TABLE}, threads=1).decode([batch])


def image(decoded: Decoded, offset: int = 0) -> dict[str, Any] | None:
    rows = [r for t in decoded.tables for r in t.rows.to_pylist() if r["__offset"] == offset]
    return {k: v for k, v in json.loads(rows[0]["__after"]).items() if k not in PLACE} if rows else None


def expected(event: BaseCloudEvent) -> dict[str, Any]:
    """What an event is in the log, by the SDK's own reading of it: attributes, then the fields of the data."""
    found = dict(event.get_attributes())
    if isinstance(found.get("time"), datetime):
        found["time"] = found["time"].isoformat().replace("+00:00", "Z")
    data, names = event.get_data(), {n.lower() for n in found} | {"data", "data_base64", *PLACE}
    if isinstance(data, dict):
        found |= {(f"data_{n}" if n.lower() in names else n): v for n, v in data.items()}
    elif isinstance(data, bytes):
        found["data_base64"] = base64.b64encode(data).decode()
    elif data is not None:
        found["data"] = data
    return found


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
names = st.one_of(
    st.sampled_from(["id", "type", "Source", "data", "q", "ce_id", "kafka_offset", 'a"b', ', "ce_x']), texts
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), texts, st.sampled_from(["", '\\", "ce_'])
)
objects = st.dictionaries(names, st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=4)
attributes = st.fixed_dictionaries(
    {"id": texts, "source": texts, "type": texts},
    optional={
        "subject": texts,
        "correlationid": texts,
        "traceparent": texts,
        "time": st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        "datacontenttype": st.sampled_from(["application/json", "application/vnd.x+json", "text/plain", "image/png"]),
    },
)


def case_differs(data: object) -> bool:
    """Whether names of two fields differ in nothing but case: of these the SDK keeps both, and so do images."""
    return isinstance(data, dict) and len({n.lower() for n in data}) < len(data)


@settings(max_examples=60, deadline=None)
@given(
    given_events=st.lists(
        st.tuples(attributes, st.one_of(st.none(), objects, st.binary(min_size=1, max_size=9)), texts),
        min_size=1,
        max_size=6,
    )
)
def test_both_bindings_give_what_the_sdk_reads(given_events: list[tuple[dict[str, Any], Any, str]]) -> None:
    messages: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = []
    wanted = []
    for own, data, key in given_events:
        event = CloudEvent({"time": datetime(2026, 11, 24, tzinfo=UTC), **own}, data)
        for write, read in ((sdk.to_binary, sdk.from_binary), (sdk.to_structured, sdk.from_structured)):
            message = write(event, JSONFormat())
            with_key = sdk.KafkaMessage(message.headers, key.encode(), message.value)
            again = read(with_key, JSONFormat())
            messages.append((key.encode(), message.value, list(message.headers.items())))
            wanted.append(expected(again))
    decoded = decode(messages)
    declared = [o.get("datacontenttype", "json") for o, _, _ in given_events for _ in range(2)]
    for offset, (want, kind) in enumerate(zip(wanted, declared, strict=True)):
        found = image(decoded, offset)
        if found is None and kind.endswith("json"):
            # The one difference: the SDK takes what is no JSON for a text though the event says that it is JSON.
            assert not isinstance(json_or_none(messages[offset][1]), dict)
            assert [d.error_class for d in decoded.dead if d.offset == offset] == ["invalid_json"]
            continue
        assert found == want


def json_or_none(value: bytes | None) -> object:
    try:
        return json.loads(value or b"")
    except ValueError:
        return None


BAD: dict[str, tuple[Message, str]] = {
    "no id": (structured("", {}), "invalid_attribute"),
    "id is a number": ((b'{"specversion":"1.0","id":1,"source":"/s","type":"t"}', []), "invalid_attribute"),
    "no source": ((b'{"specversion":"1.0","id":"1","type":"t"}', []), "missing_attribute"),
    "no type, binary": (
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s")]),
        "missing_attribute",
    ),
    "another version": ((b"{}", [*binary("1")[1][1:], ("ce_specversion", b"0.4")]), "unsupported_specversion"),
    "a time that is none": (binary("1", {}, time="yesterday"), "invalid_attribute"),
    "a time without zone": (binary("1", {}, time="2026-11-24T10:00:00"), "invalid_attribute"),
    "an empty subject": (binary("1", {}, subject=""), "invalid_attribute"),
    "a name in capitals": (structured("1", {}, orderId="7"), "invalid_attribute"),
    "no event at all": ((b'{"a":1}', []), "not_a_cloudevent"),
    "half of one": (
        (b'{"specversion":"1.0","id":', [("content-type", b"application/cloudevents+json")]),
        "invalid_json",
    ),
    "a list": ((b"[]", [("content-type", b"application/cloudevents+json; charset=utf-8")]), "not_a_cloudevent"),
}
# What the SDK lets through, and the specification does not.
STRICTER: dict[str, tuple[Message, str]] = {
    "in a format that nobody reads": (
        (b"\0", [("content-type", b"application/cloudevents+avro")]),
        "unsupported_format",
    ),
    "an attribute twice": (
        (b'{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}', []),
        "invalid_json",
    ),
    "data that is no JSON": ((b"{", binary("1")[1]), "invalid_json"),
    "data twice": (structured("1", {}, data_base64="AA=="), "invalid_data"),
    "data that is no base64": (
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"?"}', []),
        "invalid_data",
    ),
    "bytes that are nothing": ((b"\xff\xfe", []), "invalid_utf8"),
}


@pytest.mark.parametrize("name", [*BAD, *STRICTER])
def test_what_is_no_event_becomes_a_dead_letter_with_the_reason(name: str) -> None:
    (value, headers), error_class = (BAD | STRICTER)[name]
    good = binary("good", {"a": 1})
    decoded = decode([(None, value, headers), (None, *good)])
    assert [(d.offset, d.error_class, d.value) for d in decoded.dead] == [(0, error_class, value)]
    assert image(decoded, 1) is not None
    if name in BAD:
        with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever class the SDK chose
            sdk.from_kafka(sdk.KafkaMessage(dict(headers), None, value), JSONFormat(), CloudEvent)


def test_an_event_without_data_is_one_and_a_tombstone_is_none() -> None:
    decoded = decode([(None, None, binary("1")[1]), (b"k", None, [])])
    rows = decoded.tables[0].rows.to_pylist()
    assert [(r["__op"], r["__tx_order"]) for r in rows] == [("c", 1), ("x", None)]
    assert not decoded.dead


def test_the_usual_form_is_read_as_all_others_are() -> None:
    """Most records take a shorter way through SQL: a header that nobody knows sends the same event the longer one."""
    messages = [
        binary(
            "1",
            {"a": 1, "b": {"c": [None]}, ', "ce_x': '", "ce_y'},
            subject=', "ce_z": null',
            time="2026-11-24T10:00:00Z",
        ),
        binary("2", {"type": 1}, kind='a\\", "b'),
    ]
    short = decode([(b"k", *m) for m in messages])
    long = decode([(b"k", value, [*headers, ("unknown", b"")]) for value, headers in messages])
    for offset in (0, 1):
        assert image(short, offset) == image(long, offset)
    assert [r["__key"] for r in short.tables[0].rows.to_pylist()] == [
        '{"source":"/s","id":"1"}',
        '{"source":"/s","id":"2"}',
    ]


def test_of_the_events_of_each_topic_the_last_ones_are_remembered() -> None:
    with duckdb.connect() as duck:
        repeats = Repeats(duck, limit=100)

        def mark(topic: str, *numbers: int, at: int) -> list[bool]:
            rows = pa.table(
                {
                    "topic": [topic] * len(numbers),
                    "part": pa.array([0] * len(numbers), pa.int32()),
                    "off": pa.array(range(at, at + len(numbers)), pa.int64()),
                    "key": [str(n) for n in numbers],
                }
            )
            return [bool(x) for x in repeats.mark(rows).to_pylist()]

        mark("quiet", 1, 2, at=0)
        for start in range(0, 1000, 50):
            assert not any(mark("busy", *range(start, start + 50), at=start))
        assert duck.execute("SELECT count(*) <= 220 FROM seen").fetchall() == [(True,)]
        assert mark("busy", 999, 901, 3, at=1000) == [True, True, False]
        assert mark("quiet", 2, 3, 3, at=2) == [True, False, True]
        # Read once more after a failure, a message is itself again.
        assert mark("quiet", 1, 2, 2, at=0) == [False, False, True]


def test_the_version_of_the_fields_grows_with_what_comes() -> None:
    decoder = EventDecoder({"scans": TABLE}, threads=1)

    def round_of(start: int, *messages: Message) -> Decoded:
        values, headers = zip(*messages, strict=True)
        count = len(messages)
        return decoder.decode(
            [
                record_batch(
                    TopicPartition("scans", 0),
                    start,
                    start + count,
                    offsets=range(start, start + count),
                    timestamps=[0] * count,
                    keys=[None] * count,
                    values=values,
                    headers=[header_json(h) for h in headers],
                )
            ]
        )

    first = round_of(0, binary("1", {"a": 1, "A": 2, "n": None}), binary("0", {"a": -1}))
    second = round_of(2, binary("2", {"a": 1.5, "n": "x"}), binary("3", {"a": 2}))
    kinds = [dict(json.loads(d.schemas[0].definition)["fields"]) for d in (first, second)]
    assert [(k["a"], k["n"], "A" in k) for k in kinds] == [("bigint", "", False), ("double precision", "text", False)]
    assert len({s.id for d in (first, second) for s in d.schemas}) == 2
