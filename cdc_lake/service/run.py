"""A running instance of a service: partitions come and go, records are handled, events are sent.

The steps of a batch, of which each may be the last (their crash points are in brackets):

1. handle the records and commit tables, position and outbox in one local transaction [service:before-commit,
   service:after-commit];
2. send what the outbox holds, and wait for its acknowledgement [service:after-send];
3. forget it [service:after-forget];
4. commit the group's offset: the mark up to which all has been sent [service:after-mark].

An instance that takes a partition over fills its shard from its own older state, a copy or the log's beginning; it
sends only what offsets from the mark on cause. What was sent behind the mark is sent again, as the same events.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_lake.consume.broker import CONNECTED, Broker, PartitionInfo
from cdc_lake.consume.failures import NO_ANSWER
from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, LakeError, PartitionError, UnavailableError
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.event import Outgoing
from cdc_lake.service.held import Folder, Held, expired
from cdc_lake.service.metrics import Numbers
from cdc_lake.service.outlet import Outlet
from cdc_lake.service.service import Service, predecessors
from cdc_lake.service.shard import Handled, Shard

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
_MARK_SECONDS = 10.0
SNAPSHOT_EVENTS = 1_000_000
# Of one batch: events that are told of.
TOLD = 32
History = Callable[[PartitionInfo, int], Iterable[RecordBatch]]


@dataclass(slots=True)
class Options:
    """How an instance runs. `sends` False: it only follows, beside the version that sends."""

    sends: bool = True
    # Of a service that never ran: whether it answers all of the log, or only what comes from now on.
    sends_from_now: bool = False
    snapshot_events: int = SNAPSHOT_EVENTS
    history: History | None = None
    # Is told of events that were handled, a bounded number of each batch.
    told: Callable[[Sequence[Handled]], None] | None = None
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@dataclass(slots=True)
class Runner:
    """One instance, driven by `step` on one thread. `held`, `problems` and `state` may be read by others."""

    service: Service
    broker: Broker
    outlet: Outlet
    folder: Folder
    options: Options = field(default_factory=Options)
    numbers: Numbers = field(default_factory=Numbers)
    held: dict[TopicPartition, Held] = field(default_factory=dict)
    problems: dict[TopicPartition, CdcLakeError] = field(default_factory=dict)
    ready: bool = False
    trouble: str = ""
    partitions: frozenset[TopicPartition] = frozenset()
    stepped_at: float = field(default_factory=time.monotonic)
    _looked: float = float("-inf")
    _send_at: float = 0.0
    _send_failures: int = 0

    def start(self) -> None:
        """Join the group. Raises LakeError when an earlier version still sends what this one is to send."""
        if self.options.sends and (active := self.outlet.active(predecessors(self.service))):
            raise LakeError(
                f"{active[0]} still runs, and sends the events that {self.service.group} is to send.",
                why="Of two versions one sends, so that each event is decided by one of them.",
                next="stop it (SIGTERM: it finishes and marks where it is), or start this one with --no-send",
                code="service_sends",
            )
        self.broker.subscribe("|".join(re.escape(topic) for topic in self.service.topics), self)

    @property
    def state(self) -> str:
        """What it waits for, in words; `connected` when nothing."""
        waits = next((h.waits_for for h in list(self.held.values()) if h.waits_for), "")
        return self.trouble or waits or self.broker.state

    def age(self, held: Held) -> float | None:
        """Seconds since a shard was known to have handled all that there was; None when it never had."""
        return held.age(self.options.clock(), self.options.wall())

    def step(self, timeout: float = 0.2) -> int:
        """Handle what came, send what is to be sent; how many records were read."""
        self._resume()
        batches = self._poll(timeout)
        for batch in batches:
            held = self.held.get(batch.tp)
            if held is not None and not held.waits_for:
                self._apply(held, batch)
        self._look({batch.tp for batch in batches})
        if self.options.sends:
            self._deliver()
        self.numbers.show(self)
        self.stepped_at = time.monotonic()
        return sum(len(batch) for batch in batches)

    def _poll(self, timeout: float) -> list[RecordBatch]:
        """What came. A broker that does not say where to begin, when partitions come, is asked again."""
        try:
            return self.broker.poll(timeout)
        except UnavailableError as error:
            if error.code != NO_ANSWER:
                raise
            self.trouble = error.message
            return []

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        """Open the shards, each from the furthest state that there is; where to read each from."""
        groups = [self.service.group, *predecessors(self.service)]
        marks = self.outlet.marks(groups, [info.tp for info in partitions])
        self.ready = True
        return {info.tp: start for info in partitions if (start := self._open(info, marks.get(info.tp))) is not None}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Leave copies of the shards for those who take over, and let go."""
        for tp in partitions:
            self.problems.pop(tp, None)
            held = self.held.pop(tp, None)
            if held is not None:
                self._let_go(held)

    def close(self) -> None:
        """Send what is left, leave copies and marks, and leave the group. A broker that is away is not waited for."""
        if self.options.sends:
            self._send_at = 0.0
            self._deliver()
            self._settle_marks()
        self.broker.close()
        self.revoked(list(self.held))

    def _open(self, info: PartitionInfo, mark: int | None) -> int | None:
        if (old := self.held.pop(info.tp, None)) is not None:
            old.shard.close()
        floor = mark if mark is not None else info.end if self.options.sends_from_now else 0
        try:
            shard = self.folder.open(self.service, info, floor)
            self._fill(shard, info)
        except PartitionError as error:
            self.problems[info.tp] = error
            log.warning("%s %s", error.message, error.why)
            return None
        self.problems.pop(info.tp, None)
        shard.tells = TOLD if self.options.told is not None and self.options.sends else 0
        held = Held(shard, info.end, shard.position >= info.end, snapshot_at=shard.position)
        self.held[info.tp] = held
        if mark is None and self.options.sends and self.options.sends_from_now:
            self.broker.commit({info.tp: floor})
        return shard.position

    def _fill(self, shard: Shard, info: PartitionInfo) -> None:
        """What the log has no more is read from the lake."""
        if shard.position >= info.beginning:
            return
        try:
            for batch in self.options.history(info, shard.position) if self.options.history else ():
                self._count(shard.apply(batch).counts)
            if shard.position < info.beginning:
                raise expired(info, shard.position)
        except BaseException:
            shard.close()
            raise

    def _apply(self, held: Held, batch: RecordBatch) -> None:
        begun = time.perf_counter()
        applied = held.shard.apply(batch)
        self.numbers.seconds.observe(time.perf_counter() - begun)
        self._count(applied.counts)
        if self.options.told is not None:
            self.options.told(applied.told)
        if applied.retry is None:
            held.went_on()
        else:
            held.failed(str(applied.retry), self.options.clock())
            self.numbers.retries.inc()
            self.broker.seek(batch.tp, held.shard.position)
            self.broker.pause([batch.tp])
        if held.shard.position - held.snapshot_at >= self.options.snapshot_events:
            self.folder.keep_copy(held.shard)
            held.snapshot_at = held.shard.position

    def _count(self, counts: Mapping[tuple[str, str], int]) -> None:
        for (type, outcome), count in counts.items():
            self.numbers.events.labels(type, outcome).inc(count)

    def _resume(self) -> None:
        now = self.options.clock()
        for tp, held in self.held.items():
            if held.waits_for and held.retry_at <= now:
                held.waits_for = ""
                self.broker.resume([tp])

    def _look(self, came: set[TopicPartition]) -> None:
        """See how far the log goes, and which shards have all of it."""
        now = self.options.clock()
        if self.broker.state != CONNECTED:
            return
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            with contextlib.suppress(UnavailableError):
                pattern = "|".join(re.escape(topic) for topic in self.service.topics)
                infos = self.broker.partitions(pattern)
                self.partitions = frozenset(info.tp for info in infos)
                for info in infos:
                    if (held := self.held.get(info.tp)) is not None:
                        held.end = info.end
                if not self.options.sends:
                    self._follow_marks()
        for tp, held in self.held.items():
            if tp not in came and not held.waits_for and held.shard.position >= held.end:
                held.caught_up, held.fresh_at = True, now
            elif tp in came and held.caught_up:
                held.fresh_at = held.fresh_at if held.shard.position < held.end else now

    def _follow_marks(self) -> None:
        """A version that does not send forgets what the one that does has sent."""
        for tp, mark in self.outlet.marks(predecessors(self.service), list(self.held)).items():
            self.held[tp].shard.prune(mark)

    def _deliver(self) -> None:
        """Send, forget, mark: steps 2 to 4. What cannot be sent now is kept, and tried again, ever later."""
        now = self.options.clock()
        if now < self._send_at:
            return
        try:
            for held in self.held.values():
                while waiting := held.shard.waiting():
                    self._send([w.record for w in waiting])
                    held.shard.was_sent(waiting[-1].n)
                    reach("service:after-forget")
                self._send_due(held)
        except UnavailableError as error:
            self._send_failures += 1
            self._send_at, self.trouble = now + min(0.1 * 2**self._send_failures, 30.0), error.message
            return
        self._send_failures, self.trouble = 0, ""
        self._mark()

    def _send(self, records: Sequence[Outgoing]) -> None:
        self.outlet.send(records)
        for record in records:
            self.numbers.sent.labels(record.topic).inc()
        reach("service:after-send")

    def _send_due(self, held: Held) -> None:
        """Timers whose moment has come, of shards that have seen all: one of which the event came back is gone."""
        if not held.caught_up or held.shard.position < held.end:
            return
        due = {id: r for id, r in held.shard.due(int(self.options.wall() * 1000)) if id not in held.timers_sent}
        if due:
            self._send(list(due.values()))
            held.timers_sent.update(due)

    def _mark(self) -> None:
        marks = {tp: h.shard.mark for tp, h in self.held.items() if h.shard.mark != h.marked}
        if marks:
            self.broker.commit(marks)
            for tp, mark in marks.items():
                self.held[tp].marked = mark
            reach("service:after-mark")

    def _settle_marks(self) -> None:
        """Wait until the marks are where they belong: the next one who reads them repeats nothing then."""
        deadline = time.monotonic() + _MARK_SECONDS
        wanted = {tp: h.shard.mark for tp, h in self.held.items()}
        while not self.trouble and time.monotonic() < deadline:
            try:
                known = self.outlet.marks([self.service.group], list(wanted))
            except UnavailableError:
                return
            if all(known.get(tp, -1) >= mark for tp, mark in wanted.items()):
                return
            self.broker.commit(wanted)
            time.sleep(0.05)

    def _let_go(self, held: Held) -> None:
        try:
            if held.shard.position > held.snapshot_at:
                self.folder.keep_copy(held.shard)
        except LakeError as error:
            log.warning("no copy of %s was left: %s", held.shard.tp, error.why)
        held.shard.close()
