"""The in-memory Kafka: the Broker contract, and the faults that only it can make."""

from __future__ import annotations

import pytest

from cdc_lake.consume import CONNECTED
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import UnavailableError
from cdc_lake.events import TopicPartition
from tests.broker_contract import BrokerContract, numbered, subscribed, values
from tests.brokers import Memory

A = TopicPartition("a", 0)


class TestMemory(BrokerContract):
    @pytest.fixture
    def kafka(self) -> Memory:
        return Memory()


def kafka_with(count: int) -> MemoryKafka:
    kafka = MemoryKafka()
    kafka.create_topic("a")
    for key, value in numbered(0, count):
        kafka.produce("a", 0, key, value)
    return kafka


def test_an_outage_is_silence_with_a_reason_and_reading_goes_on_after_it() -> None:
    kafka = kafka_with(2)
    reader = subscribed(kafka.broker(), "a")
    reader.drain("a")
    kafka.produce("a", 0, *numbered(2, 1)[0])
    kafka.outage = "connection refused"
    assert reader.poll() == []
    assert "connection refused" in reader.broker.state
    with pytest.raises(UnavailableError):
        reader.broker.partitions("a")
    kafka.outage = None
    reader.drain("a")
    assert reader.values("a") == values(0, 3)
    assert reader.broker.state == CONNECTED


def test_a_poll_returns_no_more_records_than_it_may() -> None:
    kafka = kafka_with(25)
    reader = subscribed(kafka.broker(max_records=10), "a")
    assert [len(batch) for _ in range(4) for batch in reader.poll()] == [10, 10, 5]


def test_a_rebalance_on_demand_takes_partitions_away_and_gives_them_back() -> None:
    kafka = kafka_with(3)
    reader = subscribed(kafka.broker("g"), "a")
    reader.drain("a")
    kafka.rebalance("g")
    reader.poll()
    assert reader.gone == [A]
    assert len(reader.infos) == 2


def test_a_crashed_member_loses_its_partitions_without_being_told() -> None:
    kafka = kafka_with(3)
    one = subscribed(broker := kafka.broker(), "a")
    one.drain("a")
    two = subscribed(kafka.broker(), "a")
    kafka.crash(broker)
    two.drain("a")
    assert one.gone == []
    assert one.poll() == []
    assert two.values("a") == values(0, 3)


def test_a_partition_moves_only_after_its_owner_let_go() -> None:
    kafka = kafka_with(3)
    kafka.create_topic("b")
    one = subscribed(kafka.broker(), "a|b")
    one.drain("a")
    two = subscribed(kafka.broker(), "a|b")
    assert two.poll() == []
    assert two.held == {}
    one.poll()
    two.poll()
    assert len(one.held) == len(two.held) == 1
