"""The sink's loop: poll, buffer, flush; and, behind it, decode and land.

::

    poll ──▶ buffer ──▶ decode (one ahead, on its own thread) ──▶ land (one at a time, too) ──▶ commit group offsets

The loop's thread polls and fills a buffer while the round before is decoded and the one before that is landed. When
all are full the partitions are paused; polling goes on, so that the group keeps its member.
"""

from __future__ import annotations

import fnmatch
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import pyarrow as pa

from cdc_lake.config import Config
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.consume.broker import CONNECTED, Broker, PartitionInfo
from cdc_lake.consume.buffer import Buffer
from cdc_lake.crashpoints import reach
from cdc_lake.decode.catalogue import Catalogue
from cdc_lake.decode.debezium import Decoder
from cdc_lake.decode.records import Decoded, Decodes, dead_letter_rows
from cdc_lake.decode.wire import wire_format
from cdc_lake.errors import PartitionError, PartitionFenced, UnavailableError
from cdc_lake.events import SchemaVersion, TableId, TopicPartition
from cdc_lake.land.append import Span, covered
from cdc_lake.land.landing import Landed, Landing, Round
from cdc_lake.land.tables import DEAD_LETTERS
from cdc_lake.land.versions import AskColumns, version_rows
from cdc_lake.logs import correlated
from cdc_lake.progress import Flushed, Observer, Progress, Times, told_of_failure
from cdc_lake.registry.fetching import open_schemas
from cdc_lake.selection import Selection, Selects

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.1
_LAG_SECONDS = 5.0
# How long a full buffer waits for the flush under way before the partitions are paused; far below any poll interval.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Decoding:
    """Batches that are being decoded, and will be landed next."""

    buffer: Buffer
    decoded: Future[Decoded]


