"""Services on a Kafka in memory: instances that are started, killed, and driven step by step."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cdc_lake import crashpoints
from cdc_lake.consume.memory import MemoryBroker, MemoryKafka
from cdc_lake.events import RecordBatch
from cdc_lake.service import Event, Service
from cdc_lake.service.answers import Answering
from cdc_lake.service.event import Malformed, decode, encode
from cdc_lake.service.held import Folder
from cdc_lake.service.merge import Merge, Merging
from cdc_lake.service.outlet import MemoryOutlet, partition_of
from cdc_lake.service.run import Options, Runner
from cdc_lake.service.shard import Record, records


class Killed(BaseException):
    """The process was killed at a crash point."""


@dataclass
class World:
    """A Kafka, folders, and a clock that moves when told."""

    folder: Path
    partitions: int = 3
    kafka: MemoryKafka = field(default_factory=MemoryKafka)
    now: float = 0.0

    def topics(self, *names: str) -> None:
        MemoryOutlet(self.kafka).ensure(names, self.partitions)

    def put(self, topic: str, event: Event, *, timestamp: int | None = None) -> None:
        if event.time is None:
            event = replace(event, time=datetime(2020, 1, 1, tzinfo=UTC))
        record = encode(topic, event)
        partition = partition_of(record.key or b"", self.partitions)
        self.kafka.produce(topic, partition, record.key, record.value, headers=record.headers, timestamp=timestamp)

    def instance(self, service: Service, slot: int = 0, **options: Any) -> Runner:
        self.topics(*service.topics, *service.sends_to, service.letters)
        base = self.folder / service.group
        runner = Runner(
            service,
            self.kafka.broker(service.group, max_records=7),
            MemoryOutlet(self.kafka),
            Folder(base / str(slot), base / "copies"),
            Options(**{"clock": lambda: self.now, **options}),
        )
        runner.start()
        return runner

    def merging(self, merge: Merge) -> Merging:
        self.topics(*merge.inputs, merge.into)
        member = Merging(merge, self.kafka.broker(merge.group, max_records=7), MemoryOutlet(self.kafka))
        member.start()
        return member

    def kill(self, member: Runner | Merging) -> None:
        broker = member.broker
        assert isinstance(broker, MemoryBroker)
        self.kafka.crash(broker)
        if isinstance(member, Runner):
            for held in member.held.values():
                held.shard.close()
            member.held.clear()

    def events(self, topic: str) -> list[Event]:
        """All that was sent to a topic, as it was sent."""
        return [decode(r.headers, r.value) for r in self.records(topic)]

    def records(self, topic: str) -> list[Record]:
        """All records of a topic."""
        return [record for batch in self._batches(topic) for record in records(batch)]

    def _batches(self, topic: str) -> list[RecordBatch]:
        broker = self.kafka.broker(f"reader-{topic}", max_records=1_000_000)

        class All:
            def assigned(self, partitions: Any) -> Any:
                return {info.tp: info.beginning for info in partitions}

            def revoked(self, partitions: Any) -> None: ...

        broker.subscribe(topic.replace(".", r"\."), All())
        try:
            return broker.poll(0)
        finally:
            broker.close()

    def events_raw(self, topic: str) -> list[tuple[dict[str, str], bytes | None]]:
        """Headers and values of all that was sent to a topic."""
        return [(json.loads(r.headers or "{}"), r.value) for r in self.records(topic)]

    def partitions_of(self, topic: str) -> list[list[Event]]:
        """The events of each partition, without what is none."""
        found: list[list[Event]] = []
        for batch in self.logs(topic):
            found.append([])
            for record in records(batch):
                with contextlib.suppress(Malformed):
                    found[-1].append(decode(record.headers, record.value))
        return found

    def events_of(self, topic: str) -> list[Event]:
        """All events of a topic, without what is none."""
        return [event for partition in self.partitions_of(topic) for event in partition]

    def last_time(self, topic: str) -> datetime:
        """When the last record of a topic came."""
        return datetime.fromtimestamp(max(r.at for r in self.records(topic)) / 1000, UTC)

    def logs(self, topic: str) -> list[RecordBatch]:
        """All records of each partition."""
        return self._batches(topic)

    def distinct(self, topic: str) -> list[Event]:
        """What a reader who counts each event once sees."""
        return list({(e.source, e.id): e for e in reversed(self.events(topic))}.values())[::-1]


def settle(members: Iterable[Runner | Merging], most: int = 10_000) -> None:
    """Step until nothing moves any more."""
    quiet = 0
    for _ in range(most):
        moved = sum(member.step(0) for member in members)
        quiet = 0 if moved else quiet + 1
        if quiet > 3:
            return
    raise AssertionError("it never comes to rest")


def rows(runner: Runner, path: str, **asked: str) -> list[dict[str, Any]]:
    """The rows of an answer of one instance."""
    found: list[dict[str, Any]] = Answering(runner).ask(runner.service.routes[path], asked, alone=False)["rows"]
    return found


class Crashing:
    """Kills at the nth time that any point is reached."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.at = ""

    def __call__(self, point: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.at = point
            raise Killed(point)

    def __enter__(self) -> Crashing:
        crashpoints.on_reach = self
        return self

    def __exit__(self, *_: object) -> None:
        crashpoints.on_reach = None
