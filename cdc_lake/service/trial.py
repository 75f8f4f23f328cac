"""A service without Kafka, for its tests: events go in, what it sends comes out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cdc_lake.consume.columns import header_json, record_batch
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.event import Event, Outgoing, decode, encode
from cdc_lake.service.service import Service
from cdc_lake.service.shard import Shard


class Trial:
    """One shard of a service, within its context, in a folder that goes away with it: of `topic`, else of its first."""

    def __init__(self, service: Service, *, topic: str | None = None) -> None:
        self.service = service
        self._folder = tempfile.TemporaryDirectory(prefix="cdc-lake-service-")
        self._tp = TopicPartition(topic or service.topics[0], 0)
        self._shard = Shard(service, self._tp, Path(self._folder.name) / "trial.sqlite")
        self.letters: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shard.close()
        self._folder.cleanup()

    def handle(self, event: Event, *, at: datetime | None = None) -> list[Event]:
        """Handle an event that came `at`; the events that are sent for it. Refused ones are in `letters`.

        Raises Temporary when the handler does.
        """
        return self.record(encode(self._tp.topic, event), at=at)

    def record(self, record: Outgoing, *, at: datetime | None = None) -> list[Event]:
        """Handle a record, whatever is in it."""
        start = self._shard.position
        batch = record_batch(
            self._tp,
            start,
            start + 1,
            offsets=[start],
            timestamps=[int((at or datetime.now(UTC)).timestamp() * 1000)],
            keys=[record.key],
            values=[record.value],
            headers=[header_json(record.headers)],
        )
        return self.follow(batch)

    def follow(self, batch: RecordBatch) -> list[Event]:
        """Handle the records of a batch, which begins where the last one ended."""
        start = self._shard.position
        applied = self._shard.apply(batch)
        if applied.retry is not None:
            raise applied.retry
        self.letters += [
            dict(row)
            for row in self._shard.db.execute("SELECT code, reason FROM _letters WHERE at_offset >= ?", (start,))
        ]
        sent: list[Outgoing] = []
        while waiting := self._shard.waiting():
            sent += [w.record for w in waiting if w.record.topic != self.service.letters]
            self._shard.was_sent(waiting[-1].n)
        return [decode(header_json(record.headers), record.value) for record in sent]

    def ask(self, path: str, **asked: str) -> list[Mapping[str, Any]]:
        """The rows of an answer."""
        route = self.service.routes[path]
        found = route.answer(asked, self._shard.db)
        return list(route.combine(asked, found) if route.combine else found)