class Sink:
    """Lands every record of one source's topics, exactly once, until it is told to stop.

    It is the `Assignment` of its broker: on every rebalance it seeks to what the lake holds, not to what Kafka
    believes. A partition whose offsets are gone, whose topic was created anew, or which another writer advanced
    stops with a named error in `progress.stopped`; the others go on.
    """

    _observer: Observer | None = None

    def __init__(
        self,
        config: Config,
        connector: ConnectorFile,
        broker: Broker,
        landing: Landing,
        *,
        tables: str | None = None,
        accept_gaps: str | None = None,
        catalogue: Callable[[], Mapping[TableId, str]] | None = None,
        columns: AskColumns | None = None,
        worker: Executor | None = None,
        decoder: Decodes | None = None,
        selection: Selects | None = None,
    ) -> None:
        self._config, self._connector, self._broker, self._landing = config, connector, broker, landing
        self._decoder = decoder or _decoder(config, connector, landing)
        self._selection, self._accept_gaps = selection or Selection(config, connector, tables), accept_gaps
        self._catalogue = Catalogue(catalogue)
        self._columns, self._schema_log = columns, landing.schema_log()
        self._buffer = Buffer()
        self._held: dict[TopicPartition, PartitionInfo] = {}
        self._contested: set[TopicPartition] = set()
        self._again: dict[TopicPartition, PartitionInfo] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._flush: Future[Landed] | None = None
        self._flushes, self._flushing = 0, list[Span]()
        self._ahead: _Decoding | None = None
        self._paused = False
        self._next_lag, self._next_look = time.monotonic() + _LAG_SECONDS, time.monotonic() + 2.0
        self._stop = threading.Event()
        self._worker = worker or ThreadPoolExecutor(1, thread_name_prefix="land")
        self._decoding = worker or ThreadPoolExecutor(1, thread_name_prefix="decode")
        self.progress = Progress()
        self._limit, self._flush_bytes = config.budget.buffered, config.budget.flush

    @property
    def pattern(self) -> str:
        """The topics that this sink subscribes to."""
        return self._selection.pattern

    def stop(self) -> None:
        """Finish and commit what is buffered, then return from `run`. May be called from a signal handler."""
        self._stop.set()

    def run(
        self,
        *,
        until_caught_up: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        observer: Observer | None = None,
    ) -> Progress:
        """Land records until `stop`, or until all that was in Kafka at the start has landed.

        Raises CdcLakeError when the lake cannot be written; what was committed is intact.
        """
        self._observer = observer
        targets = self._targets() if until_caught_up else {}
        self._broker.subscribe(self.pattern, self)
        try:
            while not self._stop.is_set() and not (until_caught_up and self._reached(targets)):
                self._step()
                if on_progress is not None:
                    on_progress(self.progress)
                if observer is not None:
                    observer.looped(self.progress)
            self._drain()
        finally:
            self._decoding.shutdown(wait=True)
            self._worker.shutdown(wait=True)
            self._broker.close()
            self._landing.close()
        return self.progress

    # -- Assignment: called inside poll, on the loop's thread ---------------------------------------------------

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        """Seek every partition to what the lake holds; leave out those that must stop."""
        self._settle()
        self._forget([info.tp for info in partitions])
        seeks: dict[TopicPartition, int] = {}
        for info in partitions:
            if not self._selection.topic(info.tp.topic):
                continue
            try:
                seeks[info.tp] = self._landing.take_over(
                    info.tp,
                    beginning=info.beginning,
                    end=info.end,
                    topic_id=info.topic_id,
                    accept_gap=bool(self._accept_gaps and fnmatch.fnmatchcase(info.tp.topic, self._accept_gaps)),
                )
            except PartitionError as error:
                self._halt(info.tp, error)
            else:
                self.progress.stopped.pop(info.tp, None)
        self._held |= {info.tp: info for info in partitions if info.tp in seeks}
        self._decoder.assigned({info.tp: info.end for info in partitions if seeks.get(info.tp, info.end) < info.end})
        self._contested -= seeks.keys()
        self._positions.update(seeks)
        if self._paused:
            self._broker.pause(seeks.keys())
        return seeks

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Land what is on its way, drop what is only buffered: the next owner reads it again."""
        self._settle()
        self._forget(partitions)

    # -- the loop, step by step ----------------------------------------------------------------------------------

    def _step(self) -> None:
        full = self._full()
        if full and not self._paused and self._flush is not None:
            # A client that pauses throws away what it has fetched; a flush mostly ends before that pays.
            wait([self._flush], _PATIENCE_SECONDS)
            self._settle_done()
            full = self._full()
        if full != self._paused:
            self._paused = full
            (self._broker.pause if full else self._broker.resume)(self._held)
        for batch in self._broker.poll(_IDLE_SECONDS):
            if batch.tp in self._held:
                self._decoder.look(batch)
                self._buffer.add(batch)
        self._measure_lag()
        self.progress.waiting = "" if self._broker.state == CONNECTED else self._broker.state
        self._settle_done()
        self._read_again()

    def _full(self) -> bool:
        ahead = self._ahead.buffer.nbytes if self._ahead is not None else 0
        return self._buffer.nbytes + ahead >= self._limit and bool(self._flush is not None or self.progress.registry)

    def _settle_done(self) -> None:
        """Take note of a flush that is done, start the next one when it is due, and decode what comes after it."""
        if self._flush is not None and self._flush.done():
            self._settle()
        # What is buffered cannot be decoded before its schemas are here: decoding itself never waits.
        self.progress.registry = self._decoder.awaits()
        if self._flush is None and (self._ahead is not None or self._due()):
            self._start_flush()
        due = self._buffer.nbytes >= self._flush_bytes and not self.progress.registry
        if self._flush is not None and self._ahead is None and due:
            self._ahead = self._decode()

    def _measure_lag(self) -> None:
        if time.monotonic() < self._next_lag or self._broker.state != CONNECTED:
            return
        self._next_lag = time.monotonic() + _LAG_SECONDS
        try:
            infos = self._broker.partitions(self.pattern)
        except UnavailableError:  # it went away this moment; polling says so, and waits for it
            self.progress.lag, self.progress.lags = None, {}
            return
        lags = {i.tp: i.end - max(self._positions[i.tp], i.beginning) for i in infos if i.tp in self._held}
        self.progress.lag, self.progress.lags = sum(lags.values()), lags

    def _due(self) -> bool:
        if not self._buffer.batches or self.progress.registry:
            return False
        waited = time.monotonic() - self._buffer.since
        return self._buffer.nbytes >= self._flush_bytes or waited >= self._config.sink.flush_seconds

    def _decode(self) -> _Decoding:
        buffer, self._buffer = self._buffer, Buffer()
        return _Decoding(buffer, self._decoding.submit(self._decoder.decode, buffer.batches))

    def _start_flush(self) -> None:
        work, self._ahead = self._ahead or self._decode(), None
        # The records as they came are let go here: what lands is what was decoded.
        self._flushing = covered(work.buffer.batches)
        self._flushes += 1
        self.progress.flushing_since = time.monotonic()
        self._flush = self._worker.submit(self._land, self._flushing, work.decoded, work.buffer.since)

    def _settle(self) -> None:
        """Wait for the flush under way and take note of what it did; raises what it raised."""
        if self._flush is None:
            return
        flush, spans = self._flush, self._flushing
        self._flush, self._flushing = None, []
        self.progress.flushing_since = None
        landed = flush.result()
        done = {s.tp: s.end for s in spans if s.tp.topic not in landed.stopped}
        self._positions.update(done)
        for tp in sorted({s.tp for s in spans if s.tp.topic in landed.stopped}):
            self._conflict(tp, landed.stopped[tp.topic])
        self.progress.events += sum(landed.rows.values())
        self.progress.dead += landed.dead
        self.progress.commits += 1
        self.progress.tables |= {t for t, n in landed.rows.items() if n}
        self.progress.last_commit = time.monotonic()
        reach("sink:before-broker-commit")
        self._broker.commit(done)
        reach("sink:after-broker-commit")

    def _land(self, spans: list[Span], decoding: Future[Decoded], since: float) -> Landed:
        number = self._flushes
        with correlated(batch_id=number), told_of_failure(self._observer, number, since):
            begun = time.monotonic()
            decoded = decoding.result()
            rows = [t for t in decoded.tables if self._selection.table(t.table)]
            rows, versions = self._catalogue.described(rows)
            round_ = Round(
                spans=spans,
                rows=[(t.topic, t.table, t.rows) for t in rows],
                transactions=decoded.transactions,
                dead=dead_letter_rows(decoded.dead, DEAD_LETTERS) if decoded.dead else None,
                schemas=self._schema_rows([*decoded.schemas, *versions]),
            )
            ready = time.monotonic()
            landed = self._landing.commit(round_)
            if self._observer is not None:
                times = Times(since, *decoded.times, begun, ready, time.monotonic())
                self._observer.flushed(_flushed(number, round_, landed, times))
            return landed

    def _drain(self) -> None:
        self._settle()
        # What waits for the registry is read again by the next run.
        while self._ahead is not None or (self._buffer.batches and not self._decoder.awaits()):
            self._start_flush()
            self._settle()

    # -- until caught up -------------------------------------------------------------------------------------------

    def _targets(self) -> dict[TopicPartition, int]:
        infos = self._broker.partitions(self.pattern)
        return {i.tp: i.end for i in infos if i.end > i.beginning and self._selection.topic(i.tp.topic)}

    def _reached(self, targets: Mapping[TopicPartition, int]) -> bool:
        self._look_at_others(targets)
        missing = [
            tp for tp, end in targets.items() if self._positions.get(tp, -1) < end and tp not in self.progress.stopped
        ]
        if not missing:
            return True
        buffered = {b.tp: b.end for b in self._buffer.batches}
        # Everything is here: flush at once instead of waiting for flush_seconds.
        here = all(buffered.get(tp, -1) >= targets[tp] for tp in missing)
        if self._flush is None and here and not self._decoder.awaits():
            self._start_flush()
        return False

    def _look_at_others(self, targets: Mapping[TopicPartition, int]) -> None:
        """Another member of the group may hold a partition: what counts is that the lake has it."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + 2.0
        for tp in targets.keys() - self._held - self.progress.stopped.keys():
            position = self._landing.position(tp)
            if position is not None:
                self._positions[tp] = max(position, self._positions.get(tp, -1))

    # -- which schemas -------------------------------------------------------------------------------------------

    def _schema_rows(self, schemas: Sequence[SchemaVersion]) -> pa.Table | None:
        mine = [s for s in schemas if self._selection.table(s.table)]
        return version_rows(self._schema_log.fresh(mine, self._columns), self._connector.decode_settings)

    # -- partitions that come, go and stop -----------------------------------------------------------------------

    def _conflict(self, tp: TopicPartition, error: PartitionError) -> None:
        """Read on behind what another writer landed: it may be the partition's last owner, whose commit came late.

        That is forgiven once for each time the group gives the partition. The second time it is a rival: stop.
        """
        if isinstance(error, PartitionFenced) and tp in self._held and tp not in self._contested:
            info = self._held[tp]
            self._forget([tp])
            self._contested.add(tp)
            self._again[tp] = info
        else:
            self._halt(tp, error)

    def _read_again(self) -> None:
        again, self._again = self._again, {}
        for tp, info in again.items():
            try:
                # Whether the offset is still there, the broker says when it is asked for it.
                position = self._landing.take_over(tp, beginning=0, end=1 << 62, topic_id=info.topic_id)
            except PartitionError as error:
                self._halt(tp, error)
                continue
            self._held[tp], self._positions[tp] = info, position
            self._broker.seek(tp, position)

    def _halt(self, tp: TopicPartition, error: PartitionError) -> None:
        log.warning("%s stopped, the others go on: %s Next: %s", tp, error.message, error.next)
        self.progress.stopped[tp] = error
        self._broker.pause([tp])
        self._forget([tp])

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        gone = set(partitions)
        self._decoder.released(gone)
        self._held = {tp: info for tp, info in self._held.items() if tp not in gone}
        self._again = {tp: info for tp, info in self._again.items() if tp not in gone}
        if self._ahead is not None:  # what is left of it is decoded again
            ahead, self._ahead = self._ahead.buffer, None
            self._buffer.batches[:0], self._buffer.since = ahead.batches, ahead.since
        self._buffer.drop(gone)


def _decoder(config: Config, connector: ConnectorFile, landing: Landing) -> Decoder:
    wire, joined = wire_format(open_schemas(config), connector.config), config.budget.joined
    return Decoder(transaction_topic=connector.transaction_topic, home=landing.home, joined=joined, wire=wire)


def _flushed(number: int, work: Round, landed: Landed, times: Times) -> Flushed:
    done = [rows for rows in work.rows if rows[0] not in landed.stopped]
    return Flushed(number, sum(landed.rows.values()), landed.dead, done, work.transactions, times, landed.stopped)
