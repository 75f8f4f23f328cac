"""A prefix that all values of a batch share is left off, and no record is another one for it."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_lake.consume.columns import record_batch, without_prefix
from cdc_lake.decode.debezium import Decoder
from cdc_lake.events import RecordBatch, TopicPartition, concatenated

TP = TopicPartition("pos.public.sales", 0)
VALUES = st.lists(st.none() | st.binary(max_size=6), max_size=8)


def schema(version: int) -> str:
    return json.dumps({"type": "struct", "version": version, "fields": [{"field": f"c{i}"} for i in range(100)]})


def event(number: int, version: int) -> bytes:
    source = {"schema": "public", "table": "sales", "lsn": number, "ts_us": 1}
    payload = {"before": None, "after": {"id": number, "note": "é}"}, "source": source, "op": "c"}
    return f'{{"schema":{schema(version)},"payload":{json.dumps(payload)}}}'.encode()


def batch(values: list[bytes | None], start: int = 0, *, shorten: bool) -> RecordBatch:
    prefix, rest = without_prefix(values, b"") if shorten else (b"", values)
    return record_batch(
        TP,
        start,
        start + len(values),
        offsets=range(start, start + len(values)),
        timestamps=[0] * len(values),
        keys=[b'{"id":1}'] * len(values),
        values=rest,
        prefix=prefix,
    )


@given(VALUES, st.sampled_from([b"", b"k" * 2000, b"k" * 1500 + b"m"]), st.sampled_from([b"", b"k" * 2000, b"z"]))
def test_prefix_and_rest_are_the_value_again(tails: list[bytes | None], head: bytes, known: bytes) -> None:
    values = [None if tail is None else head + tail for tail in tails]
    prefix, rest = without_prefix(values, known)
    assert [None if r is None else prefix + r for r in rest] == values
    assert not prefix or len(prefix) >= 1024


def test_the_schema_that_all_records_repeat_is_left_off() -> None:
    values: list[bytes | None] = [event(n, 1) for n in range(3)]
    prefix, rest = without_prefix(values, b"")
    assert prefix.startswith(b'{"schema":')
    assert b',"payload":' in prefix
    assert sum(len(r or b"") for r in rest) < 3 * 200


def test_one_value_alone_is_no_prefix_and_a_huge_common_part_is_not_kept() -> None:
    huge = b"x" * (3 << 20)
    assert without_prefix([huge], b"") == (b"", [huge])
    prefix, _ = without_prefix([huge, huge], b"")
    assert len(prefix) < 1 << 20


def test_values_that_begin_alike_for_less_than_a_schema_stay_whole() -> None:
    values: list[bytes | None] = [b'{"before":null,"after":{"id":%d}}' % n for n in range(3)]
    assert without_prefix(values, b"") == (b"", values)


@pytest.mark.parametrize(
    "values",
    [
        [event(n, 1) for n in range(5)],
        [event(0, 1), None, event(1, 1), None],
        [event(0, 1)],
        [event(0, 1), event(1, 1), event(2, 2)],  # what they share ends inside of the schema
        [event(0, 1), b"not an event", event(1, 1)],
        [event(0, 1), event(1, 1)[:-40], event(2, 1)],  # cut off on the way: a dead letter with all its bytes
        [None, None],
    ],
)
def test_rows_and_dead_letters_are_those_of_the_whole_values(values: list[bytes | None]) -> None:
    whole, short = (
        Decoder(transaction_topic=None).decode([batch(values, shorten=shorten)]) for shorten in (False, True)
    )
    assert [d.value for d in short.dead] == [d.value for d in whole.dead]
    assert [s.definition for s in short.schemas] == [s.definition for s in whole.schemas]
    assert [plain(t.rows) for t in short.tables] == [plain(t.rows) for t in whole.tables]


def plain(rows: pa.Table) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k != "__ingested_at"} for row in rows.to_pylist()]


def test_a_shared_prefix_is_taken_off_the_next_batch_without_a_search() -> None:
    first, _ = without_prefix([event(0, 1), event(1, 1)], b"")
    again, rest = without_prefix([event(1, 1)], first)
    assert again == first
    assert rest != [b""]


def test_batches_joined_for_decoding_keep_every_record_and_its_headers() -> None:
    one, two = (batch([event(n, 1), event(n + 1, 1)], start=n, shorten=True) for n in (0, 2))
    offsets, timestamps, keys, values = (c.slice(0, 1) for c in (one.offsets, one.timestamps, one.keys, one.values))
    told = RecordBatch(TP, 4, 5, offsets, timestamps, keys, values, pa.array(['{"a":"b"}']), one.prefix)
    joined = concatenated([one, two, told])
    assert (joined.start, joined.end, len(joined)) == (0, 5, 5)
    assert [joined.value(i) for i in range(4)] == [event(n, 1) for n in range(4)]
    assert joined.headers is not None
    assert joined.headers.to_pylist() == [None, None, None, None, '{"a":"b"}']


def test_more_than_two_gigabytes_of_offsets_join_with_what_has_small_ones() -> None:
    small = batch([b"a"], shorten=False)
    large = RecordBatch(TP, 1, 2, small.offsets, small.timestamps, small.keys, pa.array([b"b"], pa.large_binary()))
    assert concatenated([small, large]).values.to_pylist() == [b"a", b"b"]
