"""Append rows and the Kafka offsets they came from in one Delta commit: exactly-once landing.

After `kafka-delta-ingest`: each topic-partition is an app transaction of the Delta log whose version is the offset to
read from next. The rows and the offset are in the same commit, so either both are there or neither is.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import (
    DISK_FULL,
    CdcLakeError,
    LakeError,
    PartitionFenced,
    UnavailableError,
    first_line,
    is_disk_full,
)
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.land.store import DeltaStore, Snapshot, Store
from cdc_lake.land.store_errors import is_named, is_refusal, store_error

log = logging.getLogger(__name__)

# Commits that fail for a passing reason (an object store's hiccup) are tried again for this long.
RETRY_SECONDS = 60.0

Screen = Callable[[Snapshot | None, pa.Table], pa.Table]


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets `[start, end)` of one partition: everything in it is landed by one commit."""

    tp: TopicPartition
    start: int
    end: int


def covered(batches: Iterable[RecordBatch]) -> list[Span]:
    """One span per partition: batches of a partition follow each other without a hole."""
    ends: dict[TopicPartition, tuple[int, int]] = {}
    for batch in batches:
        start, _ = ends.get(batch.tp, (batch.start, batch.end))
        ends[batch.tp] = (start, batch.end)
    return [Span(tp, start, end) for tp, (start, end) in sorted(ends.items())]


def transaction_id(tp: TopicPartition) -> str:
    """The Delta app transaction that holds the position of `tp`."""
    return f"{tp.topic}/{tp.partition}"


def generation_ids(topic: str, topic_id: str) -> tuple[str, ...]:
    """App transactions that say: the id of `topic` is known, and it is `topic_id`. None when Kafka tells no id."""
    return (f"topic:{topic}", f"topic:{topic}@{topic_id}") if topic_id else ()


