"""Broker over confluent-kafka (librdkafka): the fast one, with the `fast` extra.

Topics are matched here and not by librdkafka, whose regular expressions are other ones than Python's.
"""

from __future__ import annotations

import gc
import logging
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cdc_lake.budget import Budget
from cdc_lake.consume import failures
from cdc_lake.consume.broker import Assignment, PartitionInfo
from cdc_lake.consume.columns import header_json, record_batch
from cdc_lake.consume.group import GroupBroker
from cdc_lake.consume.options import LIBRDKAFKA_NAMES, for_confluent, unknown_option, warn_if_readable_by_others
from cdc_lake.errors import CdcLakeError, ConfigError, UnavailableError
from cdc_lake.events import RecordBatch, TopicPartition

log = logging.getLogger(__name__)
_library_log = logging.getLogger("librdkafka")
_library_log.addHandler(logging.NullHandler())  # our `state` and errors say it in words

# The stubs say that every part of a message may be None, which holds only for messages never sent.
_message: Any = Message
_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]

_ASK_SECONDS = 5.0
_WATCH_SECONDS = 2.0
# A poll takes as many records as hold about these bytes: each is copied twice on its way into a column.
_POLL_RECORDS = 10_000


def fetching(budget: Budget) -> dict[str, Any]:
    """How librdkafka fetches ahead."""
    return {
        "queued.max.messages.kbytes": max(budget.queued >> 10, 1 << 10),
        "fetch.queue.backoff.ms": 10,  # a full queue is drained in no time; the default waits a second
        "fetch.max.bytes": max(budget.queued >> 1, 1 << 20),
        # Compressed: JSON with inline schema grows twentyfold.
        "max.partition.fetch.bytes": max(min(2 << 20, budget.queued >> 5), 64 << 10),
        "receive.message.max.bytes": 512 << 20,
    }


_SETTINGS: dict[str, Any] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "check.crcs": True,
    "enable.partition.eof": True,  # tells the position after trailing control records, which no message does
    "group.protocol": "classic",
    # Debezium's topics mostly have one partition: by ranges, one worker would get them all.
    "partition.assignment.strategy": "roundrobin",
    "session.timeout.ms": 6_000,  # the least a broker allows: a killed worker's partitions move on soon
    "heartbeat.interval.ms": 2_000,
    "topic.metadata.refresh.interval.ms": 2_000,
    "reconnect.backoff.max.ms": 1_000,
    "client.id": "cdc-lake",
}
_CREDENTIALS = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
_SECURITY = {KafkaError._SSL, KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE}
_RIGHTS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_DAMAGED = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED}


