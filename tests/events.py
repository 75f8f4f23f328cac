"""Small sources of events for tests: CloudEvents by hand, a sink on an in-memory Kafka, and what it landed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdc_lake.config import Config, Table
from cdc_lake.config import Sink as SinkConfig
from cdc_lake.config_source import Source
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.event_sink import build_event_sink
from cdc_lake.land.layout import open_delta, transactions_path
from cdc_lake.pipeline import Sink
from cdc_lake.query.session import open_session
from tests.lakes import Inline

TOPIC = "retail.scans"
Message = tuple[bytes, list[tuple[str, bytes]]]


def binary(identity: str, data: object = None, *, source: str = "/s", kind: str = "t", **attributes: str) -> Message:
    """Value and headers of one event in the binary binding."""
    named = {"specversion": "1.0", "id": identity, "source": source, "type": kind, **attributes}
    headers = [(f"ce_{name}", value.encode()) for name, value in named.items()]
    return json.dumps(data).encode(), [*headers, ("content-type", b"application/json")]


def structured(identity: str, data: object = None, *, source: str = "/s", kind: str = "t", **own: object) -> Message:
    """Value and headers of one event in the structured binding."""
    event = {"specversion": "1.0", "id": identity, "source": source, "type": kind, **own, "data": data}
    return json.dumps(event).encode(), [("content-type", b"application/cloudevents+json")]


@dataclass
class Warehouse:
    """A source of events in `folder`, and the Kafka that its sink reads."""

    folder: Path
    topics: Mapping[str, int] = field(default_factory=lambda: {TOPIC: 2})
    databases: tuple[Source, ...] = ()
    kafka: MemoryKafka = field(default_factory=MemoryKafka)
    idle_seconds: float = 30

    def __post_init__(self) -> None:
        for topic, partitions in self.topics.items():
            self.kafka.create_topic(topic, partitions)
        self.source = Source(name="warehouse", events=list(self.topics), idle_seconds=self.idle_seconds)
        self.config = Config(
            root=self.folder,
            sources=[*self.databases, self.source],
            sink=SinkConfig(flush_seconds=1e-9),
            tables={"*.*": Table()},
        )

    def put(
        self,
        message: Message,
        *,
        key: bytes | None = None,
        partition: int = 0,
        topic: str = TOPIC,
        at: int | None = None,
    ) -> int:
        """Send one message; its offset."""
        value, headers = message
        return self.kafka.produce(topic, partition, key, value, headers=headers, timestamp=at)

    def sink(self, *, max_records: int = 500, group: str = "events") -> Sink:
        """A sink of the source."""
        return build_event_sink(
            self.config, self.source, self.kafka.broker(group, max_records=max_records), worker=Inline()
        )

    def land(self, *, max_records: int = 500) -> None:
        """Land all that is there."""
        progress = self.sink(max_records=max_records).run(until_caught_up=True)
        assert not progress.stopped

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query on the lake."""
        session = open_session(self.config)
        try:
            return session.connection.execute(sql).fetchall()
        finally:
            session.close()

    def ends(self) -> list[dict[str, Any]]:
        """The ends of batches, in their order."""
        table = open_delta(transactions_path(self.config.lake_uri, "warehouse"))
        rows = table.to_pyarrow_table().to_pylist() if table is not None else []
        return sorted(rows, key=lambda r: r["__offset"])
