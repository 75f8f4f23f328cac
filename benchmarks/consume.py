"""Records per second from Kafka into Arrow columns, beside the raw client that only counts: both clients, one topic.

Every figure comes from a process of its own and is the best of three rounds; rounds of the readers alternate, so that
what else the machine does hits all of them. CPU is what the process spent, threads of the client included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report import Report
from cdc_lake.consume import PartitionInfo, open_broker
from cdc_lake.events import TopicPartition

PARTITIONS = 4
ROUNDS = 3
VALUE = b'{"before":null,"after":{"id":%d,"name":"%s","price":"%d.99"},"op":"c","ts_ms":%d}'
FETCH = {"fetch_max_bytes": 32 << 20, "max_partition_fetch_bytes": 8 << 20}


def run(ends: Any, _stack: Any, report: Report) -> None:
    rows = report.rows
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": ends.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    try:
        size = produce(ends.bootstrap, topic, rows)
        table = report.table(
            f"{rows:,} records of {size} B in {PARTITIONS} partitions, best of {ROUNDS}",
            **{"reader": "", "records/s": ",.0f", "CPU µs each": ".2f", "× raw": ".2f"},
        )
        best: dict[str, tuple[float, float]] = {}
        for _ in range(ROUNDS):
            for reader in READERS:
                figure = measure(ends.bootstrap, topic, rows, reader)
                best[reader] = min(best.get(reader, figure), figure)
        for reader, (seconds, cpu) in best.items():
            beside = best[f"{reader.rsplit(maxsplit=1)[0]} raw"][0] / seconds
            table.add(reader, rows / seconds, cpu / rows * 1e6, beside)
    finally:
        admin.delete_topics([topic])[topic].result()


def produce(bootstrap: str, topic: str, rows: int) -> int:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 500_000})
    name, value = b"x" * 530, b""
    for n in range(rows):
        value = VALUE % (n, name, n % 100, 1_700_000_000_000 + n)
        while True:
            try:
                producer.produce(topic, value, b'{"id":%d}' % n, n % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        if n % 10_000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
    return len(value)


def measure(bootstrap: str, topic: str, rows: int, reader: str) -> tuple[float, float]:
    """Seconds and CPU seconds of one reader in a process of its own, from the first record to the last."""
    command = [sys.executable, "-m", "benchmarks.consume", reader, bootstrap, topic, str(rows)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    seconds, cpu = json.loads(answer)
    return seconds, cpu


class Clock:
    """Runs from the first records on, so that connecting and joining the group are not counted."""

    def __init__(self, rows: int) -> None:
        self.rows, self.count, self.since = rows, 0, (0.0, 0.0)

    def add(self, count: int) -> bool:
        """Count records; true when these were the last."""
        if count and not self.count:
            self.since = time.perf_counter(), time.process_time()
        self.count += count
        return self.count >= self.rows

    def figure(self) -> tuple[float, float]:
        return time.perf_counter() - self.since[0], time.process_time() - self.since[1]


class Everything:
    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        return {info.tp: info.beginning for info in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        pass


def broker(client: str, bootstrap: str, topic: str, clock: Clock) -> None:
    reading = open_broker(client, bootstrap, group=f"bench-{uuid.uuid4().hex}")
    reading.subscribe(topic, Everything())
    while not clock.add(sum(map(len, reading.poll(1.0)))):
        pass


def raw_confluent(bootstrap: str, topic: str, clock: Clock) -> None:
    from confluent_kafka import Consumer, TopicPartition

    settings = {name.replace("_", "."): value for name, value in FETCH.items()}
    queue = {"queued.max.messages.kbytes": 64 << 10, "fetch.queue.backoff.ms": 10, "isolation.level": "read_committed"}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", **settings, **queue})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    while not clock.add(len(consumer.consume(10_000, 1.0))):
        pass


def raw_kafka_python(bootstrap: str, topic: str, clock: Clock) -> None:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", max_poll_records=10_000, **FETCH
    )
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    consumer.seek_to_beginning()
    while not clock.add(sum(map(len, consumer.poll(1000).values()))):
        pass


READERS: dict[str, Callable[[str, str, Clock], None]] = {
    "confluent raw": raw_confluent,
    "confluent broker": lambda *where: broker("confluent", *where),
    "kafka-python raw": raw_kafka_python,
    "kafka-python broker": lambda *where: broker("kafka-python", *where),
}


def main() -> None:
    reader, bootstrap, topic, rows = sys.argv[1:]
    clock = Clock(int(rows))
    READERS[reader](bootstrap, topic, clock)
    print(json.dumps(clock.figure()), flush=True)
    os._exit(0)  # leaving the group is not measured


if __name__ == "__main__":
    main()
