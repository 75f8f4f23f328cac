"""Land rounds of decoded records in all tables of one source, and know where to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from cdc_lake.crashpoints import reach
from cdc_lake.errors import OffsetsExpired, PartitionError, TopicRecreated
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout, tables
from cdc_lake.land.append import AppendTable, Span, generation_ids
from cdc_lake.land.batches import Batches
from cdc_lake.land.erasures import Screen
from cdc_lake.land.reading import last_keys, read_rows
from cdc_lake.land.store import DeltaStore, Store
from cdc_lake.land.versions import SchemaLog, recorded_versions

# Commits of different tables run side by side: each is mostly waiting for the store.
_COMMIT_THREADS = 4


@dataclass(frozen=True, slots=True)
class Round:
    """What one flush lands: the spans it covers, and the rows that were in them."""

    spans: Sequence[Span]
    rows: Sequence[tuple[str, TableId, pa.Table]] = ()
    transactions: pa.Table | None = None
    dead: pa.Table | None = None
    schemas: pa.Table | None = None


@dataclass(slots=True)
class Landed:
    """What a round did: rows per table, and topics that must stop with their reason."""

    rows: dict[TableId, int] = field(default_factory=dict)
    dead: int = 0
    stopped: dict[str, PartitionError] = field(default_factory=dict)


class Landing:
    """The change logs of one source.

    Every topic is routed to the tables whose rows it carries (one, unless sanitised topic names collide). The
    position of a topic-partition is the smallest one of its tables; a topic without a table yet keeps its position
    with the dead letters, so that nothing is read twice for want of a place to write it down.
    """

    def __init__(
        self,
        root: str,
        source: str,
        *,
        transaction_topic: str | None,
        options: dict[str, str] | None = None,
        pool: Executor | None = None,
        store: Store | None = None,
        batches: Batches | None = None,
    ) -> None:
        # Of a source of events: each round is a batch, which ends when its rows have landed.
        self._batches = batches
        self._root, self._source = root, source
        self._options = options
        self._store = store or DeltaStore(options)
        self._transaction_topic = transaction_topic
        self._dead = self._table(layout.dead_letters_path(root, source), tables.DEAD_LETTERS, contiguous=False)
        self._transactions = self._table(layout.transactions_path(root, source), tables.TRANSACTIONS)
        self._schemas = self._table(layout.schemas_path(root, source), tables.SCHEMAS)
        self._logs: dict[TableId, AppendTable] = {}
        self._routes: dict[str, list[TableId]] = {}
        self._generation: dict[str, tuple[str, ...]] = {}
        self._pool = pool or ThreadPoolExecutor(_COMMIT_THREADS, thread_name_prefix="commit")
        self._read_routes()

    @property
    def tables(self) -> list[TableId]:
        """The source tables that have a change log."""
        return sorted(self._logs)

    def take_over(
        self, tp: TopicPartition, *, beginning: int, end: int, topic_id: str, accept_gap: bool = False
    ) -> int:
        """Begin to write `tp`; the offset to read from.

        `accept_gap` goes on at `beginning` although records before it were lost.
        Raises TopicRecreated and OffsetsExpired: this partition must not be read.
        """
        homes = self._homes(tp.topic)
        generations = generation_ids(tp.topic, topic_id)
        if self._dead not in homes:
            self._dead.take_over([tp])
        found = [home.take_over([tp], generations).get(tp) for home in homes]
        positions = [position for position in found if position is not None]
        self._generation[tp.topic] = generations
        if self._batches is not None:
            self._batches.take_over(tp, [home.open() for home in homes if home is not self._dead])
        if not positions:
            return beginning
        position = min(positions)
        known = all(any(home.knows(g) for home in homes) for g in generations) or not _told(homes, generations)
        if not known or position > end:
            raise _recreated(tp, position, end)
        if position < beginning:
            if not accept_gap:
                raise _expired(tp, position, beginning, self.home(tp.topic))
            for home in homes:
                home.accept_gap(tp, beginning)
            return beginning
        return position

    def home(self, topic: str) -> TableId | None:
        """The first table whose rows came in `topic`; None before there was one."""
        return next(iter(self._routes.get(topic, ())), None)

    def position(self, tp: TopicPartition) -> int | None:
        """What the lake holds of `tp` now, whoever wrote it; None when nothing."""
        found = [home.stored(tp) for home in self._homes(tp.topic)]
        positions = [position for position in found if position is not None]
        return min(positions) if positions else None

    def beat(self, at: datetime) -> None:
        """Write down that of a source of events all has landed that will come in time up to `at`."""
        if self._batches is not None:
            self._batches.beat(at)

    def commit(self, work: Round) -> Landed:
        """Land one round.

        1. Schemas first: rows must never be ahead of what explains them.
        2. Tables that are new to a topic declare where they begin, before anything else of the topic moves on.
        3. Dead letters, so that no row is skipped without one.
        4. Each table's rows and positions, in one commit each, side by side.
        5. Transactions last: their END makes rows count, so it comes after them. So does the end of a batch of events.
        """
        landed = Landed()
        if work.schemas is not None and work.schemas.num_rows:
            self._schemas.append(work.schemas, [])
        bad = set(work.dead["topic"].to_pylist()) if work.dead is not None else set()
        self._declare(work, bad, landed)
        reach("land:before-dead-letters")
        self._commit_dead(work, bad, landed)
        reach("land:after-dead-letters")
        self._commit_tables(work, landed)
        reach("land:before-transactions")
        self._commit_transactions(work, landed)
        return landed

    def last_keys(self, topic: str, count: int) -> pa.Table | None:
        """Key and place of the events of a topic that landed last, `count` of them at least if there are so many."""
        home = self.home(topic)
        return None if home is None else last_keys(self._logs[home].open(), topic, count)

    def schema_log(self) -> SchemaLog:
        """Schema versions that are recorded already."""
        table = self._schemas.open()
        return SchemaLog(recorded_versions(read_rows(table)) if table is not None else ())

    def close(self) -> None:
        """Release the commit threads."""
        self._pool.shutdown()

    def _table(self, path: str, schema: pa.Schema, *, contiguous: bool = True) -> AppendTable:
        return AppendTable(path, schema, store=self._store, contiguous=contiguous)

    def _read_routes(self) -> None:
        for table in layout.list_tables(self._root, self._source, self._options):
            handle = self._log(table).open()
            if handle is None:
                del self._logs[table]
                continue
            for topic in json.loads(handle.metadata().description or "{}").get("topics", []):
                self._routes.setdefault(topic, []).append(table)

    def _log(self, table: TableId, topic: str = "") -> AppendTable:
        if table not in self._logs:
            about = {"schema": table.schema, "table": table.name, "topics": [topic]}
            path = layout.log_path(self._root, self._source, table)
            screen = Screen(self._store, self._root, self._source, table)
            self._logs[table] = AppendTable(
                path, tables.LOG, description=json.dumps(about), store=self._store, screen=screen
            )
        return self._logs[table]

    def _homes(self, topic: str) -> list[AppendTable]:
        if topic == self._transaction_topic:
            return [self._transactions]
        return [self._logs[table] for table in self._routes.get(topic, [])] or [self._dead]

    def _generations(self, spans: Iterable[Span]) -> list[str]:
        return sorted({g for s in spans for g in self._generation.get(s.tp.topic, ())})

    def _commit_dead(self, work: Round, bad: set[str], landed: Landed) -> None:
        routed = set(self._routes) | {topic for topic, _, _ in work.rows}
        if self._transaction_topic:
            routed.add(self._transaction_topic)
        letters = work.dead if work.dead is not None else tables.DEAD_LETTERS.empty_table()
        topics = {s.tp.topic for s in work.spans if s.tp.topic in bad or s.tp.topic not in routed}
        for topic in sorted(topics - landed.stopped.keys()):
            spans = [s for s in work.spans if s.tp.topic == topic]
            rows = letters.filter(pc.equal(letters["topic"], topic))

            def append(rows: pa.Table = rows, spans: list[Span] = spans) -> None:
                landed.dead += self._dead.append(rows, spans, generations=self._generations(spans))

            self._guard(topic, landed, append)

    def _declare(self, work: Round, bad: set[str], landed: Landed) -> None:
        for topic, table, _ in work.rows:
            route = self._routes.setdefault(topic, [])
            if table not in route:
                self._log(table, topic).add_topic(topic)
                route.append(table)
        for topic in sorted({s.tp.topic for s in work.spans}):
            route = self._routes.get(topic, [])
            if len(route) < 2 and topic not in bad:
                continue  # the table's own commit says where it began
            for log in (self._logs[table] for table in route):
                starts = [Span(s.tp, s.start, s.start) for s in work.spans if s.tp.topic == topic and log.lacks(s.tp)]
                if starts:
                    generations = self._generations(starts)
                    self._guard(
                        topic, landed, partial(log.append, tables.LOG.empty_table(), starts, generations=generations)
                    )

    def _commit_tables(self, work: Round, landed: Landed) -> None:
        rows: dict[TableId, list[pa.Table]] = {}
        for topic, table, part in work.rows:
            if topic not in landed.stopped:
                rows.setdefault(table, []).append(part)
        spans: dict[TableId, list[Span]] = {}
        for span in work.spans:
            if span.tp.topic not in landed.stopped:
                for table in self._routes.get(span.tp.topic, []):
                    spans.setdefault(table, []).append(span)

        def one(table: TableId) -> None:
            parts = rows.get(table)
            whole = pa.concat_tables(parts) if parts else tables.LOG.empty_table()
            mine = spans[table]
            try:
                landed.rows[table] = self._log(table).append(whole, mine, generations=self._generations(mine))
            except PartitionError as error:
                landed.stopped.update({s.tp.topic: error for s in mine})

        # What is logged there bears the ids of the flush, as it does here.
        contexts = {table: copy_context() for table in spans}
        list(self._pool.map(lambda table: contexts[table].run(one, table), spans))

    def _commit_transactions(self, work: Round, landed: Landed) -> None:
        if self._batches is not None:
            if work.transactions is not None:
                self._batches.end(work.transactions, [s for s in work.spans if s.tp.topic not in landed.stopped])
            return
        spans = [s for s in work.spans if s.tp.topic == self._transaction_topic]
        if not spans or self._transaction_topic is None or self._transaction_topic in landed.stopped:
            return
        rows = work.transactions if work.transactions is not None else tables.TRANSACTIONS.empty_table()
        generations = self._generations(spans)
        self._guard(
            self._transaction_topic, landed, lambda: self._transactions.append(rows, spans, generations=generations)
        )

    @staticmethod
    def _guard(topic: str, landed: Landed, action: Callable[[], object]) -> None:
        try:
            action()
        except PartitionError as error:
            landed.stopped[topic] = error


def _told(homes: Sequence[AppendTable], generations: Sequence[str]) -> bool:
    """Whether the lake ever learned the topic's id; a broker may have told none when the topic was new."""
    return bool(generations) and any(home.knows(generations[0]) for home in homes)


def _recreated(tp: TopicPartition, position: int, end: int) -> TopicRecreated:
    return TopicRecreated(
        f"Topic {tp.topic} is not the one that was read before: it was deleted and created again.",
        why=f"The lake holds {tp} up to offset {position}; the topic that Kafka has now ends at {end} "
        "or has another topic id. Its offsets say nothing about what the lake holds.",
        next="give the connector another topic.prefix and register it again: its snapshot is landed beside the old log",
    )


def _expired(tp: TopicPartition, position: int, beginning: int, table: TableId | None) -> OffsetsExpired:
    return OffsetsExpired(
        f"Records {position} to {beginning - 1} of {tp} are gone: Kafka deleted them before they were landed.",
        why="The topic's retention is shorter than the time the sink was away.",
        next=f"read the table again with: cdc-lake connector snapshot NAME {table or 'TABLE'}  and go on past the gap "
        f"with: cdc-lake sink run --accept-gap {tp.topic}  (and raise retention.ms of the topic)",
    )
