"""kafka-python's records as columns: batches are unpacked whole, not record by record.

kafka-python builds a named tuple of thirteen fields for each record; that costs several times what the rest of the
way costs. `ColumnarRecords` takes the place of its `PartitionRecords` in one consumer (an attribute of that consumer's
fetcher, nothing global) and yields a few `Chunk`s instead. Fetching, positions, retries, decompression, checksums and
aborted transactions stay kafka-python's. tests/unit/test_consume_unpack.py holds it against the stock unpacker.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel

from cdc_lake.consume.columns import Header, header_json
from cdc_lake.events import TopicPartition

CHUNK_BYTES = 4 << 20
_XERIAL = b"\x82SNAPPY\0"


class Chunk:
    """Consecutive records of one partition as lists of equal length, covering `[start, end)`."""

    __slots__ = ("end", "headers", "keys", "offsets", "size", "start", "timestamps", "values")

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.size = 0  # bytes in the log, uncompressed
        self.offsets: list[int] = []
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[str | None] | None = None  # None until a record has any

    @property
    def offset(self) -> int:
        """What kafka-python compares with the offset it asked for, to skip what lies before."""
        return self.end - 1

    def add(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: list[Header]) -> None:
        """Append one record."""
        self.offsets.append(offset)
        self.timestamps.append(timestamp)
        self.keys.append(key)
        self.values.append(value)
        if headers:
            self.add_headers(headers)
        elif self.headers is not None:
            self.headers.append(None)

    def add_headers(self, headers: list[Header]) -> None:
        """Append the headers of the record that was appended last."""
        if self.headers is None:
            self.headers = [None] * (len(self.offsets) - 1)
        self.headers.append(header_json(headers))

    def drop_before(self, offset: int) -> None:
        """Remove records below `offset`: a batch is sent whole, also when it was asked for from its middle."""
        count = bisect_left(self.offsets, offset)
        for column in (self.offsets, self.timestamps, self.keys, self.values, self.headers):
            if column is not None:
                del column[:count]


class DamagedRecords(CorruptRecordError):  # type: ignore[misc]
    """Bytes that cannot be read, and where."""

    def __init__(self, tp: TopicPartition, offset: int, detail: str) -> None:
        super().__init__(detail)
        self.tp, self.offset, self.detail = tp, offset, detail


class ColumnarRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one fetched partition, as an iterator of `Chunk`s."""

    def _unpack_records(self, tp: Any, records: Any, _keys: Any, _values: Any) -> Iterator[Chunk]:
        chunk = Chunk(self.next_fetch_offset)
        damage = ""
        while not damage and (batch := records.next_batch()) is not None:
            try:
                self._add(batch, chunk)
            except Exception as error:  # each decompressor has errors of its own
                damage = str(error)  # raised after what could be read was handed on
            if chunk.size >= CHUNK_BYTES:
                yield self._hand_on(chunk)
                chunk = Chunk(self.next_fetch_offset)
        if chunk.end > chunk.start:
            yield self._hand_on(chunk)
        self.drain()  # before raising, too: else kafka-python would ask this iterator for ever
        if damage:
            raise DamagedRecords(TopicPartition(tp.topic, tp.partition), self.next_fetch_offset, damage)

    def _hand_on(self, chunk: Chunk) -> Chunk:
        self.next_fetch_offset = chunk.end
        self.records_read += len(chunk.offsets)
        self.bytes_read += chunk.size
        return chunk

    def _add(self, batch: Any, chunk: Chunk) -> None:
        if self.check_crcs and not batch.validate_crc():
            raise CorruptRecordError(f"the batch at offset {batch.base_offset} fails its checksum")
        if batch.magic != 2:
            self._add_old_format(batch, chunk)
            return
        self.leader_epoch = batch.leader_epoch
        if not self._is_skipped(batch):
            decompress(batch)
            unpack(batch, chunk)
            if chunk.offsets and chunk.offsets[0] < self.fetch_offset:
                chunk.drop_before(self.fetch_offset)
        # The last offset stays in the batch though compaction may have removed its record.
        chunk.end = max(chunk.end, batch.next_offset)

    def _is_skipped(self, batch: Any) -> bool:
        """Whether a batch is a control batch or aborted; keeps track of which transactions are."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _add_old_format(self, batch: Any, chunk: Chunk) -> None:
        """Message formats before Kafka 0.11, which old topics may still hold."""
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(f"the record at offset {record.offset} fails its checksum")
            if record.offset >= self.fetch_offset:
                chunk.add(record.offset, record.timestamp, record.key, record.value, record.headers)
                chunk.size += record.size_in_bytes
                chunk.end = record.offset + 1


def decompress(batch: Any) -> None:
    """Decompress a batch in place. Snappy is pyarrow's: kafka-python would want a package that needs a compiler."""
    if batch.compression_type == batch.CODEC_SNAPPY:
        batch._buffer = _snappy(bytes(memoryview(batch._buffer)[batch._pos :]))
        batch._pos, batch._decompressed = 0, True
    iter(batch)


