"""Bring several topics together in one, by key: what is to be decided together gets one order, for all readers.

Delivery: at least once, in the order of each key; readers drop what comes twice (the records keep their identities).
What comes out is the log of what happened to each key: read models that fold it agree on every position.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_lake.consume.broker import Broker, PartitionInfo
from cdc_lake.consume.failures import NO_ANSWER
from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.event import MERGED_FROM, Event, Malformed, Outgoing, decode
from cdc_lake.service.held import expired
from cdc_lake.service.outlet import Outlet
from cdc_lake.service.shard import Record, records

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Merge:
    """`inputs` come together in `into`. All processes that name the same `into` share the work, whatever services."""

    into: str
    inputs: tuple[str, ...]
    # By what, in place of the records' own keys; what it gives None for, or is no event, is left out.
    key: Callable[[Event], str | None] | None = None

    @property
    def group(self) -> str:
        """The consumer group. Its committed offsets are what has been brought over."""
        return f"{self.into}.merge"


@dataclass(slots=True)
class Merging:
    """One member of a merge, driven by `step` on one thread."""

    merge: Merge
    broker: Broker
    outlet: Outlet
    problems: dict[TopicPartition, CdcLakeError] = field(default_factory=dict)
    trouble: str = ""
    _done: dict[TopicPartition, int] = field(default_factory=dict)
    _again_at: float = 0.0
    _failures: int = 0

    def start(self) -> None:
        """Join the group."""
        self.broker.subscribe("|".join(re.escape(topic) for topic in self.merge.inputs), self)

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        """Go on where the group has marked that all before was brought over."""
        marks = self.outlet.marks([self.merge.group], [info.tp for info in partitions])
        for info in partitions:
            start = marks.get(info.tp, info.beginning)
            self.problems.pop(info.tp, None)
            if start < info.beginning:
                self.problems[info.tp] = expired(info, start)
                log.warning("%s", self.problems[info.tp].message)
            else:
                self._done[info.tp] = min(start, info.end)
        return {info.tp: self._done[info.tp] for info in partitions if info.tp not in self.problems}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Others go on from the marks."""
        for tp in partitions:
            self._done.pop(tp, None)
            self.problems.pop(tp, None)

    def step(self, timeout: float = 0.2) -> int:
        """Bring over what came: send, wait for the acknowledgement, mark. How many records."""
        if time.monotonic() < self._again_at:
            time.sleep(min(timeout, self._again_at - time.monotonic()) if timeout else 0)
            return 0
        batches: list[RecordBatch] = []
        try:
            batches = self.broker.poll(timeout)
            sent = [out for batch in batches for out in self._copies(batch)]
            if sent:
                self.outlet.send(sent)
                reach("merge:after-send")
        except UnavailableError as error:
            if error.code != NO_ANSWER:
                raise
            self._put_off(batches, error)
            return 0
        self._failures, self.trouble = 0, ""
        ends = {batch.tp: batch.end for batch in batches if batch.tp in self._done}
        if ends:
            self._done.update(ends)
            self.broker.commit(ends)
            reach("merge:after-mark")
        return len(sent)

    def close(self) -> None:
        """Leave the group."""
        self.broker.close()

    def _put_off(self, batches: Sequence[RecordBatch], error: UnavailableError) -> None:
        """Read what was not sent again, later."""
        self.trouble, self._failures = error.message, self._failures + 1
        self._again_at = time.monotonic() + min(0.05 * 2**self._failures, 10.0)
        for tp in {batch.tp for batch in batches} & self._done.keys():
            self.broker.seek(tp, self._done[tp])

    def _copies(self, batch: RecordBatch) -> Iterator[Outgoing]:
        for record in records(batch):
            keep, key = _key(record, self.merge)
            if not keep:
                continue
            origin = f"{batch.tp.topic}/{batch.tp.partition}/{record.offset}"
            headers = (*_headers(record), (MERGED_FROM, origin.encode()))
            yield Outgoing(self.merge.into, key, record.value, headers)


def _headers(record: Record) -> Iterator[tuple[str, bytes]]:
    for name, value in json.loads(record.headers or "{}").items():
        if value is not None:
            yield name, str(value).encode("utf-8", "backslashreplace")


def _key(record: Record, merge: Merge) -> tuple[bool, bytes | None]:
    """Whether to bring a record over, and its key: what the merge says, else its own, else the subject of its event."""
    if merge.key is None and record.key is not None:
        return True, record.key
    try:
        event = decode(record.headers, record.value)
    except Malformed:
        return merge.key is None, None
    key = event.subject if merge.key is None else merge.key(event)
    return key is not None, key.encode() if key else None
