"""Send records to a topic together with a position: both in one Kafka transaction, or neither.

Delivery: exactly once for consumers that read committed records only, wherever the sender is killed: the position is a
committed offset of a group of its own, and part of the transaction. Of two senders of one name, the earlier is fenced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from kafka import KafkaProducer, errors
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata, TopicPartition

from cdc_lake.consume import failures
from cdc_lake.consume.factory import open_broker
from cdc_lake.consume.kafka_python_connect import named
from cdc_lake.consume.options import for_kafka_python
from cdc_lake.consume.send import make_topic
from cdc_lake.crashpoints import reach
from cdc_lake.errors import UnavailableError

T = TypeVar("T")
Record = tuple[bytes | None, bytes, list[tuple[str, bytes]]]


class TransactionalTopic:
    """One topic of a broker, sent to under `name`; a topic that is not there is made, with one partition."""

    def __init__(self, bootstrap: str, topic: str, name: str, options: Mapping[str, Any]) -> None:
        """Connect, and end what an earlier sender of this name left open. Raises UnavailableError, ConfigError."""
        given = for_kafka_python(options)
        self._bootstrap, self._topic, self._name = bootstrap, topic, name
        self._admin_options = {k: v for k, v in given.items() if k in KafkaAdminClient.DEFAULT_CONFIG}
        # A first connection has an end and tells why it fails, which the producer's own does not.
        open_broker("kafka-python", bootstrap, group=name, options=options).close()
        self._try(lambda: make_topic(bootstrap, topic, given))
        self._producer = self._try(
            lambda: KafkaProducer(
                **{k: v for k, v in given.items() if k in KafkaProducer.DEFAULT_CONFIG},
                bootstrap_servers=bootstrap.split(","),
                client_id=name,
                transactional_id=name,
                acks="all",
                linger_ms=20,
                allow_auto_create_topics=False,
            )
        )
        self._try(self._producer.init_transactions)

    @property
    def _place(self) -> TopicPartition:
        return TopicPartition(self._topic, 0)

    def position(self) -> int | None:
        """The position of the last transaction; None before the first."""
        admin = self._try(lambda: KafkaAdminClient(**self._admin_options, bootstrap_servers=self._bootstrap.split(",")))
        try:
            found = self._try(lambda: admin.list_group_offsets({self._name: [self._place]}))
        finally:
            admin.close()
        place = found.get(self._name, {}).get(self._place)
        return None if place is None or place.offset < 0 else int(place.offset)

    def send(self, records: Iterable[Record], position: int) -> None:
        """Send records and the position that they lead to. Raises UnavailableError; none of them counts then."""
        self._try(self._producer.begin_transaction)
        try:
            self._try(lambda: self._send(records))
            offsets = {self._place: OffsetAndMetadata(position, "", -1)}
            self._try(lambda: self._producer.send_offsets_to_transaction(offsets, self._name))
            reach("topic:before-commit")
            self._try(self._producer.commit_transaction)
        except UnavailableError:
            with contextlib.suppress(errors.KafkaError):
                self._producer.abort_transaction()
            raise
        reach("topic:after-commit")

    def _send(self, records: Iterable[Record]) -> None:
        sent = [self._producer.send(self._topic, key=k, value=v, headers=h) for k, v, h in records]
        self._producer.flush()
        for one in sent:
            one.get()

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(errors.KafkaError):
            self._producer.close(timeout=1)

    def _try(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except errors.ProducerFencedError:
            raise UnavailableError(
                f"Another process sends to {self._topic} as {self._name}.",
                why="Of two senders of one model Kafka lets the later one go on.",
                next="stop the other `cdc-lake stream run`, then start this one again",
                code="topic_fenced",
            ) from None
        except errors.KafkaError as error:
            known = named(self._bootstrap, error)
            if known is not None:
                raise known from None
            if isinstance(error, errors.NoBrokersAvailable | errors.KafkaConnectionError):
                raise failures.no_answer(self._bootstrap) from None
            raise UnavailableError(
                f"Kafka at {self._bootstrap} did not take rows for {self._topic}.",
                why=str(error) or type(error).__name__,
                next="mend that, then: cdc-lake stream run",
                code="kafka_refused",
            ) from None
