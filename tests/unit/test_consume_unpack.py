"""Unpacking whole batches gives what kafka-python's own unpacker gives, record by record."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError
from kafka.protocol.consumer import FetchResponse, IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from cdc_lake.consume import unpack
from cdc_lake.consume.columns import header_json
from cdc_lake.consume.unpack import ColumnarRecords, DamagedRecords

TP = TopicPartition("t", 3)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
LOG_APPEND_TIME, CONTROL = 0x08, 0x20

Pair = tuple[str, bytes | None]
Record = tuple[int, int, bytes | None, bytes | None, list[Pair]]  # offset delta, timestamp, key, value, headers
Aborted = FetchResponse.FetchableTopicResponse.PartitionData.AbortedTransaction


@dataclass(frozen=True)
class Batch:
    """A batch as a broker would hold it."""

    base: int
    records: Sequence[Record]
    codec: int = NONE
    flags: int = 0
    producer: int = -1
    trailing: int = 0  # offsets after the last record that compaction emptied

    def encode(self) -> bytes:
        transactional = self.producer >= 0
        builder = DefaultRecordBatchBuilder(
            2, self.codec, transactional, self.producer, 0 if transactional else -1, 0, 1
        )
        builder._batch_size = 1 << 30
        for record in self.records:
            builder.append(*record)
        data = bytearray(builder.build())
        attributes, last = struct.unpack_from(">hi", data, DefaultRecordBatch.ATTRIBUTES_OFFSET)
        struct.pack_into(">q", data, 0, self.base)
        struct.pack_into(">i", data, 12, 7)  # leader epoch
        struct.pack_into(
            ">hi", data, DefaultRecordBatch.ATTRIBUTES_OFFSET, attributes | self.flags, last + self.trailing
        )
        return seal(data)

    @property
    def end(self) -> int:
        return self.base + self.records[-1][0] + self.trailing + 1


def seal(data: bytearray) -> bytes:
    crc = calc_crc32c(memoryview(data)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", data, DefaultRecordBatch.CRC_OFFSET, crc)
    return bytes(data)


def marker(base: int, producer: int, *, commit: bool) -> Batch:
    key = struct.pack(">hh", 0, int(commit))
    return Batch(base, [(0, 0, key, b"\0\0\0\0\0\0", [])], flags=CONTROL, producer=producer)


def reader(kind: Any, data: bytes, start: int, aborted: Sequence[tuple[int, int]], isolation: int) -> Any:
    transactions = [Aborted(producer_id=producer, first_offset=first) for producer, first in aborted]
    return kind(start, TP, MemoryRecords(data), isolation_level=isolation, aborted_transactions=transactions)


Found = tuple[list[tuple[Any, ...]], int, int]


def stock(data: bytes, start: int = 0, aborted: Sequence[tuple[int, int]] = (), isolation: int = 1) -> Found:
    records = reader(Fetcher.PartitionRecords, data, start, aborted, isolation)
    found = [(r.offset, r.timestamp, r.key, r.value, header_json(r.headers)) for r in records.take()]
    return found, records.next_fetch_offset, records.leader_epoch


def ours(data: bytes, start: int = 0, aborted: Sequence[tuple[int, int]] = (), isolation: int = 1) -> Found:
    records = reader(ColumnarRecords, data, start, aborted, isolation)
    found: list[tuple[Any, ...]] = []
    position = start
    for chunk in records.take():
        assert chunk.start == position
        position = chunk.end
        headers = chunk.headers or [None] * len(chunk.offsets)
        rows = zip(chunk.offsets, chunk.timestamps, chunk.keys, chunk.values, headers, strict=True)
        found.extend(rows)
        assert all(chunk.start <= offset < chunk.end for offset in chunk.offsets)
    assert not records, "it is drained, as kafka-python expects"
    return found, records.next_fetch_offset, records.leader_epoch


blobs = st.none() | st.binary(max_size=40) | st.integers(0, 20_000).map(lambda size: b"v" * size)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
headers: st.SearchStrategy[list[tuple[str, bytes | None]]] = st.just([]) | st.lists(
    st.tuples(texts, st.none() | st.binary(max_size=8)), max_size=3
)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Batch], list[tuple[int, int]]]:
    """Batches as they lie in one partition, and the transactions of it that were aborted."""
    batches: list[Batch] = []
    aborted: list[tuple[int, int]] = []
    offset = draw(st.integers(0, 1 << 40))
    opened: dict[int, int] = {}
    for _ in range(draw(st.integers(1, 6))):
        offset += draw(st.integers(0, 3))
        if draw(st.booleans()) and opened:
            producer = draw(st.sampled_from(sorted(opened)))
            commit = draw(st.booleans())
            first = opened.pop(producer)
            if not commit:
                aborted.append((producer, first))
            batches.append(marker(offset, producer, commit=commit))
        else:
            producer = draw(st.sampled_from([-1, -1, 5, 6]))
            if producer >= 0:
                opened.setdefault(producer, offset)
            batches.append(draw(data_batches(offset, producer)))
        offset = batches[-1].end
    return batches, aborted


@st.composite
def data_batches(draw: st.DrawFn, base: int, producer: int) -> Batch:
    delta, records = -1, []
    first = draw(st.integers(-1, 1 << 42))
    for _ in range(draw(st.integers(1, 8))):
        delta += draw(st.sampled_from([1, 1, 1, 2, 300, 20_000]))
        stamp = max(-1, first + draw(st.sampled_from([0, 1, -1, 63, 64, -64, 8191, 8192, -100_000, 1 << 40])))
        records.append((delta, stamp, draw(blobs), draw(blobs), draw(headers)))
    codec = draw(st.sampled_from([NONE, NONE, GZIP, LZ4, ZSTD]))
    flags = draw(st.sampled_from([0, LOG_APPEND_TIME]))
    return Batch(base, records, codec, flags, producer, draw(st.integers(0, 2)))


@settings(max_examples=150, deadline=None)
@given(logs(), st.data())
def test_any_log_is_unpacked_as_kafka_python_does_it(log: tuple[list[Batch], list[tuple[int, int]]], data: Any) -> None:
    batches, aborted = log
    encoded = b"".join(batch.encode() for batch in batches)
    start = data.draw(st.integers(batches[0].base, batches[0].end - 1))
    isolation = data.draw(st.sampled_from([IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED]))
    assert ours(encoded, start, aborted, isolation) == stock(encoded, start, aborted, isolation)


@given(logs(), st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_records_are_refused_or_read_as_kafka_python_reads_them(
    log: tuple[list[Batch], list[tuple[int, int]]], data: Any
) -> None:
    """A byte is changed and the checksum made right again. One may be stricter; no other error comes out."""
    batch = next((b for b in log[0] if b.codec == NONE and not b.flags & CONTROL), None)
    if batch is None:
        return
    damaged = bytearray(batch.encode())
    at = data.draw(st.integers(DefaultRecordBatch.HEADER_STRUCT.size, len(damaged) - 1))
    flip = data.draw(st.integers(1, 255))
    assume(damaged[at] or flip < 128)  # a record's attributes are one byte, which kafka-python reads as a varint
    damaged[at] ^= flip
    encoded = seal(damaged)
    found, expected = (outcome(unpacker, encoded, batch.base) for unpacker in (ours, stock))
    assert found == expected or "refused" in (found, expected)


def outcome(unpacker: Any, data: bytes, start: int) -> Found | str:
    try:
        found: Found = unpacker(data, start)
    except KafkaError:
        return "refused"
    return found


def simple(base: int, count: int, **options: Any) -> Batch:
    return Batch(base, [(n, 1_700_000_000_000, b"k%d" % n, b"v%d" % n, []) for n in range(count)], **options)


def test_a_record_whose_offset_lies_outside_its_batch_is_refused() -> None:
    records = reader(ColumnarRecords, simple(0, 3, trailing=-1).encode(), 0, (), 1)
    with pytest.raises(DamagedRecords, match="offsets from 0 to 2 in a batch that ends at 1"):
        records.take()


def test_a_batch_that_fails_its_checksum_is_refused_after_what_came_before_it() -> None:
    broken = bytearray(simple(10, 5).encode())
    broken[-1] ^= 1
    records = reader(ColumnarRecords, simple(0, 10).encode() + bytes(broken), 0, (), 1)
    [chunk] = records.take()
    assert chunk.end == 10
    again = reader(ColumnarRecords, bytes(broken), 10, (), 1)
    with pytest.raises(DamagedRecords, match="fails its checksum") as caught:
        again.take()
    assert caught.value.offset == 10
    assert not again, "kafka-python would ask it for ever"


def test_a_batch_of_an_unknown_compression_is_refused() -> None:
    data = bytearray(simple(0, 3).encode())
    data[DefaultRecordBatch.ATTRIBUTES_OFFSET + 1] |= 6
    with pytest.raises(DamagedRecords):
        reader(ColumnarRecords, seal(data), 0, (), 1).take()


@pytest.mark.parametrize("framed", [False, True], ids=["raw, as librdkafka writes", "framed, as Java writes"])
def test_snappy_is_read_without_a_package_for_it(framed: bool) -> None:
    plain = simple(0, 200).encode()
    size = DefaultRecordBatch.HEADER_STRUCT.size
    head, body = bytearray(plain[:size]), plain[size:]
    blocks = [bytes(pa.compress(part, "snappy")) for part in ((body[:1000], body[1000:]) if framed else (body,))]
    if framed:
        sized = b"".join(len(block).to_bytes(4) + block for block in blocks)
        packed = b"\x82SNAPPY\0" + (1).to_bytes(4) + (1).to_bytes(4) + sized
    else:
        packed = blocks[0]
    head[DefaultRecordBatch.ATTRIBUTES_OFFSET + 1] |= SNAPPY
    struct.pack_into(">i", head, 8, size - 12 + len(packed))
    assert ours(seal(head + packed)) == stock(plain)


@pytest.mark.parametrize("magic", [0, 1])
def test_message_formats_before_kafka_0_11_are_read(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, NONE, 1 << 20)
    for n in range(5):
        builder.append(n, 1_700_000_000_000 + n, b"k%d" % n, None if n == 2 else b"v%d" % n)
    data = bytes(builder.build())
    assert ours(data, 2)[:2] == stock(data, 2)[:2]
    assert len(ours(data, 2)[0]) == 3


def test_a_large_fetch_comes_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "CHUNK_BYTES", 100)
    data = b"".join(simple(10 * n, 10).encode() for n in range(20))
    records = reader(ColumnarRecords, data, 0, (), 1)
    chunks = records.take(3)
    assert len(chunks) == 3
    assert records.next_fetch_offset == chunks[-1].end
    assert ours(data) == stock(data)


def test_headers_are_json_texts() -> None:
    assert header_json([]) is None
    assert json.loads(header_json([("a", "ä".encode()), ("b", b"\xff"), ("n", None), ("a", b"last")]) or "") == {
        "a": "last",
        "b": "\\xff",
        "n": None,
    }
