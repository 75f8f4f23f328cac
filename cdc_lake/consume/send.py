"""Send events to a topic, in order: one idempotent producer, every record acknowledged before the end.

Delivery: at least once over several runs, once and in order within one. Memory: no more than so many bytes are on
their way, then the sender waits for the broker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kafka import KafkaProducer, errors
from kafka.admin import KafkaAdminClient, NewTopic

from cdc_lake.consume import failures
from cdc_lake.consume.factory import open_broker
from cdc_lake.consume.kafka_python_connect import named
from cdc_lake.consume.options import for_kafka_python
from cdc_lake.errors import CdcLakeError, UnavailableError

_UNACKNOWLEDGED_BYTES = 16 << 20
_SECONDS = 60
_CLIENT = "cdc-lake-replay"

Headers = Sequence[tuple[str, bytes]]


class Sender(Protocol):
    """Takes records for one topic. `flush` returns when all are acknowledged, `close` ends it."""

    def send(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Take one record. Raises UnavailableError when the broker has refused one."""

    def flush(self) -> None:
        """Wait until every record is acknowledged. Raises UnavailableError."""

    def close(self) -> None:
        """Let go of the connection."""


class KafkaSender:
    """Records for one topic of a broker; a topic that is not there is made, with one partition if not with more."""

    def __init__(self, bootstrap: str, topic: str, options: Mapping[str, Any], *, partitions: int = 1) -> None:
        """Connect. Raises UnavailableError when no broker answers or it refuses, ConfigError for a bad option."""
        given = for_kafka_python(options)
        self._bootstrap, self._topic = bootstrap, topic
        self._failure: Exception | None = None
        self._waiting = 0
        # A first connection has an end and tells why it fails, which the producer's own does not.
        open_broker("kafka-python", bootstrap, group=_CLIENT, options=options).close()
        try:
            self.made = make_topic(bootstrap, topic, given, partitions=partitions)
            self._producer = KafkaProducer(
                **{k: v for k, v in given.items() if k in KafkaProducer.DEFAULT_CONFIG},
                bootstrap_servers=bootstrap.split(","),
                client_id=_CLIENT,
                acks="all",
                enable_idempotence=True,
                linger_ms=20,
                allow_auto_create_topics=False,
            )
        except errors.KafkaError as error:
            raise self._explained(error) from None

    def send(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Hand a record to the producer; waits while too much is on its way."""
        self._check()
        self._waiting += len(key or b"") + len(value or b"")
        if self._waiting > _UNACKNOWLEDGED_BYTES:
            self.flush()
        try:
            sent = self._producer.send(self._topic, key=key, value=value, headers=list(headers))
        except errors.KafkaError as error:
            raise self._explained(error) from None
        sent.add_errback(self._failed)

    def flush(self) -> None:
        """Wait for the acknowledgements."""
        try:
            self._producer.flush(timeout=_SECONDS)
        except errors.KafkaError as error:
            raise self._explained(error) from None
        self._waiting = 0
        self._check()

    def close(self) -> None:
        """Close without waiting for what was not flushed."""
        with contextlib.suppress(errors.KafkaError):
            self._producer.close(timeout=0)

    def _failed(self, error: Exception) -> None:
        self._failure = self._failure or error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._explained(self._failure)

    def _explained(self, error: Exception) -> CdcLakeError:
        if isinstance(error, errors.AuthorizationError):
            return UnavailableError(
                f"Kafka at {self._bootstrap} does not allow this.",
                why=str(error) or type(error).__name__,
                next=f"grant WRITE (and CREATE, if it is new) on the topic {self._topic} to the user of kafka.options",
                code="kafka_rights",
            )
        if isinstance(error, errors.KafkaError) and (known := named(self._bootstrap, error)) is not None:
            return known
        if isinstance(error, errors.NoBrokersAvailable | errors.KafkaConnectionError):
            return failures.no_answer(self._bootstrap)
        return UnavailableError(
            f"Kafka at {self._bootstrap} did not take a record for {self._topic}.",
            why=str(error) or type(error).__name__,
            next="mend that, then run the same command again: consumers know repeated events by their headers",
            code="kafka_refused",
        )


def make_topic(bootstrap: str, topic: str, given: Mapping[str, Any], *, partitions: int = 1) -> bool:
    """Make the topic when it is not there; whether it was made. One partition keeps the order of all events, more that
    of each key."""
    known = {k: v for k, v in given.items() if k in KafkaAdminClient.DEFAULT_CONFIG}
    admin = KafkaAdminClient(**known, bootstrap_servers=bootstrap.split(","), client_id=_CLIENT)
    try:
        if topic in admin.list_topics():
            return False
        with contextlib.suppress(errors.TopicAlreadyExistsError):
            admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=-1)])
        return True
    finally:
        admin.close()
