"""Send the dead letters of a service again: each to the topic, under the key and with the headers that it had.

Delivery: at least once, in their order. How far they were sent is the committed offset of a group, written after the
acknowledgement; a letter that is sent twice is handled once, for its identity is taken by then.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_lake.consume.broker import Broker, PartitionInfo
from cdc_lake.errors import UnavailableError
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.event import Outgoing
from cdc_lake.service.outlet import Outlet
from cdc_lake.service.shard import Record, records

# How the headers begin that a dead letter has beside those of its record.
_TOLD = "dlq_"
_SECONDS = 60.0


@dataclass(slots=True)
class Replay:
    """A member of the group that sends dead letters again, up to those that are there when it begins.

    `dry_run`: nothing is sent or marked. `sent` counts by topic. What fails again is a new letter.
    """

    letters: str
    broker: Broker
    outlet: Outlet
    dry_run: bool = False
    sent: Counter[str] = field(default_factory=Counter)
    _left: dict[TopicPartition, int] = field(default_factory=dict)
    _assigned: bool = False

    @staticmethod
    def group(letters: str) -> str:
        """Whose committed offsets say how far a topic of dead letters was sent again."""
        return f"{letters}.replay"

    def run(self, timeout: float = 0.2) -> None:
        """Send until all is sent. Raises UnavailableError."""
        self.broker.subscribe(re.escape(self.letters), self)
        deadline = time.monotonic() + _SECONDS
        while not self._assigned or self._left:
            batches = self.broker.poll(timeout)
            for batch in batches:
                self._send(batch)
            if batches:
                deadline = time.monotonic() + _SECONDS
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"Kafka gave nothing of {self.letters} for {_SECONDS:.0f} s.",
                    why=self.broker.state,
                    next="see whether Kafka runs, then try again: what was sent is marked",
                )

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        """Go on behind what was sent."""
        marks = self.outlet.marks([self.group(self.letters)], [info.tp for info in partitions])
        starts = {info.tp: max(info.beginning, min(marks.get(info.tp, 0), info.end)) for info in partitions}
        self._left |= {info.tp: info.end for info in partitions if starts[info.tp] < info.end}
        self._assigned = True
        return starts

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Another process sends them."""
        for tp in partitions:
            self._left.pop(tp, None)

    def _send(self, batch: RecordBatch) -> None:
        end = self._left.get(batch.tp)
        if end is None:
            return
        found = [out for record in records(batch) if record.offset < end for out in self._again(record)]
        if not self.dry_run:
            self.outlet.send(found)
            self.broker.commit({batch.tp: min(batch.end, end)})
        self.sent.update(out.topic for out in found)
        if batch.end >= end:
            del self._left[batch.tp]

    def _again(self, record: Record) -> Iterator[Outgoing]:
        headers: dict[str, str] = json.loads(record.headers or "{}")
        topic = headers.get(f"{_TOLD}topic")
        if topic is not None:  # else somebody else's record
            kept = [(k, str(v).encode()) for k, v in headers.items() if not k.startswith(_TOLD) and v is not None]
            yield Outgoing(topic, record.key, record.value, tuple(kept))
