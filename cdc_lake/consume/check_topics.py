"""Checks of the broker and of a source's topics: will every record still be there when the sink comes for it?"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_lake.checks import Check, fail, failed, listed, many, ok, span, warn
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.consume.broker import PartitionInfo
from cdc_lake.consume.topics import TopicFacts, Topics
from cdc_lake.errors import OffsetsExpired, PartitionError, TopicRecreated
from cdc_lake.events import TopicPartition

_TOPIC_IDS_FROM = (2, 8)
# Shares of a topic's retention that the oldest unlanded record may have used up.
_WARN_SHARE, _FAIL_SHARE = 0.5, 0.8
_QUIET_SECONDS = 60.0
_FLUSHES = 10


@dataclass(frozen=True, slots=True)
class Landed:
    """What the lake holds of the topics: the next offset of each partition, and why some cannot be read on.

    `known` are the topics that were read before, `newest_age` is the age of the newest commit in seconds, None when
    nothing has landed.
    """

    positions: Mapping[TopicPartition, int]
    stopped: Mapping[TopicPartition, PartitionError] = field(default_factory=dict)
    known: Collection[str] = ()
    newest_age: float | None = None


@dataclass(frozen=True, slots=True)
class Unlanded:
    """Of one topic: how much of its retention the oldest unlanded record has used up, as far as it is known.

    `aged` is the larger of the shares (0.5, 0.8) of retention.ms that it has passed (0: none), `filled` its share of
    retention.bytes.
    """

    topic: str
    records: int
    aged: float
    filled: float


def check_broker(facts: TopicFacts) -> Check:
    """Judge the broker's version."""
    version = ".".join(map(str, facts.version))
    if facts.version < _TOPIC_IDS_FROM:
        return warn(
            "broker.version",
            f"Kafka {version}",
            why="Topics have no ids yet: one that was deleted and made again is noticed only when it is shorter.",
            fix="upgrade the brokers to Kafka 2.8 or later",
        )
    return ok("broker.version", f"Kafka {version}")


def check_topics(
    connector: ConnectorFile, infos: Sequence[PartitionInfo], facts: TopicFacts, landed: Landed
) -> list[Check]:
    """Judge the topics of a source against what the lake holds of them."""
    return [
        _found(connector, infos),
        _gone(infos, landed),
        _cleanup(facts),
        _stopped("topics.recreated", "every topic is the one that was read before", TopicRecreated, landed),
        _stopped("topics.expired", "no record expired before it was landed", OffsetsExpired, landed),
        _partitions(connector, infos),
    ]


def check_event_topics(
    topics: Sequence[str], infos: Sequence[PartitionInfo], facts: TopicFacts, landed: Landed
) -> list[Check]:
    """Judge the topics of a source of events against what the lake holds of them."""
    missing = sorted(set(topics) - {info.tp.topic for info in infos})
    there = ok("topics.exist", f"{many(len(topics), 'topic')}, {many(len(infos), 'partition')}")
    if missing:
        there = warn(
            "topics.exist",
            f"not there: {listed(missing)}",
            why="Nobody has sent an event yet, or the name is another one.",
            fix="send one, or correct `events` in cdc-lake.yaml",
        )
    return [
        there,
        _gone(infos, landed),
        _cleanup(facts),
        _stopped("topics.recreated", "every topic is the one that was read before", TopicRecreated, landed),
        _stopped("topics.expired", "no record expired before it was landed", OffsetsExpired, landed),
    ]


def check_retention(unlanded: Sequence[Unlanded], facts: TopicFacts) -> Check:
    """Will the records that wait be landed before Kafka deletes them?"""
    name = "topics.retention"
    worst = max((max(u.aged, u.filled) for u in unlanded), default=0.0)
    if worst < _WARN_SHARE:
        kept = [s.retention_ms for s in facts.settings.values() if s.retention_ms is not None]
        return ok(name, f"kept for {span(min(kept) / 1000)} at least" if kept else "kept without limit of time")
    late = [u for u in unlanded if max(u.aged, u.filled) >= _WARN_SHARE]
    judge = fail if worst >= _FAIL_SHARE else warn
    first = late[0].topic
    return judge(
        name,
        listed(f"{u.topic}: {many(u.records, 'record')} not landed, {_share(u)}" for u in late),
        why="Kafka deletes them when the topic's retention is over, landed or not.",
        fix="cdc-lake sink run   and, to gain time: " + _alter(facts, first, "retention.ms=-1,retention.bytes=-1"),
    )


def check_lag(infos: Sequence[PartitionInfo], landed: Landed, *, flush_seconds: float) -> Check:
    """Does a sink run? Records that wait beside a lake that nobody writes say no."""
    name, waiting = "sink.lag", sum(waiting_records(infos, landed).values())
    age = landed.newest_age
    found = f"{many(waiting, 'record')} not landed; " + (
        "nothing has landed" if age is None else f"newest commit {span(age)} ago"
    )
    if waiting and (age is None or age > max(_QUIET_SECONDS, _FLUSHES * flush_seconds)):
        return warn(name, found, why="No sink is at work.", fix="cdc-lake sink run")
    return ok(name, found)


def waiting_records(infos: Sequence[PartitionInfo], landed: Landed) -> dict[TopicPartition, int]:
    """Records that are in Kafka and not in the lake, by partition, where there are some."""
    lag = {i.tp: i.end - max(landed.positions.get(i.tp, i.beginning), i.beginning) for i in infos}
    return {tp: count for tp, count in lag.items() if count > 0 and tp not in landed.stopped}