class AppendTable:
    """One append-only Delta table fed by topic-partitions.

    Delivery: each offset is landed once. Order: rows keep the order in which they are given. Idempotence: rows
    below the stored position are dropped before writing, a commit that another writer overtook raises
    PartitionFenced and writes nothing.
    """

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        *,
        description: str = "",
        store: Store | None = None,
        contiguous: bool = True,
        screen: Screen = lambda _, rows: rows,
    ) -> None:
        self.path = path
        self.schema = schema
        self._description = description
        self._store = store or DeltaStore()
        # What may land of rows, by the snapshot that they are committed on.
        self._screen = screen
        # Dead letters are committed only when there are some: their positions lag, and that is no gap.
        self._contiguous = contiguous
        self._expected: dict[TopicPartition, int | None] = {}
        self._gaps: dict[TopicPartition, int] = {}
        self._recorded: set[str] = set()
        # The snapshot of the last commit. Only `append` uses it: the other methods may run on another thread.
        self._snapshot: Snapshot | None = None

    def open(self) -> DeltaTable | None:
        """A fresh handle; None before the first commit."""
        return self._store.open(self.path)

    def take_over(
        self, partitions: Iterable[TopicPartition], generations: Iterable[str] = ()
    ) -> dict[TopicPartition, int]:
        """Begin to write `partitions`: the stored positions (offset to read next) of those that have one.

        From here on a position that this object did not write means another writer. Also looks which of `generations`
        (of `generation_ids`) a commit has recorded, for `knows`. Waits for a store that does not answer.
        """
        partitions, generations = list(partitions), list(generations)
        asked = [*generations, *(transaction_id(tp) for tp in partitions)]
        table = self._await(time.monotonic() + RETRY_SECONDS, asked)
        self._recorded.update(g for g in generations if table is not None and table.transaction_version(g) is not None)
        for tp in partitions:
            self._expected[tp] = table.transaction_version(transaction_id(tp)) if table is not None else None
        return {tp: version for tp in partitions if (version := self._expected[tp]) is not None}

    def lacks(self, tp: TopicPartition) -> bool:
        """Whether this table has no position of `tp` yet."""
        return self._expected.get(tp) is None

    def stored(self, tp: TopicPartition) -> int | None:
        """The stored position of `tp` as it is now; waits for a store that does not answer."""
        table = self._await(time.monotonic() + RETRY_SECONDS, [transaction_id(tp)])
        return table.transaction_version(transaction_id(tp)) if table is not None else None

    def accept_gap(self, tp: TopicPartition, beginning: int) -> None:
        """Go on at `beginning`: a person decided that the records before it are lost."""
        self._gaps[tp] = beginning

    def add_topic(self, topic: str) -> None:
        """Write down that `topic` feeds this table too, for the next start."""
        table = self.open()
        if table is None:
            return
        about = json.loads(table.metadata().description or "{}")
        if topic not in about.setdefault("topics", []):
            about["topics"].append(topic)
            table.alter.set_table_description(json.dumps(about))

    def knows(self, generation: str) -> bool:
        """Whether a commit has recorded this one of `generation_ids`, as far as `take_over` and `append` saw."""
        return generation in self._recorded

    def append(
        self, rows: pa.Table, spans: list[Span], *, generations: Collection[str] = (), once: str | None = None
    ) -> int:
        """Commit `rows` with the ends of `spans`; returns the number of rows written.

        `once` names rows that have no span: the commit that writes them records the name, a later one writes nothing.

        1. Read the newest version and compare the stored positions with those this object knows: one that differs is
           another writer's doing, PartitionFenced.
        2. Drop rows below the stored position (another table of the same topic was committed before a crash).
        3. Append rows and positions in one commit.
        4. If the commit fails, read the positions again before deciding: landed after all, try again, or fenced.
        """
        deadline, delay, attempted = time.monotonic() + RETRY_SECONDS, 0.2, False
        while True:
            asked = [*(transaction_id(s.tp) for s in spans), *([once] if once else [])]
            table = self._await(deadline, asked, self._held())
            if self._landed(table, spans, attempted=attempted):
                return 0
            ends = self._ends(spans)
            if once is not None and table is not None and table.transaction_version(once) is not None:
                return 0
            try:
                fresh = self._screen(table, _unseen(rows, spans, self._expected))
                reach("land:before-commit")
                attempted = True
                self._write(table, fresh, ends, [*generations, *([once] if once else [])])
                reach("land:after-write")
            except Exception as error:
                if not _may_pass(self.path, error) or time.monotonic() > deadline:
                    raise self._explained(error) from error
                log.warning("commit to %s failed, reading its state again: %s", self.path, first_line(error))
                self._store.pause(delay)
                delay = min(delay * 2, 5.0)
                continue
            reach("land:after-commit")
            self._expected.update(ends)
            self._recorded.update(generations)
            self._snapshot = table
            return int(fresh.num_rows)

    def _held(self) -> Snapshot | None:
        # A snapshot is held from one commit that went well to the next: after any other end it is opened anew.
        held, self._snapshot = self._snapshot, None
        return held

    def _await(self, deadline: float, asked: Iterable[str], held: Snapshot | None = None) -> Snapshot | None:
        """The newest version, which knows the app transactions `asked`; waits for a store that does not answer."""
        while True:
            try:
                found = self._store.refresh(self.path, held)
                if found is not None:
                    for name in asked:
                        found.transaction_version(name)
                return found  # noqa: TRY300 - what it waits for is all of this
            except UnavailableError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("%s Trying again.", error.message)
                self._store.pause(1.0)

    def _landed(self, table: Snapshot | None, spans: list[Span], *, attempted: bool) -> bool:
        """Whether an attempt that was reported as failed is there after all; raises PartitionFenced."""
        stored = {s.tp: table.transaction_version(transaction_id(s.tp)) if table is not None else None for s in spans}
        ends = self._ends(spans)
        if attempted and spans and stored == ends:
            self._expected.update(ends)
            return True
        for span in spans:
            if stored[span.tp] != self._expected.get(span.tp):
                raise PartitionFenced(
                    f"Another writer advanced {span.tp}: the lake is at offset {stored[span.tp]}, "
                    f"this sink left it at {self._expected.get(span.tp)}.",
                    why=f"{self.path} was written by a different process while this one held the partition.",
                    next="stop the other sink, or let both share one consumer group (same source name and kafka)",
                )
            self._refuse_gap(span)
        return False

    def _refuse_gap(self, span: Span) -> None:
        expected = self._expected.get(span.tp)
        if expected is None or not self._contiguous or self._gaps.get(span.tp) == span.start:
            return
        if expected < span.start:
            raise PartitionFenced(
                f"Offsets {expected} to {span.start} of {span.tp} would be missing from the lake.",
                why=f"The rows at hand begin at {span.start}, {self.path} ends at {expected}.",
                next="start the sink again: it reads on from what the lake holds",
            )

    def _ends(self, spans: list[Span]) -> dict[TopicPartition, int]:
        """The positions after `spans`. None goes back: a table that is ahead of others is given their rounds again."""
        return {s.tp: max(s.end, self._expected.get(s.tp) or 0) for s in spans}

    def _write(
        self, table: Snapshot | None, rows: pa.Table, ends: Mapping[TopicPartition, int], generations: Collection[str]
    ) -> None:
        transactions = {transaction_id(tp): end for tp, end in ends.items()}
        transactions.update({g: 0 for g in generations if g not in self._recorded})
        fitting = rows.select(self.schema.names).cast(self.schema)
        self._store.append(self.path, table, fitting, description=self._description, transactions=transactions)

    def _explained(self, error: Exception) -> CdcLakeError:
        if isinstance(error, CdcLakeError):
            return error
        if is_named(self.path, error):
            return store_error(self.path, error)
        if is_disk_full(error):
            return LakeError(
                f"The disk that holds {self.path} is full.",
                why=first_line(error),
                next="free space, then start the sink again: what was committed is intact",
                code="disk_full",
            )
        return LakeError(
            f"Rows could not be committed to {self.path}.",
            why=first_line(error),
            next="check the store's permissions and space, then start the sink again: what was committed is intact",
            code="commit_failed",
        )


def _unseen(rows: pa.Table, spans: list[Span], stored: Mapping[TopicPartition, int | None]) -> pa.Table:
    """`rows` without those below the stored positions (landed by an earlier, partly finished round)."""
    topic, partition, offset = (
        ("__topic", "__partition", "__offset") if "__topic" in rows.schema.names else ("topic", "partition", "offset")
    )
    for span in spans:
        position = stored.get(span.tp)
        if position is None or position <= span.start or rows.num_rows == 0:
            continue
        seen = pc.and_(
            pc.and_(pc.equal(rows[topic], span.tp.topic), pc.equal(rows[partition], span.tp.partition)),
            pc.less(rows[offset], position),
        )
        rows = rows.filter(pc.invert(seen))
    return rows


def _may_pass(path: str, error: Exception) -> bool:
    """Whether trying again can help: a lost race or a store's hiccup, but not a full disk or a missing right."""
    text = str(error)
    if is_refusal(text):
        return False
    # Of a data file that could not be put, delta-rs says so with an error of the class that a broken table has.
    if isinstance(error, UnavailableError) or isinstance(store_error(path, error), UnavailableError):
        return True
    final = (
        "Permission denied",
        *DISK_FULL,
        "Read-only file system",
        "Schema error",
        "not a directory",
    )
    return isinstance(error, (CommitFailedError, OSError)) and not any(f in text for f in final)
