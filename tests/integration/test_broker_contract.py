"""The Broker contract over a real Kafka, once for each client; the in-memory one is in tests/unit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from cdc_lake.budget import Budget
from tests.broker_contract import BrokerContract, numbered, subscribed, values
from tests.brokers import Real

pytestmark = pytest.mark.stack


@pytest.fixture(params=["kafka-python", "confluent"])
def kafka(stack: Any, request: pytest.FixtureRequest) -> Iterator[Real]:
    if request.param == "confluent":
        pytest.importorskip("confluent_kafka")
    real = Real(stack.bootstrap, request.param)
    yield real
    real.close()


class TestReal(BrokerContract):
    pass


def test_records_of_an_open_transaction_wait_for_its_commit(kafka: Real) -> None:
    topic = f"{kafka.prefix}.a"
    kafka.create(topic)
    kafka.produce(topic, 0, numbered(0, 2))
    producer = kafka.begin(topic, 0, numbered(2, 3))
    reader = subscribed(kafka.broker(), topic)
    assert [info.end for info in reader.broker.partitions(topic)] == [2]
    reader.drain(topic)
    assert reader.values(topic) == values(0, 2)
    producer.commit_transaction()
    reader.until(lambda: len(reader.values(topic)) == 5, "the committed records")
    reader.drain(topic)
    assert reader.values(topic) == values(0, 5)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_read(kafka: Real, codec: str) -> None:
    topic = f"{kafka.prefix}.a"
    kafka.create(topic)
    kafka.produce(topic, 0, numbered(0, 500), config={"compression.type": codec})
    reader = subscribed(kafka.broker(), topic)
    reader.starts[next(iter(reader.broker.partitions(topic))).tp] = 123
    reader.drain(topic)
    assert reader.values(topic) == values(123, 377)


def test_a_message_larger_than_a_fetch_is_read(kafka: Real) -> None:
    topic, size = f"{kafka.prefix}.a", 80 << 20
    kafka.create(topic, config={"max.message.bytes": str(100 << 20)})
    kafka.produce(topic, 0, [(b"k", b"x" * size), (b"l", b"y")], config={"message.max.bytes": 100 << 20})
    reader = subscribed(kafka.broker(), topic)
    reader.drain(topic)
    assert [len(value or b"") for value in reader.values(topic)] == [size, 1]


def test_an_idle_topic_does_not_hold_up_a_busy_one(kafka: Real) -> None:
    """A broker holds a request for idle partitions alone as long as it may, and answers nothing else meanwhile."""
    busy, idle, rows = f"{kafka.prefix}.busy", f"{kafka.prefix}.idle", 150
    kafka.create(busy)
    kafka.create(idle)
    # A fetch brings much more, compressed, than a poll takes.
    values = [random.Random(n).randbytes(5_000) * 180 for n in range(rows)]
    kafka.produce(busy, 0, [(b"k", value) for value in values], config={"compression.type": "zstd"})
    small = Budget.of(memory_mb=448, flush_mb=64)
    reader = subscribed(kafka.broker(budget=small, fetch_max_wait_ms=25_000), rf"{kafka.prefix}\..*")
    reader.until(lambda: len(reader.values(busy)) == rows, "all records of the busy topic")
    assert reader.values(busy) == values


def test_the_topic_id_is_the_same_text_with_every_client(stack: Any) -> None:
    pytest.importorskip("confluent_kafka")
    one, two = Real(stack.bootstrap, "kafka-python"), Real(stack.bootstrap, "confluent")
    for number in range(12):  # two spellings of an id differ in two characters of 64
        one.create(f"{one.prefix}.{number}")
    try:
        found = one.broker().partitions(rf"{one.prefix}\..*")
        assert len({info.topic_id for info in found}) == 12
        assert found == two.broker().partitions(rf"{one.prefix}\..*")
    finally:
        one.close()
        two.close()
