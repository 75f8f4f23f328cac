"""A Kafka that lives in memory: deterministic, for tests and simulations at the Broker seam.

`MemoryKafka` is the cluster (topics, logs, groups, faults), `MemoryKafka.broker` a member of a group. Nothing happens
by itself: time passes only in `poll`, and faults are set and lifted by attributes and methods.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_lake.consume.broker import CONNECTED, Assignment, PartitionInfo
from cdc_lake.consume.columns import Header, header_json, record_batch
from cdc_lake.errors import UnavailableError
from cdc_lake.events import RecordBatch, TopicPartition


@dataclass(frozen=True, slots=True)
class _Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


@dataclass(slots=True)
class _Log:
    beginning: int = 0
    end: int = 0
    records: list[_Record] = field(default_factory=list)


@dataclass(slots=True)
class _Topic:
    id: str
    logs: list[_Log]


@dataclass(slots=True)
class _Group:
    members: list[MemoryBroker] = field(default_factory=list)
    generation: int = 0
    committed: dict[TopicPartition, int] = field(default_factory=dict)


class MemoryKafka:
    """The cluster. Set `outage` to a reason to make it unreachable, to None to bring it back."""

    def __init__(self) -> None:
        self.outage: str | None = None
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, _Group] = {}
        self._ids = itertools.count(1)
        self._clock = itertools.count(1_700_000_000_000)

    def broker(self, group: str = "sink", *, max_records: int = 500) -> MemoryBroker:
        """A new consumer of `group` that returns at most `max_records` records a poll."""
        return MemoryBroker(self, self._groups.setdefault(group, _Group()), max_records)

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Create a topic, or add partitions to it."""
        held = self._topics.setdefault(topic, _Topic(f"id-{next(self._ids)}", []))
        held.logs.extend(_Log() for _ in range(partitions - len(held.logs)))

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with all its records."""
        del self._topics[topic]

    def recreate_topic(self, topic: str) -> None:
        """Delete a topic and create it again in one moment: same name and partitions, empty, another id."""
        partitions = len(self._topics[topic].logs)
        self.delete_topic(topic)
        self.create_topic(topic, partitions)

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[Header] = (),
        timestamp: int | None = None,
    ) -> int:
        """Append a record and return its offset. Without `timestamp` each record is one millisecond later."""
        log = self._topics[topic].logs[partition]
        at = next(self._clock) if timestamp is None else timestamp
        log.records.append(_Record(log.end, at, key, value, tuple(headers)))
        log.end += 1
        return log.end - 1

    def skip(self, topic: str, partition: int, count: int = 1) -> None:
        """Use up offsets that hold no record, as control records, aborted transactions and compaction do."""
        self._topics[topic].logs[partition].end += count

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Let retention pass: records below `offset` are gone."""
        log = self._topics[topic].logs[partition]
        log.beginning = max(log.beginning, min(offset, log.end))
        log.records = log.records[_index(log, log.beginning) :]

    def rebalance(self, group: str = "sink") -> None:
        """Make every member give up its partitions and get them anew, each at its next poll."""
        self._groups[group].generation += 1

    def crash(self, broker: MemoryBroker) -> None:
        """Remove a member as `kill -9` does: no callback, no leave; its partitions are free at once."""
        broker._leave()

    def committed(self, group: str = "sink") -> dict[TopicPartition, int]:
        """What the group committed for lag monitors; nothing of a group that never was."""
        return dict(self._groups.get(group, _Group()).committed)

    def members(self, group: str = "sink") -> int:
        """How many members a group has now."""
        return len(self._groups.get(group, _Group()).members)

    def info(self, tp: TopicPartition) -> PartitionInfo:
        """A partition as the broker sees it now."""
        topic = self._topics[tp.topic]
        log = topic.logs[tp.partition]
        return PartitionInfo(tp, log.beginning, log.end, topic.id)

    def matching(self, pattern: str) -> list[TopicPartition]:
        """All partitions of topics whose whole name matches, sorted."""
        return sorted(
            TopicPartition(name, number)
            for name, topic in self._topics.items()
            if re.fullmatch(pattern, name)
            for number in range(len(topic.logs))
        )

    def _log(self, tp: TopicPartition) -> _Log:
        return self._topics[tp.topic].logs[tp.partition]


def _index(log: _Log, offset: int) -> int:
    return bisect_left(log.records, offset, key=lambda record: record.offset)


