"""The Broker contract as tests: each implementation subclasses `BrokerContract` and gives it a `kafka` fixture."""

from __future__ import annotations

import json
import threading

import pytest

from cdc_lake.consume import CONNECTED, Broker
from cdc_lake.events import TopicPartition
from tests.brokers import Kafka, Reader, Row


def numbered(first: int, count: int) -> list[Row]:
    return [(b'{"id":%d}' % n, b'{"n":%d}' % n) for n in range(first, first + count)]


def values(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(first, first + count)]


def subscribed(broker: Broker, pattern: str) -> Reader:
    reader = Reader(broker)
    broker.subscribe(pattern, reader)
    return reader


class BrokerContract:
    def test_every_record_arrives_once_in_order_and_unchanged(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        rows: list[Row] = [
            (b"k", b"v"),
            (None, b"no key"),
            (b"tombstone", None),
            (None, None),
            (b"", b""),
            (b"\xff", b"\0" * 3),
        ]
        kafka.produce(topic, 0, [*rows, *numbered(0, 2000)])
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        found = reader.rows[TopicPartition(topic, 0)]
        assert [(key, value) for _, key, value in found] == [*rows, *numbered(0, 2000)]
        assert [offset for offset, _, _ in found] == list(range(2006))
        assert all(stamp > 1_600_000_000_000 for batch in reader.batches for stamp in batch.timestamps.to_pylist())
        assert all(batch.headers is None for batch in reader.batches)
        assert reader.broker.state == CONNECTED

    def test_headers_are_json_beside_records_that_have_them(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 2))
        kafka.produce(topic, 0, numbered(2, 1), headers=[("__debezium.newkey", b'{"id":"\xc3\xa4"}'), ("none", None)])
        kafka.produce(topic, 0, numbered(3, 1))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        found = [text for b in reader.batches for text in (b.headers.to_pylist() if b.headers else [None] * len(b))]
        assert [text and json.loads(text) for text in found] == [
            None,
            None,
            {"__debezium.newkey": '{"id":"ä"}', "none": None},
            None,
        ]

    def test_reading_begins_where_the_pipeline_says(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic, 2)
        for partition in (0, 1):
            kafka.produce(topic, partition, numbered(0, 100))
        broker = kafka.broker()
        reader = Reader(broker, starts={TopicPartition(topic, 0): 37, TopicPartition(topic, 1): 100})
        broker.subscribe(topic, reader)
        reader.drain(topic)
        assert reader.values(topic, 0) == values(37, 63)
        assert reader.values(topic, 1) == []
        kafka.produce(topic, 1, numbered(100, 1))
        reader.drain(topic)
        assert reader.values(topic, 1) == values(100, 1)

    def test_a_partition_left_out_is_not_read_until_it_is_sought_and_resumed(self, kafka: Kafka) -> None:
        topic, left_out = f"{kafka.prefix}.a", TopicPartition(f"{kafka.prefix}.a", 0)
        kafka.create(topic, 2)
        for partition in (0, 1):
            kafka.produce(topic, partition, numbered(0, 10))
        broker = kafka.broker()
        reader = Reader(broker, starts={left_out: None})
        broker.subscribe(topic, reader)
        reader.until(lambda: len(reader.values(topic, 1)) == 10, "the other partition")
        kafka.produce(topic, 1, numbered(10, 1))
        reader.until(lambda: len(reader.values(topic, 1)) == 11, "one more record of the other partition")
        assert reader.values(topic, 0) == []
        reader.seek(left_out, 4)
        kafka.produce(topic, 1, numbered(11, 1))
        reader.until(lambda: len(reader.values(topic, 1)) == 12, "one more record of the other partition")
        assert reader.values(topic, 0) == []
        broker.resume([left_out])
        reader.drain(topic)
        assert reader.values(topic, 0) == values(4, 6)

    def test_aborted_transactions_are_skipped_and_covered(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 3))
        kafka.produce_aborted(topic, 0, numbered(900, 5))
        kafka.produce_committed(topic, 0, numbered(3, 3))
        kafka.produce_aborted(topic, 0, numbered(900, 5))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        assert reader.values(topic) == values(0, 6)
        [info] = reader.broker.partitions(topic)
        assert reader.held[info.tp] == info.end == 3 + 6 + 4 + 6

    def test_control_records_at_the_end_are_covered_by_a_batch_without_records(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 1))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        kafka.produce_aborted(topic, 0, numbered(900, 2))
        # A real coordinator answers before its marker is in the partition.
        reader.until(lambda: reader.batches[-1].end == 4, "the end of the transaction")
        assert reader.values(topic) == values(0, 1)
        assert len(reader.batches[-1]) == 0

    def test_a_paused_partition_is_silent_and_goes_on_where_it_stopped(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic, 2)
        for partition in (0, 1):
            kafka.produce(topic, partition, numbered(0, 10))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        reader.broker.pause([TopicPartition(topic, 0), TopicPartition("not.held", 0)])
        for partition in (0, 1):
            kafka.produce(topic, partition, numbered(10, 10))
        reader.until(lambda: len(reader.values(topic, 1)) == 20, "the partition that is not paused")
        assert reader.values(topic, 0) == values(0, 10)
        reader.broker.resume([TopicPartition(topic, 0), TopicPartition("not.held", 0)])
        reader.drain(topic)
        assert reader.values(topic, 0) == values(0, 20)

    def test_a_seek_reads_again_from_there_also_while_paused(self, kafka: Kafka) -> None:
        topic, tp = f"{kafka.prefix}.a", TopicPartition(f"{kafka.prefix}.a", 0)
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 10))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        reader.seek(tp, 7)
        reader.drain(topic)
        assert reader.values(topic) == values(0, 10) + values(7, 3)
        reader.broker.pause([tp])
        reader.seek(tp, 9)
        reader.broker.resume([tp])
        reader.drain(topic)
        assert reader.values(topic) == values(0, 10) + values(7, 3) + values(9, 1)
        reader.broker.seek(TopicPartition("not.held", 0), 3)

    def test_the_pattern_matches_whole_names(self, kafka: Kafka) -> None:
        for name in ("a", "ab", "x.a"):
            kafka.create(f"{kafka.prefix}.{name}")
            kafka.produce(f"{kafka.prefix}.{name}", 0, numbered(0, 1))
        pattern = rf"{kafka.prefix}\.(a|(?:x)\.\w)"
        reader = subscribed(kafka.broker(), pattern)
        reader.drain(pattern)
        assert sorted(tp.topic for tp in reader.rows) == [f"{kafka.prefix}.a", f"{kafka.prefix}.x.a"]
        assert [info.tp.topic for info in reader.broker.partitions(pattern)] == sorted(tp.topic for tp in reader.rows)

    @pytest.mark.parametrize("timeout", [0.5, 0.01], ids=["long polls", "polls shorter than a rebalance"])
    def test_topics_and_partitions_that_appear_are_read_from_their_beginning(
        self, kafka: Kafka, timeout: float
    ) -> None:
        first, second, pattern = f"{kafka.prefix}.a", f"{kafka.prefix}.b", rf"{kafka.prefix}\..*"
        reader = subscribed(kafka.broker(), pattern)
        reader.timeout = timeout
        reader.poll()
        kafka.create(first)
        kafka.produce(first, 0, numbered(0, 3))
        reader.until(lambda: len(reader.values(first)) >= 3, "the first topic")
        kafka.create(second)
        kafka.produce(second, 0, numbered(0, 4))
        reader.until(lambda: len(reader.values(second)) >= 4, "the second topic")
        kafka.create(second, 2)
        kafka.produce(second, 1, numbered(0, 5))
        reader.until(lambda: len(reader.values(second, 1)) >= 5, "the second partition")
        assert reader.values(second, 1)[:5] == values(0, 5)
        assert len(reader.held) == 3

    def test_members_share_partitions_and_take_over_from_one_that_leaves(self, kafka: Kafka) -> None:
        topics = [f"{kafka.prefix}.{name}" for name in "abcd"]  # one partition each, as Debezium's mostly are
        for topic in topics:
            kafka.create(topic)
            kafka.produce(topic, 0, numbered(0, 5))
        pattern = rf"{kafka.prefix}\.[a-d]"
        one = subscribed(kafka.broker(), pattern)
        one.drain(pattern)
        two = subscribed(kafka.broker(), pattern)
        two.until(lambda: one.poll() is not None and len(one.held) == len(two.held) == 2, "an even share")
        assert sorted(tp.topic for tp in [*one.held, *two.held]) == topics
        assert len(one.gone) == 4
        two.broker.close()
        one.until(lambda: len(one.held) == 4, "all partitions again")
        one.drain(pattern)

    def test_what_retention_took_is_asked_for_anew_and_other_partitions_go_on(self, kafka: Kafka) -> None:
        topic, short = f"{kafka.prefix}.a", TopicPartition(f"{kafka.prefix}.a", 0)
        kafka.create(topic, 2)
        for partition in (0, 1):
            kafka.produce(topic, partition, numbered(0, 10))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        kafka.delete_before(topic, 0, 8)
        reader.starts[short] = None
        reader.infos.clear()
        reader.seek(short, 3)
        reader.until(lambda: bool(reader.infos), "the question where to go on")
        assert [(info.tp, info.beginning, info.end) for info in reader.infos] == [(short, 8, 10)]
        kafka.produce(topic, 1, numbered(10, 1))
        reader.until(lambda: len(reader.values(topic, 1)) == 11, "the other partition")
        assert reader.values(topic, 0) == values(0, 10)
        reader.seek(short, 8)
        reader.broker.resume([short])
        reader.drain(topic)
        assert reader.values(topic, 0) == values(0, 10) + values(8, 2)

    def test_an_offset_beyond_the_end_is_asked_for_anew(self, kafka: Kafka) -> None:
        topic, tp = f"{kafka.prefix}.a", TopicPartition(f"{kafka.prefix}.a", 0)
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 3))
        broker = kafka.broker()
        reader = Reader(broker, starts={tp: 1000})
        broker.subscribe(topic, reader)
        reader.until(lambda: len(reader.infos) >= 1, "the first question")
        reader.starts[tp] = 1
        reader.until(lambda: len(reader.infos) >= 2, "the second question")
        reader.drain(topic)
        assert reader.values(topic) == values(1, 2)

    @pytest.mark.parametrize("count", [0, 50], ids=["empty", "with more records than before"])
    def test_a_topic_that_is_created_again_comes_with_another_id(self, kafka: Kafka, count: int) -> None:
        topic, tp = f"{kafka.prefix}.a", TopicPartition(f"{kafka.prefix}.a", 0)
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 5))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        [first] = {info.topic_id for info in reader.infos}
        assert first
        kafka.recreate(topic)
        kafka.produce(topic, 0, numbered(900, count))
        reader.starts[tp] = None
        reader.until(lambda: reader.infos[-1].topic_id != first, "the other id")
        assert reader.infos[-1].topic_id
        assert reader.infos[-1].tp == tp
        assert tp not in reader.held

    def test_committed_offsets_are_for_monitors_and_never_read_back(self, kafka: Kafka) -> None:
        topic, tp = f"{kafka.prefix}.a", TopicPartition(f"{kafka.prefix}.a", 0)
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 5))
        reader = subscribed(kafka.broker(), topic)
        reader.drain(topic)
        reader.broker.commit({tp: 4})
        reader.until(lambda: kafka.committed("g", tp) == 4, "the committed offset")
        reader.broker.close()
        again = subscribed(kafka.broker(), topic)
        again.drain(topic)
        assert again.values(topic) == values(0, 5)

    def test_a_commit_without_the_right_to_it_is_not_an_error(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 1))
        reader = subscribed(kafka.broker(), topic)
        reader.broker.commit({TopicPartition(topic, 0): 1})
        reader.drain(topic)
        reader.broker.commit({TopicPartition("not.held", 7): 1})
        kafka.produce(topic, 0, numbered(1, 1))
        reader.drain(topic)
        assert reader.values(topic) == values(0, 2)

    def test_an_error_of_the_pipeline_comes_out_of_poll_and_the_question_is_asked_again(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        kafka.produce(topic, 0, numbered(0, 3))
        broker = kafka.broker()
        reader = Reader(broker, failure=LookupError("the lake is away"))
        broker.subscribe(topic, reader)
        with pytest.raises(LookupError, match="the lake is away"):
            reader.until(lambda: bool(reader.rows), "an error")
        reader.drain(topic)
        assert reader.values(topic) == values(0, 3)

    def test_partitions_are_listed_without_an_assignment(self, kafka: Kafka) -> None:
        first, second = f"{kafka.prefix}.a", f"{kafka.prefix}.b"
        kafka.create(first, 2)
        kafka.create(second)
        kafka.produce(first, 1, numbered(0, 5))
        kafka.delete_before(first, 1, 2)
        broker = kafka.broker("status")
        infos = broker.partitions(rf"{kafka.prefix}\..*")
        assert [(i.tp.topic, i.tp.partition, i.beginning, i.end) for i in infos] == [
            (first, 0, 0, 0),
            (first, 1, 2, 5),
            (second, 0, 0, 0),
        ]
        assert len({info.topic_id for info in infos}) == 2
        assert broker.partitions(rf"{kafka.prefix}\.none") == []

    def test_callbacks_come_inside_poll_on_its_thread(self, kafka: Kafka) -> None:
        topic = f"{kafka.prefix}.a"
        kafka.create(topic)
        reader = subscribed(kafka.broker(), topic)
        assert not reader.threads
        reader.until(lambda: bool(reader.held), "the assignment")
        reader.broker.close()
        assert reader.threads == {threading.get_ident()}
        assert reader.gone == []

    def test_closing_twice_is_harmless(self, kafka: Kafka) -> None:
        broker = kafka.broker()
        broker.close()
        broker.close()
