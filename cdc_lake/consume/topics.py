"""What an administrator's client tells of topics: their settings, their size, and which records are how old.

kafka-python is always installed, so it asks, whichever client the sink reads with.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import TopicPartition as KafkaPartition
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from cdc_lake.consume import failures
from cdc_lake.consume.options import for_kafka_python
from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TopicPartition

logging.getLogger("kafka").addHandler(logging.NullHandler())  # errors say it in words

_WAIT_MS = 10_000
_KEYS = ("cleanup.policy", "retention.ms", "retention.bytes")


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """Of one topic: its cleanup policies, and how long (ms) and how much (bytes) it keeps; None: without limit."""

    policies: frozenset[str]
    retention_ms: int | None
    retention_bytes: int | None


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """`version` of the broker at `bootstrap`, settings by topic, bytes on disk by partition (none: not known)."""

    bootstrap: str = ""
    version: tuple[int, ...] = ()
    settings: Mapping[str, TopicSettings] = field(default_factory=dict)
    bytes: Mapping[TopicPartition, int] = field(default_factory=dict)


class Topics:
    """An administrator's connection. Raises CdcLakeError in words when Kafka refuses or does not answer."""

    def __init__(self, bootstrap: str, client: KafkaAdminClient) -> None:
        self._bootstrap, self._admin = bootstrap, client

    def read(self, topics: Collection[str]) -> TopicFacts:
        """Version, settings and sizes."""
        with _explained(self._bootstrap):
            brokers = self._admin.describe_cluster()["brokers"]
            version = self._admin.get_broker_version_data(brokers[0]["broker_id"]).broker_version
            if not topics:
                return TopicFacts(self._bootstrap, tuple(version))
            return TopicFacts(self._bootstrap, tuple(version), self._settings(topics), self._sizes(topics))

    def offsets_at(self, instants: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """For each partition the offset of the first record as young as an instant (ms); None when all are older."""
        asked = {KafkaPartition(tp.topic, tp.partition): instant for tp, instant in instants.items()}
        if not asked:
            return {}
        with _explained(self._bootstrap):
            found = self._admin.list_partition_offsets(asked, timeout_ms=_WAIT_MS)
        return {
            TopicPartition(tp.topic, tp.partition): answer.offset if answer.offset >= 0 else None
            for tp, answer in found.items()
        }

    def _settings(self, topics: Collection[str]) -> dict[str, TopicSettings]:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, t, dict.fromkeys(_KEYS)) for t in sorted(topics)]
        answer = self._admin.describe_configs(wanted, config_filter="all")
        found: Mapping[str, Mapping[str, Any]] = answer.get("topic", {})
        return {
            topic: _read_settings({k: str(v["value"]) for k, v in values.items()}) for topic, values in found.items()
        }

    def _sizes(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        try:
            answer: Sequence[Mapping[str, Any]] = self._admin.describe_log_dirs(sorted(topics))
        except errors.KafkaError:
            return found  # another right than reading settings needs, and only a bonus
        for folder in (folder for broker in answer for folder in broker["log_dirs"]):
            for topic in folder["topics"]:
                for partition in topic["partitions"]:
                    tp = TopicPartition(topic["name"], partition["partition_index"])
                    # Replicas hold the same records; retention counts each alone.
                    found[tp] = max(found.get(tp, 0), partition["partition_size"])
        return found


@contextlib.contextmanager
def open_topics(bootstrap: str, options: Mapping[str, Any]) -> Iterator[Topics]:
    """Connect with those of the sink's client options that an administrator's client has."""
    known = KafkaAdminClient.DEFAULT_CONFIG
    given = {k: v for k, v in for_kafka_python(options).items() if k in known}
    settings = {"client_id": "cdc-lake-doctor", "bootstrap_timeout_ms": _WAIT_MS, **given}
    with _explained(bootstrap):
        client = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), **settings)
    try:
        yield Topics(bootstrap, client)
    finally:
        client.close()


def _read_settings(values: Mapping[str, str]) -> TopicSettings:
    return TopicSettings(
        frozenset(p.strip() for p in values.get("cleanup.policy", "").split(",") if p.strip()),
        _limit(values.get("retention.ms")),
        _limit(values.get("retention.bytes")),
    )


def _limit(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() and int(text) >= 0 else None


@contextlib.contextmanager
def _explained(bootstrap: str) -> Iterator[None]:
    try:
        yield
    except errors.KafkaError as error:
        raise _in_words(bootstrap, error) from None


def _in_words(bootstrap: str, error: errors.KafkaError) -> CdcLakeError:
    detail = str(error) or type(error).__name__
    if isinstance(error, errors.AuthorizationError):
        return failures.no_rights(bootstrap, detail)
    return failures.no_answer(bootstrap, detail)