class MemoryBroker:
    """A member of a group of `MemoryKafka`; the contract is `Broker`'s."""

    def __init__(self, kafka: MemoryKafka, group: _Group, max_records: int) -> None:
        self._kafka = kafka
        self._group = group
        self._max_records = max_records
        self._pattern = ""
        self._assignment: Assignment | None = None
        self._generation = -1
        self._matching: list[TopicPartition] = []
        self._held: dict[TopicPartition, str] = {}  # what `assigned` was told of, with the topic's id then
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    @property
    def state(self) -> str:
        """`connected`, or in words what is being waited for."""
        return f"waiting for the broker ({self._kafka.outage})" if self._kafka.outage else CONNECTED

    def subscribe(self, pattern: str, assignment: Assignment) -> None:
        """Join the group for all topics whose whole name matches."""
        self._pattern, self._assignment = pattern, assignment
        self._group.members.append(self)
        self._group.generation += 1

    def poll(self, timeout: float) -> list[RecordBatch]:
        """Settle rebalances, then return what is there. Never waits: in memory nothing comes by waiting."""
        if self._kafka.outage or self not in self._group.members:
            return []
        self._rebalance()
        self._claim()
        room = self._max_records
        batches = []
        for tp in sorted(self._positions):
            if room <= 0 or tp in self._paused:
                continue
            batch = self._read(tp, room)
            if batch is not None:
                room -= len(batch)
                batches.append(batch)
        return batches

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return no more records of these partitions until `resume`."""
        self._paused |= self._held.keys() & partitions

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undo `pause`."""
        self._paused.difference_update(partitions)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read `tp` from `offset` next."""
        if tp in self._held:
            self._positions[tp] = offset

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Tell lag monitors what has landed."""
        if not self._kafka.outage:
            self._group.committed.update(positions)

    def partitions(self, pattern: str) -> list[PartitionInfo]:
        """All partitions of all topics that match."""
        if self._kafka.outage:
            raise UnavailableError("Kafka does not answer.", why=self._kafka.outage, next="cdc-lake status")
        return [self._kafka.info(tp) for tp in self._kafka.matching(pattern)]

    def close(self) -> None:
        """Leave the group."""
        self._leave()

    def _leave(self) -> None:
        if self in self._group.members:
            self._group.members.remove(self)
            self._group.generation += 1
        self._forget(list(self._held))

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._held.pop(tp, None)
            self._positions.pop(tp, None)
            self._paused.discard(tp)

    def _rebalance(self) -> None:
        matching = self._kafka.matching(self._pattern)
        if matching != self._matching:
            self._matching = matching
            self._group.generation += 1
        if self._generation == self._group.generation:
            return
        self._generation = self._group.generation
        revoked = sorted(self._held)
        self._forget(revoked)
        if revoked and self._assignment:
            self._assignment.revoked(revoked)

    def _claim(self) -> None:
        """Take what the group gives to this member and no other holds any more, and what must begin anew."""
        members = self._group.members
        mine = self._matching[members.index(self) :: len(members)]
        elsewhere = {tp for member in members if member is not self for tp in member._held}
        anew = [tp for tp in mine if tp not in elsewhere and self._must_begin_anew(tp)]
        if not anew or self._assignment is None:
            return
        infos = [self._kafka.info(tp) for tp in anew]
        self._forget([tp for tp in anew if tp in self._positions])
        offsets = self._assignment.assigned(infos)
        self._held.update({info.tp: info.topic_id for info in infos})
        self._positions.update({tp: offset for tp, offset in offsets.items() if tp in self._held})
        self._paused |= {tp for tp in anew if tp not in offsets}

    def _must_begin_anew(self, tp: TopicPartition) -> bool:
        info = self._kafka.info(tp)
        if self._held.get(tp) != info.topic_id:
            return True
        position = self._positions.get(tp)
        return position is not None and not info.beginning <= position <= info.end and tp not in self._paused

    def _read(self, tp: TopicPartition, room: int) -> RecordBatch | None:
        log, start = self._kafka._log(tp), self._positions[tp]
        first = _index(log, start)
        records = log.records[first : first + room]
        # After the last record the log may go on with offsets that hold none: they are covered too.
        end = log.end if first + len(records) == len(log.records) else records[-1].offset + 1
        if end <= start:
            return None
        self._positions[tp] = end
        with_headers = any(record.headers for record in records)
        return record_batch(
            tp,
            start,
            end,
            offsets=[r.offset for r in records],
            timestamps=[r.timestamp for r in records],
            keys=[r.key for r in records],
            values=[r.value for r in records],
            headers=[header_json(r.headers) for r in records] if with_headers else None,
        )
