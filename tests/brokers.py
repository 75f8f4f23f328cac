"""What the tests of the Broker seam share: a pipeline that records, and Kafkas to read from."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cdc_lake.budget import AMPLE, Budget
from cdc_lake.consume import Broker, PartitionInfo, open_broker
from cdc_lake.consume.columns import Header
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import RecordBatch, TopicPartition

Row = tuple[bytes | None, bytes | None]


class Kafka(Protocol):
    """A cluster the contract runs against; `prefix` begins the name of every topic of one test."""

    prefix: str

    def broker(self, group: str = "g") -> Broker: ...
    def create(self, topic: str, partitions: int = 1) -> None: ...
    def recreate(self, topic: str) -> None: ...
    def produce(self, topic: str, partition: int, rows: Sequence[Row], headers: Sequence[Header] = ()) -> None: ...
    def produce_aborted(self, topic: str, partition: int, rows: Sequence[Row]) -> None: ...
    def produce_committed(self, topic: str, partition: int, rows: Sequence[Row]) -> None: ...
    def delete_before(self, topic: str, partition: int, offset: int) -> None: ...
    def committed(self, group: str, tp: TopicPartition) -> int | None: ...
    def close(self) -> None: ...


class Memory:
    """The in-memory Kafka."""

    def __init__(self) -> None:
        self.prefix = "t"
        self._kafka = MemoryKafka()

    def broker(self, group: str = "g") -> Broker:
        return self._kafka.broker(group)

    def create(self, topic: str, partitions: int = 1) -> None:
        self._kafka.create_topic(topic, partitions)

    def recreate(self, topic: str) -> None:
        self._kafka.recreate_topic(topic)

    def produce(self, topic: str, partition: int, rows: Sequence[Row], headers: Sequence[Header] = ()) -> None:
        for key, value in rows:
            self._kafka.produce(topic, partition, key, value, headers=headers)

    def produce_aborted(self, topic: str, partition: int, rows: Sequence[Row]) -> None:
        self._kafka.skip(topic, partition, len(rows) + 1)

    def produce_committed(self, topic: str, partition: int, rows: Sequence[Row]) -> None:
        self.produce(topic, partition, rows)
        self._kafka.skip(topic, partition)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self._kafka.delete_before(topic, partition, offset)

    def committed(self, group: str, tp: TopicPartition) -> int | None:
        return self._kafka.committed(group).get(tp)

    def close(self) -> None:
        pass


class Real:
    """A real Kafka, read by one of the clients; topics and groups of its own, deleted afterwards."""

    def __init__(self, bootstrap: str, client: str) -> None:
        from confluent_kafka.admin import AdminClient

        self.prefix = f"t{uuid.uuid4().hex[:10]}"
        self._bootstrap, self._client = bootstrap, client
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._topics: set[str] = set()
        self._brokers: list[Broker] = []

    def broker(self, group: str = "g", budget: Budget = AMPLE, **options: Any) -> Broker:
        name = f"{self.prefix}-{group}"
        broker = open_broker(self._client, self._bootstrap, group=name, options=options, budget=budget)
        self._brokers.append(broker)
        return broker

    def create(self, topic: str, partitions: int = 1, *, config: Mapping[str, str] | None = None) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import NewPartitions, NewTopic

        if topic in self._topics:
            self._admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()
            return
        self._topics.add(topic)

        def create() -> bool:
            try:
                self._admin.create_topics([NewTopic(topic, partitions, 1, config=dict(config or {}))])[topic].result()
            except KafkaException as error:
                if error.args[0].name() == "TOPIC_ALREADY_EXISTS":  # its deletion is still under way
                    return False
                raise
            return True

        until(create, f"{topic} to be created")

    def recreate(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result()
        self._topics.discard(topic)
        self.create(topic)

    def produce(
        self,
        topic: str,
        partition: int,
        rows: Sequence[Row],
        headers: Sequence[Header] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        producer = self._producer(**config or {})
        for key, value in rows:
            producer.produce(topic, value, key, partition, headers=list(headers))
        assert producer.flush(30) == 0

    def produce_aborted(self, topic: str, partition: int, rows: Sequence[Row]) -> None:
        producer = self.begin(topic, partition, rows)
        producer.abort_transaction()

    def produce_committed(self, topic: str, partition: int, rows: Sequence[Row]) -> None:
        producer = self.begin(topic, partition, rows)
        producer.commit_transaction()

    def begin(self, topic: str, partition: int, rows: Sequence[Row]) -> Any:
        """A producer whose transaction holds these rows, all of them at the broker."""
        producer = self._producer(**{"transactional.id": f"{self.prefix}-{uuid.uuid4().hex[:6]}"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for key, value in rows:
            producer.produce(topic, value, key, partition)
        assert producer.flush(30) == 0
        return producer

    def _producer(self, **config: Any) -> Any:
        from confluent_kafka import Producer

        return Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 5, **config})

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        from confluent_kafka import TopicPartition as KafkaPartition

        for future in self._admin.delete_records([KafkaPartition(topic, partition, offset)]).values():
            future.result()

    def committed(self, group: str, tp: TopicPartition) -> int | None:
        from confluent_kafka import ConsumerGroupTopicPartitions

        name = f"{self.prefix}-{group}"
        answer = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result()
        return {TopicPartition(p.topic, p.partition): p.offset for p in answer.topic_partitions}.get(tp)

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()
        if self._topics:
            for future in self._admin.delete_topics(sorted(self._topics)).values():
                future.result()


def until(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Ask until `check` is true, without a pause: what is asked waits itself."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"


@dataclass
class Reader:
    """A pipeline that writes down what it is told, and checks of every batch that it follows the one before."""

    broker: Broker
    starts: dict[TopicPartition, int | None] = field(default_factory=dict)  # None: left out; else from there
    infos: list[PartitionInfo] = field(default_factory=list)
    gone: list[TopicPartition] = field(default_factory=list)
    held: dict[TopicPartition, int] = field(default_factory=dict)  # with the position
    rows: dict[TopicPartition, list[tuple[int, bytes | None, bytes | None]]] = field(default_factory=dict)
    batches: list[RecordBatch] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    failure: Exception | None = None  # raised once by `assigned`
    timeout: float = 0.2

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self.infos.extend(partitions)
        starts = {info.tp: self.starts.get(info.tp, info.beginning) for info in partitions}
        read = {tp: start for tp, start in starts.items() if start is not None}
        for info in partitions:
            self.held.pop(info.tp, None)
        self.held.update(read)
        return read

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.threads.add(threading.get_ident())
        self.gone.extend(partitions)
        for tp in partitions:
            self.held.pop(tp, None)

    def poll(self) -> list[RecordBatch]:
        batches = self.broker.poll(self.timeout)
        for batch in batches:
            assert batch.tp in self.held, f"{batch.tp} was returned and is not held"
            assert batch.start == self.held[batch.tp], f"{batch.tp}: a hole or an overlap"
            assert batch.end > batch.start
            offsets = batch.offsets.to_pylist()
            assert offsets == sorted(set(offsets))
            assert all(batch.start <= offset < batch.end for offset in offsets)
            self.held[batch.tp] = batch.end
            rows = zip(offsets, batch.keys.to_pylist(), map(batch.value, range(len(batch))), strict=True)
            self.rows.setdefault(batch.tp, []).extend(rows)
        self.batches.extend(batches)
        return batches

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.broker.seek(tp, offset)
        self.held[tp] = offset

    def until(self, check: Callable[[], bool], what: str) -> None:
        until(lambda: self.poll() is not None and check(), what)

    def drain(self, *topics: str) -> None:
        """Read until the end of every partition of these topics, as it is now."""
        ends = {info.tp: info.end for topic in topics for info in self.broker.partitions(topic)}
        self.until(lambda: all(self.held.get(tp, 0) >= end for tp, end in ends.items()), f"the ends {ends}")

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return [value for _, _, value in self.rows.get(TopicPartition(topic, partition), [])]
