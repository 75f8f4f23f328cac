"""`replay --into topic:…` on a real broker: all events, in order, by key, and known again by their headers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.consumer.fetcher import ConsumerRecord

from cdc_lake.events import TableId
from tests.commands import run
from tests.integration.conftest import RunningStack
from tests.lake_model import Feed

pytestmark = pytest.mark.stack

A = TableId("public", "a")
KEYS = 40


@pytest.fixture
def feed(stack: RunningStack, tmp_path: Path) -> Feed:
    """Forty rows, each inserted, changed, and the even ones deleted, in transactions of their own."""
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: ./lake}}\nkafka: {{bootstrap: '{stack.bootstrap}'}}\n")
    feed = Feed(tmp_path, (A,), partitions=3)
    for key in range(KEYS):
        for change in ("insert", "update", *(["delete"] if key % 2 == 0 else [])):
            tx = feed.begin()
            if change == "insert":
                tx.insert(A, key, 0, "x")
            elif change == "update":
                tx.update(A, key, 1)
            else:
                tx.delete(A, key)
            tx.commit()
    feed.land()
    return feed


@pytest.fixture
def topic(stack: RunningStack) -> Iterator[str]:
    name = f"again_{uuid.uuid4().hex[:10]}"
    yield name
    admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap)
    if name in admin.list_topics():
        admin.delete_topics([name])
    admin.close()


def read(stack: RunningStack, topic: str) -> list[ConsumerRecord]:
    consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap, enable_auto_commit=False)
    try:
        places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends, found = consumer.end_offsets(places), []
        while any(consumer.position(p) < ends[p] for p in places):
            found += [r for records in consumer.poll(timeout_ms=1000).values() for r in records]
        return found
    finally:
        consumer.close()


def test_a_topic_gets_every_event_in_the_order_of_the_source(
    stack: RunningStack, feed: Feed, topic: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = run(feed.folder, "replay", "a", "--into", f"topic:{topic}", capfd=capfd)
    assert (code, said["written"], said["topic_made"]) == (0, KEYS * 2 + KEYS // 2, True)
    found = read(stack, topic)
    assert {r.partition for r in found} == {0}
    assert [(json.loads(r.key)["id"], json.loads(r.value)["op"]) for r in found] == [
        (key, op) for key in range(KEYS) for op in ("c", "u", *("d" * (key % 2 == 0)))
    ]
    headers = [dict(r.headers) for r in found]
    assert {h["replay.id"].decode() for h in headers} == {said["replay_id"]}
    assert len({(h["replay.topic"], h["replay.partition"], h["replay.offset"]) for h in headers}) == len(found)


def test_a_topic_of_many_partitions_keeps_the_order_of_each_row(
    stack: RunningStack, feed: Feed, topic: str, capfd: pytest.CaptureFixture[str]
) -> None:
    admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=1)])
    admin.close()
    runs = [run(feed.folder, "replay", "a", "--into", f"topic:{topic}", capfd=capfd)[1] for _ in range(2)]
    assert [r["topic_made"] for r in runs] == [False, False]
    by_row: dict[tuple[str, int], list[str]] = {}
    for record in read(stack, topic):
        place = dict(record.headers)["replay.id"].decode(), json.loads(record.key)["id"]
        by_row.setdefault(place, []).append(json.loads(record.value)["op"])
    assert by_row == {(r["replay_id"], key): ["c", "u", *("d" * (key % 2 == 0))] for r in runs for key in range(KEYS)}
