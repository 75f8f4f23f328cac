"""The seam to where events go: sending them, and the marks up to which a group has sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from kafka import KafkaProducer, errors
from kafka import TopicPartition as KafkaPartition
from kafka.admin import KafkaAdminClient
from kafka.partitioner.default import murmur2

from cdc_lake.consume import failures
from cdc_lake.consume.kafka_python_connect import named
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.consume.options import for_kafka_python
from cdc_lake.errors import UnavailableError
from cdc_lake.events import TopicPartition
from cdc_lake.service.event import Outgoing

T = TypeVar("T")
_WAIT_MS = 10_000
_SECONDS = 30


class Outlet(Protocol):
    """Where events go.

    - **Delivery.** `send` returns when all records are acknowledged, in their order within a partition; when it raises,
      some of them may have gone. Records of one key go to one partition, the one that Kafka's own clients choose.
    - **Marks.** The committed offsets of a group: up to where its members have sent what they caused.
    """

    def ensure(self, topics: Collection[str], partitions: int) -> None:
        """Make the topics that are not there."""
        ...

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send, and wait until all are acknowledged. Raises UnavailableError."""
        ...

    def marks(self, groups: Iterable[str], partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The furthest mark of any of the groups, of the partitions that have one. Raises UnavailableError."""
        ...

    def active(self, groups: Iterable[str]) -> list[str]:
        """Those of the groups that have members now. Raises UnavailableError."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class KafkaOutlet:
    """The contract is `Outlet`'s."""

    def __init__(self, bootstrap: str, options: Mapping[str, Any] | None = None, *, client: str = "cdc-lake-service"):
        """Connect. Raises UnavailableError."""
        given = for_kafka_python(options or {})
        self._bootstrap = bootstrap
        self._admin: KafkaAdminClient = self._try(
            lambda: KafkaAdminClient(
                **{k: v for k, v in given.items() if k in KafkaAdminClient.DEFAULT_CONFIG},
                bootstrap_servers=bootstrap.split(","),
                client_id=client,
                bootstrap_timeout_ms=_WAIT_MS,
            )
        )
        self._producer: KafkaProducer = self._try(
            lambda: KafkaProducer(
                **{k: v for k, v in given.items() if k in KafkaProducer.DEFAULT_CONFIG},
                bootstrap_servers=bootstrap.split(","),
                client_id=client,
                acks="all",
                enable_idempotence=True,
                linger_ms=2,
                allow_auto_create_topics=False,
            )
        )

    def ensure(self, topics: Collection[str], partitions: int) -> None:
        """Make the topics that are not there."""
        there = set(self._try(self._admin.list_topics))
        wanted = {t: {"num_partitions": partitions, "replication_factor": -1} for t in topics if t not in there}
        with contextlib.suppress(errors.TopicAlreadyExistsError):
            if wanted:
                self._try(lambda: self._admin.create_topics(wanted, wait_for_metadata=True))

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send, and wait until all are acknowledged."""
        self._try(lambda: self._send(records))

    def _send(self, records: Sequence[Outgoing]) -> None:
        sent = [self._producer.send(r.topic, key=r.key, value=r.value, headers=list(r.headers)) for r in records]
        self._producer.flush(timeout=_SECONDS)
        for one in sent:
            one.get(timeout=0)

    def marks(self, groups: Iterable[str], partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The furthest mark of any of the groups."""
        asked = [KafkaPartition(tp.topic, tp.partition) for tp in partitions]
        found: dict[TopicPartition, int] = {}
        for group in groups if asked else ():
            for tp, place in self._committed(group, asked).items():
                if place.offset >= 0:
                    ours = TopicPartition(tp.topic, tp.partition)
                    found[ours] = max(found.get(ours, 0), int(place.offset))
        return found

    def _committed(self, group: str, partitions: list[KafkaPartition]) -> Mapping[KafkaPartition, Any]:
        answer: Mapping[str, Any] = self._try(lambda: self._admin.list_group_offsets({group: partitions}))
        found: Mapping[KafkaPartition, Any] = answer.get(group, {})
        return found

    def active(self, groups: Iterable[str]) -> list[str]:
        """Those of the groups that have members now."""
        asked = list(groups)
        found = self._try(lambda: self._admin.describe_groups(asked)) if asked else {}
        return [group for group in asked if found.get(group, {}).get("members")]

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(errors.KafkaError):
            self._producer.close(timeout=1)
        self._admin.close()

    def _try(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except errors.TopicAlreadyExistsError:
            raise
        except errors.KafkaError as error:
            known = named(self._bootstrap, error)
            if known is not None:
                raise known from None
            raise failures.no_answer(self._bootstrap, str(error) or type(error).__name__) from None


class MemoryOutlet:
    """The contract is `Outlet`'s, over a Kafka in memory."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self.kafka = kafka

    def ensure(self, topics: Collection[str], partitions: int) -> None:
        """Make the topics that are not there."""
        for topic in topics:
            if not self.kafka.matching(topic.replace(".", r"\.")):
                self.kafka.create_topic(topic, partitions)

    def send(self, records: Sequence[Outgoing]) -> None:
        """Append each record to its partition."""
        for record in records:
            self._answers()
            count = len(self.kafka.matching(record.topic.replace(".", r"\.")))
            partition = partition_of(record.key or b"", count)
            self.kafka.produce(record.topic, partition, record.key, record.value, headers=record.headers)

    def marks(self, groups: Iterable[str], partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The furthest mark of any of the groups."""
        self._answers()
        found: dict[TopicPartition, int] = {}
        for group in groups:
            for tp, offset in self.kafka.committed(group).items():
                if tp in partitions:
                    found[tp] = max(found.get(tp, 0), offset)
        return found

    def active(self, groups: Iterable[str]) -> list[str]:
        """Those of the groups that have members now."""
        self._answers()
        return [group for group in groups if self.kafka.members(group)]

    def close(self) -> None:
        """Nothing is held."""

    def _answers(self) -> None:
        if self.kafka.outage:
            raise UnavailableError(
                "Kafka does not answer.", why=self.kafka.outage, next="cdc-lake status", code=failures.NO_ANSWER
            )


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own clients choose for a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