def measure(topics: Topics, infos: Sequence[PartitionInfo], facts: TopicFacts, landed: Landed) -> list[Unlanded]:
    """How old and how large what waits is, beside its topics' retention. Raises CdcLakeError when Kafka refuses."""
    waiting = waiting_records(infos, landed)
    by_tp = {info.tp: info for info in infos}
    aged: dict[TopicPartition, float] = {}
    now = int(time.time() * 1000)
    for share in (_WARN_SHARE, _FAIL_SHARE):
        instants = {
            tp: now - int(limit * share)
            for tp in waiting
            if (s := facts.settings.get(tp.topic)) is not None and (limit := s.retention_ms) is not None
        }
        for tp, first_young in topics.offsets_at(instants).items():
            position = max(landed.positions.get(tp, 0), by_tp[tp].beginning)
            if first_young is None or position < first_young:
                aged[tp] = share
    return [
        Unlanded(tp.topic, count, aged.get(tp, 0.0), _filled(by_tp[tp], count, facts)) for tp, count in waiting.items()
    ]


def _filled(info: PartitionInfo, count: int, facts: TopicFacts) -> float:
    """The share of retention.bytes that unlanded records take, each taken to be of average size."""
    settings, held = facts.settings.get(info.tp.topic), facts.bytes.get(info.tp)
    records = info.end - info.beginning
    if settings is None or not settings.retention_bytes or held is None or records <= 0:
        return 0.0
    return held * count / records / settings.retention_bytes


def _share(unlanded: Unlanded) -> str:
    if unlanded.filled > unlanded.aged:
        return f"{unlanded.filled:.0%} of retention.bytes"
    return f"the oldest has used up {unlanded.aged:.0%} of retention.ms"


def _found(connector: ConnectorFile, infos: Sequence[PartitionInfo]) -> Check:
    topics = {info.tp.topic for info in infos}
    if not topics:
        return warn(
            "topics.exist",
            f"no topic begins with {connector.topic_prefix}{connector.delimiter}",
            why="The connector has sent nothing yet.",
            fix=f"cdc-lake connector status {connector.name}",
        )
    transactions = connector.transaction_topic
    if transactions is not None and transactions not in topics:
        return warn(
            "topics.exist",
            f"{many(len(topics), 'topic')}, but no {transactions}",
            why="No transaction has arrived: without their ends nothing of the stream is shown at the cut.",
            fix=f"cdc-lake connector status {connector.name}",
        )
    return ok("topics.exist", f"{many(len(topics), 'topic')}, {many(len(infos), 'partition')}")


def _gone(infos: Sequence[PartitionInfo], landed: Landed) -> Check:
    gone = sorted(set(landed.known) - {info.tp.topic for info in infos})
    if not gone:
        return ok("topics.landed", "every topic that was read is there")
    return warn(
        "topics.landed",
        f"read before and gone: {listed(gone)}",
        why="What was landed stays; if the table is still captured, what was in the topic and not landed is lost.",
        fix="cdc-lake verify   and, where it finds differences: cdc-lake connector snapshot NAME TABLE",
    )


def _cleanup(facts: TopicFacts) -> Check:
    compacted = sorted(topic for topic, s in facts.settings.items() if "compact" in s.policies)
    if not compacted:
        return ok("topics.cleanup", "none is compacted")
    return warn(
        "topics.cleanup",
        f"compacted: {listed(compacted)}",
        why="Compaction removes changes: only the last one of a key is sure to be there when the sink comes.",
        fix=_alter(facts, compacted[0], "cleanup.policy=delete"),
    )


def _alter(facts: TopicFacts, topic: str, settings: str) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server {facts.bootstrap} --alter --entity-type topics --entity-name {topic} "
        f"--add-config {settings}"
    )


def _stopped(name: str, good: str, kind: type[PartitionError], landed: Landed) -> Check:
    errors = [error for _, error in sorted(landed.stopped.items()) if isinstance(error, kind)]
    if not errors:
        return ok(name, good)
    first = failed(name, errors[0])
    return fail(
        name,
        first.found + (f" (and {len(errors) - 1} more partitions)" if len(errors) > 1 else ""),
        why=first.why,
        fix=first.fix,
    )


def _partitions(connector: ConnectorFile, infos: Sequence[PartitionInfo]) -> Check:
    name = "topics.partitions"
    wanted = connector.config.get("topic.creation.default.partitions", "")
    if not wanted.isdigit() or "topic.creation.groups" in connector.config:
        return ok(name, "the connector does not say how many there should be")
    counts: dict[str, int] = {}
    for info in infos:
        counts[info.tp.topic] = counts.get(info.tp.topic, 0) + 1
    more = sorted(f"{topic} has {count}" for topic, count in counts.items() if count > int(wanted))
    if not more:
        return ok(name, f"{wanted} a topic, as the connector says")
    return warn(
        name,
        f"more than {wanted}: {listed(more)}",
        why="Added later, they part the changes of one key: old ones lie in one partition, new ones in another. "
        "With transaction metadata the order is still the source's; without it, it is not.",
        fix='write the number as "topic.creation.default.partitions" in the connector file; where '
        '"provide.transaction.metadata" is not "true", set it too',
    )
