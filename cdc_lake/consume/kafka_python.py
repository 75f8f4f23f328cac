"""Broker over kafka-python: pure Python, always there.

kafka-python runs rebalance callbacks on its network thread, so they only take note, and hold a partition back (paused)
until `poll` has asked the pipeline. Used of kafka-python beyond its documented interface: the fetcher's
`PartitionRecords` (see unpack.py), what it asks for and when, the cluster metadata with its topic ids, the connection
manager's loop, and whether the coordinator is joining.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from kafka import KafkaConsumer, errors
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.structs import OffsetAndMetadata

from cdc_lake.budget import Budget
from cdc_lake.consume import failures
from cdc_lake.consume.broker import Assignment, PartitionInfo
from cdc_lake.consume.columns import record_batch
from cdc_lake.consume.group import GroupBroker
from cdc_lake.consume.kafka_python_connect import check_known, connect, named
from cdc_lake.consume.options import for_kafka_python, warn_if_readable_by_others
from cdc_lake.consume.unpack import CHUNK_BYTES, Chunk, ColumnarRecords
from cdc_lake.errors import UnavailableError
from cdc_lake.events import RecordBatch, TopicPartition

log = logging.getLogger(__name__)
logging.getLogger("kafka").addHandler(logging.NullHandler())  # our `state` and errors say it in words

_ASK_MS = 5_000
_WATCH_SECONDS = 1.0

_SETTINGS: dict[str, Any] = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "check_crcs": True,
    # Debezium's topics mostly have one partition: by ranges, one worker would get them all.
    "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
    "session_timeout_ms": 6_000,  # the least a broker allows: a killed worker's partitions move on soon
    "heartbeat_interval_ms": 2_000,
    "metadata_max_age_ms": 2_000,
    "allow_auto_create_topics": False,
    "receive_message_max_bytes": 512 << 20,
    "receive_buffer_bytes": 1 << 20,
    "reconnect_backoff_max_ms": 1_000,
    "metrics_enabled": False,
    "client_id": "cdc-lake",
}


def fetching(budget: Budget) -> dict[str, Any]:
    """How much kafka-python asks for at once, compressed."""
    return {
        "fetch_max_bytes": max(budget.queued >> 1, 1 << 20),
        "max_partition_fetch_bytes": max(budget.queued >> 3, 64 << 10),
    }


class KafkaPythonBroker(GroupBroker):
    """The contract is `Broker`'s."""

    def __init__(self, bootstrap: str, group: str, options: Mapping[str, Any], wait: float, budget: Budget) -> None:
        """Connect within `wait` seconds. Raises UnavailableError, and ConfigError for an option that is not one."""
        super().__init__()
        self._bootstrap = bootstrap
        given = for_kafka_python(options)
        check_known(given)
        settings = {
            **_SETTINGS,
            **fetching(budget),
            **given,
            "bootstrap_servers": bootstrap.split(","),
            "group_id": group,
        }
        warn_if_readable_by_others(bootstrap, str(settings.get("security_protocol", "PLAINTEXT")))
        self._consumer = connect(bootstrap, settings, wait)
        fetcher = self._consumer._fetcher
        fetcher.PartitionRecords = ColumnarRecords
        fetcher._fetchable_partitions = partial(_fetchable, fetcher)
        self._cluster = self._consumer._client.cluster
        self._next_watch = 0.0
        self._poll_chunks = max(1, budget.polled // CHUNK_BYTES)
        self._closed = False

    def subscribe(self, pattern: str, assignment: Assignment) -> None:
        """Join the group for all topics whose whole name matches."""
        self._assignment = assignment
        self._consumer.subscribe(pattern=rf"(?:{pattern})\Z", listener=_Listener(self, self._consumer))

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Tell lag monitors what has landed."""
        offsets = {_theirs(tp): OffsetAndMetadata(offset, "", -1) for tp, offset in positions.items()}
        try:
            self._consumer.commit_async(offsets, callback=_log_failed_commit)
        except errors.KafkaError as error:
            log.debug("offsets not committed for monitors: %s", error)

    def partitions(self, pattern: str) -> list[PartitionInfo]:
        """All partitions of all topics that match."""
        self._refresh()
        return self._infos(
            TopicPartition(topic, number)
            for topic in self._cluster.topics()
            if re.fullmatch(pattern, topic)
            for number in self._cluster.partitions_for_topic(topic) or ()
        )

    def close(self) -> None:
        """Leave the group."""
        if self._closed:
            return
        self._closed = True
        try:
            self._consumer.close(autocommit=False, timeout_ms=_ASK_MS)
        except errors.KafkaError as error:
            log.debug("left the group without the broker's word: %s", error)

    def _read(self, timeout: float) -> Iterable[RecordBatch]:
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            # When new topics cause a rebalance and it outlives one poll, kafka-python 3.0 forgets to finish it.
            coordinator.request_rejoin()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=self._poll_chunks)
        except errors.OffsetOutOfRangeError as error:
            self._begin_anew(_ours(tp) for tp in error.args[0])
            return []
        except errors.LogTruncationError as error:
            self._begin_anew(_ours(tp) for tp in error.divergent_offsets)
            return []
        except errors.KafkaError as error:
            self._trouble = self._retriable(error)
            return []
        # It would ask for more only once all that came is read; so what comes next is under way while this is used.
        with contextlib.suppress(errors.KafkaError):
            self._consumer._fetcher.send_fetches()
        self._watch(bool(found))
        return [batch for tp, chunks in found.items() for batch in self._batches(_ours(tp), chunks)]

    def _batches(self, tp: TopicPartition, chunks: list[Chunk]) -> Iterable[RecordBatch]:
        for chunk in chunks:
            position = self._positions.get(tp)
            if chunk.start != position:  # fetched before a rebalance that is not settled yet
                if position is not None:
                    self._begin({tp: position})
                continue
            self._positions[tp] = chunk.end
            prefix, values = self._without_prefix(tp, chunk.values)
            yield record_batch(
                tp,
                chunk.start,
                chunk.end,
                offsets=chunk.offsets,
                timestamps=chunk.timestamps,
                keys=chunk.keys,
                values=values,
                prefix=prefix,
                headers=chunk.headers,
            )

    def _watch(self, found: bool) -> None:
        """Notice an outage, its end, and topics that were created again."""
        now = time.monotonic()
        if found:
            self._trouble = ""
        if now < self._next_watch:
            return
        self._next_watch = now + _WATCH_SECONDS
        connected = self._consumer._client._manager.least_used_connections()
        self._trouble = "" if connected else f"no connection to {self._bootstrap}"
        topics = {tp.topic for tp in self._held}
        self._begin_anew(self._recreated({topic: self._topic_id(topic) for topic in topics}))

    def _begin_anew(self, partitions: Iterable[TopicPartition]) -> None:
        anew = set(partitions)
        self._pause(anew)
        self.note_assigned(anew)

    def _describe(self, partitions: Collection[TopicPartition]) -> list[PartitionInfo] | None:
        try:
            self._refresh()
            return self._infos(partitions)
        except UnavailableError as error:
            if error.code != failures.NO_ANSWER:
                raise
            self._trouble = error.why
            return None

    def _infos(self, partitions: Iterable[TopicPartition]) -> list[PartitionInfo]:
        existing = sorted(
            tp for tp in partitions if tp.partition in (self._cluster.partitions_for_topic(tp.topic) or ())
        )
        theirs = [_theirs(tp) for tp in existing]
        try:
            beginnings = self._consumer.beginning_offsets(theirs, timeout_ms=_ASK_MS) if theirs else {}
            ends = self._consumer.end_offsets(theirs, timeout_ms=_ASK_MS) if theirs else {}
        except errors.KafkaError as error:
            raise failures.no_answer(self._bootstrap, self._retriable(error)) from None
        return [
            PartitionInfo(tp, beginnings[key], ends[key], self._topic_id(tp.topic))
            for tp, key in zip(existing, theirs, strict=True)
        ]

    def _topic_id(self, topic: str) -> str:
        """The id as Kafka's tools and librdkafka write it, so that it stays the same when the client changes."""
        uuid = self._cluster.topic_id(topic)
        return base64.urlsafe_b64encode(uuid.bytes).rstrip(b"=").decode() if uuid else ""

    def _refresh(self) -> None:
        """Ask for the topics there are now."""
        manager = self._consumer._client._manager
        try:
            if self._cluster.metadata_refresh_in_progress:  # its answer may be older than the question
                manager.run(manager.wait_for, self._cluster.request_update(), _ASK_MS)
            manager.run(manager.wait_for, self._cluster.request_update(), _ASK_MS)
        except errors.KafkaError as error:
            raise failures.no_answer(self._bootstrap, self._retriable(error)) from None

    def _begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        held = self._consumer.assignment()
        for tp, offset in offsets.items():
            if (theirs := _theirs(tp)) in held:
                self._consumer.seek(theirs, offset)
                if tp not in self._paused:
                    self._consumer.resume(theirs)

    def _pause(self, partitions: Collection[TopicPartition]) -> None:
        held = self._consumer.assignment()
        self._consumer.pause(*(theirs for tp in partitions if (theirs := _theirs(tp)) in held))

    def _resume(self, partitions: Collection[TopicPartition]) -> None:
        held = self._consumer.assignment()
        self._consumer.resume(*(theirs for tp in partitions if (theirs := _theirs(tp)) in held))

    def _retriable(self, error: errors.KafkaError) -> str:
        """In words, what is being waited for; raises what waiting does not mend."""
        if (known := named(self._bootstrap, error)) is not None:
            raise known from None
        return str(error) or type(error).__name__


def _fetchable(fetcher: Any) -> list[KafkaPartition]:
    """The partitions to ask for now: none of a broker that sent records which are still to be read.

    kafka-python asks a broker once at a time, and would ask now for its other partitions alone. When these are idle, as
    the transactions' topic is at the end of a snapshot, the broker holds that request for `fetch_max_wait_ms`, and all
    that is behind it.
    """
    found: list[KafkaPartition] = type(fetcher)._fetchable_partitions(fetcher)
    unread = {fetch.topic_partition for fetch in fetcher._completed_fetches.copy()}
    if current := fetcher._next_partition_records:
        unread.add(current.topic_partition)
    assigned = fetcher._subscriptions.assignment
    busy = {fetcher._select_read_replica(tp) for tp in unread if tp in assigned}
    return [tp for tp in found if fetcher._select_read_replica(tp) not in busy] if busy else found


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on kafka-python's network thread."""

    def __init__(self, broker: KafkaPythonBroker, consumer: KafkaConsumer) -> None:
        self._broker, self._consumer = broker, consumer

    def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        for tp in assigned:
            self._consumer.pause(tp)
            # Any position will do while it is paused; without one kafka-python would look for a committed offset.
            self._consumer.seek(tp, 0)
        self._broker.note_assigned(map(_ours, assigned))

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        self._broker.note_revoked(map(_ours, revoked))


def _log_failed_commit(_offsets: Any, result: Any) -> None:
    if isinstance(result, Exception):
        log.debug("offsets not committed for monitors: %s", result)


def _ours(tp: KafkaPartition) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)


def _theirs(tp: TopicPartition) -> KafkaPartition:
    return KafkaPartition(tp.topic, tp.partition)
