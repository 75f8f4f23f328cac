"""A service's state at a past moment, from the log: the same handlers, evaluated up to there, and nothing is sent."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cdc_lake.consume.broker import Broker, PartitionInfo
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.held import Folder
from cdc_lake.service.service import Service
from cdc_lake.service.shard import NEVER, Shard
from cdc_lake.service.state import copy, file_name, read_only

_IDLE_POLLS = 150


@contextlib.contextmanager
def evaluated(
    service: Service,
    tp: TopicPartition,
    log: Iterable[RecordBatch],
    *,
    upto: int | None = None,
    at: datetime | None = None,
    copies: Folder | None = None,
) -> Iterator[sqlite3.Connection]:
    """A shard's tables as they were before offset `upto`, or behind the last record that came by `at`.

    `log` gives the partition's records, in order, from the beginning or from where a copy in `copies` ends.
    """
    with tempfile.TemporaryDirectory(prefix="cdc-lake-service-") as folder:
        file = Path(folder) / file_name(tp)
        start_from_copy(file, tp, copies, upto)
        shard = Shard(service, tp, file, floor=NEVER)
        try:
            for batch in log:
                part = before(batch, upto, at)
                if part.end > shard.position:
                    shard.apply(part)
                if part.end < batch.end:
                    break
            with contextlib.closing(read_only(file)) as db:
                yield db
        finally:
            shard.close()


def start_from_copy(file: Path, tp: TopicPartition, copies: Folder | None, upto: int | None) -> int:
    """Lay the newest copy that is not behind `upto` in place; the position to read the log from."""
    if copies is None or upto is None:
        return 0
    position, newest = max(((p, f) for p, f in copies.copies(tp) if p <= upto), default=(0, None))
    if newest is not None:
        with contextlib.closing(read_only(newest)) as db:
            copy(db, file)
    return position


def before(batch: RecordBatch, upto: int | None, at: datetime | None) -> RecordBatch:
    """The part of a batch that lies before an offset, and no record behind the first that came after `at`."""
    offsets, end = batch.offsets.to_pylist(), batch.end
    count = len(offsets)
    if upto is not None:
        end = min(end, max(upto, batch.start))
        count = bisect_right(offsets, end - 1)
    if at is not None:
        limit = at.timestamp() * 1000
        times = batch.timestamps.to_pylist()[:count]
        first = next((i for i, time in enumerate(times) if time > limit), count)
        count, end = first, (offsets[first] if first < count else end)
    if end == batch.end:
        return batch
    return replace(
        batch,
        end=end,
        offsets=batch.offsets.slice(0, count),
        timestamps=batch.timestamps.slice(0, count),
        keys=batch.keys.slice(0, count),
        values=batch.values.slice(0, count),
        headers=None if batch.headers is None else batch.headers.slice(0, count),
    )


class _Alone:
    """Reads one partition from a position to its end as it is at first."""

    def __init__(self, tp: TopicPartition, start: int) -> None:
        self.tp, self.start = tp, start
        self.end: int | None = None

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        for info in partitions:
            if info.tp == self.tp:
                self.end = info.end
                return {self.tp: max(self.start, info.beginning)}
        return {}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Nothing is kept."""


def read_log(broker: Broker, tp: TopicPartition, start: int = 0) -> Iterator[RecordBatch]:
    """The records of a partition from an offset to the end it has now. `broker`, alone in its group, is closed."""
    alone = _Alone(tp, start)
    broker.subscribe(re.escape(tp.topic), alone)
    position, idle = start, 0
    try:
        while (alone.end is None or position < alone.end) and idle < _IDLE_POLLS:
            found = broker.poll(0.2)
            idle = 0 if found else idle + 1
            for batch in found:
                position = batch.end
                yield batch
    finally:
        broker.close()