def _snappy(data: bytes) -> bytes:
    """Raw snappy, or the blocks of it that Java's stream class writes."""
    if not data.startswith(_XERIAL):
        size, _ = _varint(data, 0)
        return bytes(pa.decompress(data, size, "snappy"))
    blocks, pos = [], len(_XERIAL) + 8  # two version numbers
    while pos < len(data):
        length = int.from_bytes(data[pos : pos + 4])
        blocks.append(_snappy(data[pos + 4 : pos + 4 + length]))
        pos += 4 + length
    return b"".join(blocks)


def unpack(batch: Any, chunk: Chunk) -> None:
    """Append the records of a decompressed batch of format 2 to a chunk.

    Raises CorruptRecordError when the bytes are not what the format says; the chunk is then as it was before.
    """
    before = len(chunk.offsets)
    buffer = bytes(batch._buffer)
    try:
        end = _unpack(buffer, batch, chunk)
        if end != len(buffer) or len(chunk.offsets) - before != batch.records_count:
            raise ValueError(f"{batch.records_count} records announced, {len(chunk.offsets) - before} found")
        own = chunk.offsets[before:]
        if own and not (batch.base_offset <= min(own) and max(own) < batch.next_offset):
            raise ValueError(f"offsets from {min(own)} to {max(own)} in a batch that ends at {batch.next_offset - 1}")
    except (ValueError, IndexError) as error:
        for column in (chunk.offsets, chunk.timestamps, chunk.keys, chunk.values, chunk.headers):
            if column is not None:
                del column[before:]
        raise CorruptRecordError(f"the batch at offset {batch.base_offset} is malformed: {error}") from None
    chunk.size += len(buffer)


def _unpack(buffer: bytes, batch: Any, chunk: Chunk) -> int:  # noqa: PLR0912, PLR0915
    """The loop that runs for every record.

    Variable-length integers of one and two bytes (all deltas and most lengths) are read in place: a call for each
    would cost more than the rest of the loop.
    """
    pos: int = batch._pos
    limit = len(buffer)
    base_offset, fixed = batch.base_offset, batch.timestamp_type == batch.LOG_APPEND_TIME
    base_timestamp = batch.max_timestamp if fixed else batch.first_timestamp
    add_offset, add_timestamp = chunk.offsets.append, chunk.timestamps.append
    add_key, add_value, headers = chunk.keys.append, chunk.values.append, chunk.headers
    while pos < limit:
        number = buffer[pos]
        pos += 1
        if number > 127:
            number, pos = _varint(buffer, pos - 1)
        end = pos + (number >> 1) if not number & 1 else -1
        pos += 1  # attributes: unused
        number = buffer[pos]
        pos += 1
        if number > 127:
            if (high := buffer[pos]) < 128:
                number += (high << 7) - 128
                pos += 1
            else:
                number, pos = _varint(buffer, pos - 1)
        add_timestamp(base_timestamp if fixed else base_timestamp + ((number >> 1) ^ -(number & 1)))
        number = buffer[pos]
        pos += 1
        if number > 127:
            if (high := buffer[pos]) < 128:
                number += (high << 7) - 128
                pos += 1
            else:
                number, pos = _varint(buffer, pos - 1)
        add_offset(base_offset + ((number >> 1) ^ -(number & 1)))
        number = buffer[pos]
        pos += 1
        if number > 127:
            number, pos = _varint(buffer, pos - 1)
        if number & 1:
            add_key(None)
        else:
            add_key(buffer[pos : (pos := pos + (number >> 1))])
        number = buffer[pos]
        pos += 1
        if number > 127:
            if (high := buffer[pos]) < 128:
                number += (high << 7) - 128
                pos += 1
            else:
                number, pos = _varint(buffer, pos - 1)
        if number & 1:
            add_value(None)
        else:
            add_value(buffer[pos : (pos := pos + (number >> 1))])
        if buffer[pos]:
            pairs, pos = _headers(buffer, pos)
            chunk.add_headers(pairs)
            headers = chunk.headers
        else:
            pos += 1
            if headers is not None:
                headers.append(None)
        if pos != end:
            raise ValueError(f"a record ends at byte {pos} instead of {end}")
    return pos


def _varint(buffer: bytes, pos: int) -> tuple[int, int]:
    """A variable-length integer, still zig-zag encoded, and the position after it."""
    number = shift = 0
    while True:
        byte = buffer[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 128:
            return number, pos
        shift += 7
        if shift > 63:
            raise ValueError("a variable-length integer is too long")


def _headers(buffer: bytes, pos: int) -> tuple[list[Header], int]:
    count, pos = _length(buffer, pos)
    if count is None:
        raise ValueError("a negative number of headers")
    pairs: list[Header] = []
    for _ in range(count):
        name, pos = _blob(buffer, pos)
        value, pos = _blob(buffer, pos)
        if name is None:
            raise ValueError("a header without a name")
        pairs.append((name.decode(), value))
    return pairs, pos


def _blob(buffer: bytes, pos: int) -> tuple[bytes | None, int]:
    length, pos = _length(buffer, pos)
    return (None, pos) if length is None else (buffer[pos : pos + length], pos + length)


def _length(buffer: bytes, pos: int) -> tuple[int | None, int]:
    number, pos = _varint(buffer, pos)
    return (None if number & 1 else number >> 1), pos