class ConfluentBroker(GroupBroker):
    """The contract is `Broker`'s."""

    def __init__(self, bootstrap: str, group: str, options: Mapping[str, Any], wait: float, budget: Budget) -> None:
        """Connect within `wait` seconds. Raises UnavailableError, and ConfigError for an option that is not one."""
        super().__init__()
        self._bootstrap = bootstrap
        given = for_confluent(options)
        settings = {**_SETTINGS, **fetching(budget), **given, "bootstrap.servers": bootstrap, "group.id": group}
        warn_if_readable_by_others(bootstrap, str(settings.get("security.protocol", "PLAINTEXT")))
        self._pattern = ""
        self._subscribed: list[str] = []
        self._reading: set[TopicPartition] = set()  # what librdkafka was told to read
        self._ids: dict[str, Future[Any]] = {}
        self._next_watch = 0.0
        self._refusal: CdcLakeError | None = None
        self._closed = False
        self._poll_records, self._poll_bytes = 1, budget.polled
        try:
            self._consumer = Consumer({**settings, "error_cb": self._on_error}, logger=_library_log)
            self._admin = AdminClient({**given, "bootstrap.servers": bootstrap}, logger=_library_log)
        except KafkaException as error:
            raise _refused_option(error.args[0].str()) from None
        self._wait_until_connected(wait)

    def subscribe(self, pattern: str, assignment: Assignment) -> None:
        """Join the group for all topics whose whole name matches."""
        self._pattern, self._assignment = pattern, assignment
        self._next_watch = 0.0

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Tell lag monitors what has landed."""
        offsets = [KafkaPartition(tp.topic, tp.partition, offset) for tp, offset in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.debug("offsets not committed for monitors: %s", error)

    def partitions(self, pattern: str) -> list[PartitionInfo]:
        """All partitions of all topics that match."""
        try:
            return self._infos(
                TopicPartition(name, number)
                for name, topic in self._admin.list_topics(timeout=_ASK_SECONDS).topics.items()
                if re.fullmatch(pattern, name)
                for number in topic.partitions
            )
        except KafkaException as error:
            raise self._error(error.args[0]) from None

    def close(self) -> None:
        """Leave the group."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _read(self, timeout: float) -> Iterable[RecordBatch]:
        self._watch()
        # consume() alone would wait for the full number; the first message is enough to go on.
        first: Any = self._consumer.poll(timeout)
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        if first is None:
            return []
        self._trouble = ""
        # Thousands of objects come and go at once and none of them in a cycle: looking for cycles costs a tenth.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._take([first, *self._consumer.consume(self._poll_records, 0)])
        finally:
            if collecting:
                gc.enable()

    def _take(self, messages: list[Any]) -> list[RecordBatch]:
        """Nothing in here may raise once a position was advanced: the batch would be lost."""
        told = []
        if any(map(_message.error, messages)):
            told = [message for message in messages if message.error()]
            messages = [message for message in messages if not message.error()]
        batches = [self._batch(tp, group) for tp, group in _by_partition(messages)]
        nbytes = sum(batch.nbytes + len(batch) * len(batch.prefix) for batch in batches if batch is not None)
        if nbytes:
            self._poll_records = max(1, min(_POLL_RECORDS, self._poll_bytes * len(messages) // nbytes))
        return [batch for batch in [*batches, *map(self._told, told)] if batch is not None]

    def _batch(self, tp: TopicPartition, messages: list[Any]) -> RecordBatch | None:
        start = self._positions.get(tp)
        offsets = list(map(_message.offset, messages))
        if start is None:
            return None  # on its way when the partition was revoked
        if offsets[0] < start:
            self._begin({tp: start})  # on its way when the partition was sought: read from there, to be sure
            return None
        self._positions[tp] = offsets[-1] + 1
        prefix, values = self._without_prefix(tp, list(map(_message.value, messages)))
        headers = list(map(_message.headers, messages)) if any(map(_message.headers, messages)) else None
        return record_batch(
            tp,
            start,
            offsets[-1] + 1,
            offsets=offsets,
            timestamps=[timestamp for _, timestamp in map(_message.timestamp, messages)],
            keys=list(map(_message.key, messages)),
            values=values,
            headers=list(map(header_json, headers)) if headers is not None else None,
            prefix=prefix,
        )

    def _told(self, message: Any) -> RecordBatch | None:
        """What librdkafka says of a partition in place of a record."""
        error, tp = message.error(), TopicPartition(message.topic() or "", message.partition() or 0)
        start = self._positions.get(tp)
        if error.code() == KafkaError._PARTITION_EOF and start is not None and message.offset() > start:
            self._positions[tp] = message.offset()
            return record_batch(tp, start, message.offset())
        if error.code() in _OUT_OF_RANGE and start is not None:
            self._begin_anew({tp})
        elif error.code() in _DAMAGED and start is not None:
            self._begin({tp: start})
            self._refusal = failures.damaged(tp, start, error.str())
        elif error.code() in _RIGHTS:
            self._refusal = failures.no_rights(self._bootstrap, error.str())
        elif error.code() != KafkaError._PARTITION_EOF:
            self._trouble = error.str()
        return None

    def _watch(self) -> None:
        """Find topics that match by now, and those that were created again."""
        now = time.monotonic()
        if now < self._next_watch or not self._pattern:
            return
        self._next_watch = now + _WATCH_SECONDS
        ids = {name: _topic_id(asked.result()) for name, asked in self._ids.items() if _succeeded(asked)}
        self._begin_anew(self._recreated(ids))
        try:
            found = self._consumer.list_topics(timeout=1.0).topics
        except KafkaException as error:
            self._on_error(error.args[0])
            return
        self._trouble = ""
        topics = sorted(name for name in found if re.fullmatch(self._pattern, name))
        if topics != self._subscribed:
            self._subscribed = topics
            self._consumer.subscribe(
                topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
        held = sorted({tp.topic for tp in self._held})
        self._ids = self._admin.describe_topics(TopicCollection(held)) if held else {}

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._reading.clear()
        consumer.assign([])  # nothing is read before the pipeline has said from where
        self.note_assigned(map(_ours, partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._reading.clear()
        consumer.unassign()
        self.note_revoked(map(_ours, partitions))

    def _begin_anew(self, partitions: set[TopicPartition]) -> None:
        self._pause(partitions)
        self._reading -= partitions
        self.note_assigned(partitions)

    def _describe(self, partitions: Collection[TopicPartition]) -> list[PartitionInfo] | None:
        try:
            return self._infos(partitions)
        except KafkaException as error:
            failure = self._error(error.args[0])
            if failure.code != failures.NO_ANSWER:
                raise failure from None
            self._trouble = failure.why
            return None

    def _infos(self, partitions: Iterable[TopicPartition]) -> list[PartitionInfo]:
        wanted = sorted(partitions)
        if not wanted:
            return []
        asked = self._admin.describe_topics(
            TopicCollection(sorted({tp.topic for tp in wanted})), request_timeout=_ASK_SECONDS
        )
        ids = {name: _topic_id(topic) for name, future in asked.items() if (topic := _existing(future))}
        existing = [tp for tp in wanted if tp.topic in ids]
        beginnings, ends = (self._offsets(existing, spec) for spec in (_EARLIEST, _LATEST))
        return [PartitionInfo(tp, beginnings[tp], ends[tp], ids[tp.topic]) for tp in existing if tp in ends]

    def _offsets(self, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        asked = self._admin.list_offsets(
            {KafkaPartition(tp.topic, tp.partition): spec for tp in partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_ASK_SECONDS,
        )
        return {_ours(tp): found.offset for tp, future in asked.items() if (found := _existing(future))}

    def _begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        try:
            if offsets.keys() <= self._reading:
                for tp, offset in offsets.items():
                    self._consumer.seek(KafkaPartition(tp.topic, tp.partition, offset))
                return
        except KafkaException as error:
            log.debug("sought by assigning anew: %s", error)  # fetching of the partition had stopped
        # librdkafka has no way to add to what a group assigned, other than giving it the whole list.
        self._consumer.assign([KafkaPartition(tp.topic, tp.partition, at) for tp, at in self._positions.items()])
        self._reading = set(self._positions)
        self._pause(self._paused)
        self._resume(self._reading - self._paused)  # librdkafka remembers what was paused before

    def _pause(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.pause([_theirs(tp) for tp in partitions if tp in self._reading])

    def _resume(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.resume([_theirs(tp) for tp in partitions if tp in self._reading])

    def _wait_until_connected(self, wait: float) -> None:
        deadline = time.monotonic() + wait
        while True:
            try:
                self._consumer.list_topics(timeout=1.0)
            except KafkaException:
                self._consumer.poll(0.1)  # hears what went wrong
            else:
                self._trouble = ""
                return
            if self._refusal is not None or time.monotonic() > deadline:
                self.close()
                tls = failures.wrong_security(self._bootstrap, self._trouble) if "handshake" in self._trouble else None
                raise self._refusal or tls or failures.no_answer(self._bootstrap)

    def _on_error(self, error: KafkaError) -> None:
        """Called by librdkafka inside `poll` for what concerns a broker and not a partition."""
        failure = self._error(error)
        if failure.code != failures.NO_ANSWER:
            self._refusal = failure
        elif not self._trouble or error.code() != KafkaError._ALL_BROKERS_DOWN:  # which tells less than what it follows
            self._trouble = failure.why

    def _error(self, error: KafkaError) -> UnavailableError:
        detail = error.str()
        if error.code() in _CREDENTIALS and "handshake failed" not in detail:
            return failures.wrong_credentials(self._bootstrap, detail)
        if error.code() in _CREDENTIALS | _SECURITY:
            return failures.wrong_security(self._bootstrap, detail)
        if error.code() in _RIGHTS:
            return failures.no_rights(self._bootstrap, detail)
        return failures.no_answer(self._bootstrap, detail)


def _by_partition(messages: list[Any]) -> Iterable[tuple[TopicPartition, list[Any]]]:
    """The messages of each partition in their order. A fetch mostly holds those of one, which costs no loop here."""
    if len(set(map(_message.topic, messages))) * len(set(map(_message.partition, messages))) == 1:
        return [(TopicPartition(messages[0].topic(), messages[0].partition()), messages)]
    groups: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for message in messages:
        groups[message.topic(), message.partition()].append(message)
    return [(TopicPartition(*key), group) for key, group in groups.items()]


def _refused_option(detail: str) -> ConfigError:
    if detail.startswith("No such configuration property"):
        return unknown_option(detail.split('"')[1], [*_SETTINGS, *LIBRDKAFKA_NAMES], "confluent-kafka")
    return failures.bad_option(detail)


def _existing(future: Future[Any]) -> Any:
    """The answer; None when the topic or partition does not exist (any more)."""
    try:
        return future.result()
    except KafkaException as error:
        if error.args[0].code() in _GONE:
            return None
        raise


def _topic_id(topic: Any) -> str:
    """The id as Kafka's own tools write it; librdkafka uses base64's other alphabet."""
    return str(topic.topic_id).rstrip("=").translate(str.maketrans("+/", "-_"))


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and future.exception() is None


def _ours(tp: KafkaPartition) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)


def _theirs(tp: TopicPartition) -> KafkaPartition:
    return KafkaPartition(tp.topic, tp.partition)
