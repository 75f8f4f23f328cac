"""One run of the simulation: the product's pipeline, landing, order and cut over a Kafka and a Delta log in memory.

A seed chooses the workload and the faults. What is checked holds whatever they are:

- every record is in the lake exactly once, dead letters counted;
- whenever the lake is read, all tables show what the source showed after one transaction, and that moment never goes
  back;
- once everything has landed, they show what the source shows now.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import duckdb

from cdc_lake import crashpoints
from cdc_lake.config import Config, Table
from cdc_lake.config import Sink as SinkConfig
from cdc_lake.consume.memory import MemoryBroker, MemoryKafka
from cdc_lake.decode.debezium import Decoder
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout
from cdc_lake.land.landing import Landing
from cdc_lake.pipeline import Sink
from cdc_lake.progress import Progress
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import prepare, read_source
from tests.lake_model import SOURCE
from tests.lakes import CONNECTOR, Inline
from tests.simulation.source import TRANSACTIONS, KafkaFeed
from tests.simulation.store import MemoryStore
from tests.unit.test_project_model import BAG, Workload

TABLES = (TableId("public", "a"), TableId("public", "b"), BAG)
CRASH_POINTS = (
    "land:after-dead-letters",
    "land:before-commit",
    "store:data-file",
    "land:after-write",
    "land:after-commit",
    "land:before-transactions",
)
Coordinates = tuple[str, int, int]
# Shared by all runs of a process: a database costs more than a run.
_ENGINES: dict[str, duckdb.DuckDBPyConnection] = {}
_NUMBERS = itertools.count()


class Crash(BaseException):
    """The process is gone: nothing after this line runs."""


class Broken(AssertionError):
    """A promise does not hold. Says which, and how to see it again."""


@dataclass
class Faults:
    """What goes wrong, by chance, while `on`. `seen` counts what did."""

    chance: Random
    seen: Counter[str]
    on: bool = False

    def at_point(self, point: str) -> None:
        """A kill -9 at a named point."""
        if self.on and point in CRASH_POINTS and self.chance.random() < 0.03:
            self.seen["killed at " + point] += 1
            raise Crash(point)

    def in_store(self, step: str) -> None:
        """A store that fails before it commits, or does so and does not say it."""
        if self.on and self.chance.random() < 0.04:
            self.seen["the store failed " + step] += 1
            raise OSError(f"no answer {step}")


@dataclass(frozen=True)
class MemoryLake(Lake):
    """A lake whose Delta logs are in a MemoryStore."""

    store: MemoryStore | None = None

    def open(self, path: str):  # type: ignore[no-untyped-def]
        return self.store.open(path) if self.store is not None else None


class Simulation:
    """A source, a Kafka, a lake, and sinks that come and go."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder, self.chance = seed, folder, Random(seed)
        self.seen: Counter[str] = Counter()
        self.faults = Faults(self.chance, self.seen)
        self.kafka = MemoryKafka()
        self.store = MemoryStore(self.faults.in_store)
        self.feed = KafkaFeed(
            folder, TABLES[:2], TABLES[2:], self.chance.choice([1, 2, 3]), kafka=self.kafka, chance=self.chance
        )
        self.workload = Workload(self.feed, self.chance)
        self.position = 0
        # Reading costs more than all the rest of a run: one in eight reads, and its sinks leave things half done.
        self.reads = seed % 8 == 0

    def run(self) -> Counter[str]:
        """Play all of it; Broken when a promise does not hold. What went wrong on the way."""
        crashpoints.on_reach = self.faults.at_point
        try:
            first = self.feed.begin()
            first.insert(TABLES[0], 1, 1, "long text")
            first.insert(TABLES[1], 1, 1, None)
            first.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
            first.commit()
            for _ in range(self.chance.randint(1, 3)):
                for _ in range(self.chance.randint(1, 5)):
                    self.workload.transaction()
                self.faults.on = True
                self._work()
                self.faults.on = False
                if self.reads and self.chance.random() < 0.6:
                    self.read()
            self._finish()
        finally:
            crashpoints.on_reach = None
        return self.seen

    # -- sinks ------------------------------------------------------------------------------------------------------

    def sink(self) -> Sink:
        """A new process."""
        inline = Inline()
        chosen = SinkConfig(flush_seconds=self.chance.choice([1e-9, 3600.0, 1e-9 if self.reads else 3600.0]))
        config = Config(root=self.folder, sink=chosen, tables={"*.*": Table()})
        topic = CONNECTOR.transaction_topic
        landing = Landing(config.lake_uri, SOURCE, transaction_topic=topic, pool=inline, store=self.store)  # type: ignore[arg-type]
        broker = self.kafka.broker(max_records=self.chance.choice([2, 5, 20] if self.reads else [2, 20, 500, 500]))
        decoder = Decoder(transaction_topic=topic, home=landing.home, duck=_engine("decode").cursor())
        return Sink(config, CONNECTOR, broker, landing, worker=inline, decoder=decoder)

    def _work(self) -> None:
        """A sink works until it has caught up or is killed; perhaps another one was before it, and writes late."""
        late = [self._stopped_one()] if self.chance.random() < 0.3 else []
        sink, steps = self.sink(), itertools.count()
        wakes = self.chance.randint(1, 6)

        def between(_: Progress) -> None:
            if next(steps) == wakes:
                self._wake(late)
            self._disturb(sink)

        try:
            sink.run(until_caught_up=True, on_progress=between)
        except Crash:
            self.kafka.crash(_broker(sink))
        self._wake(late)

    def _stopped_one(self) -> Sink | None:
        """A process that was paused with a full buffer, its partitions given to another; None when it was killed."""
        sink = self.sink()
        _broker(sink).subscribe(sink.pattern, sink)
        try:
            for _ in range(self.chance.randint(1, 3)):
                sink._step()
        except Crash:
            return None
        finally:
            self.kafka.crash(_broker(sink))
        return sink

    def _wake(self, late: list[Sink | None]) -> None:
        sink = late.pop() if late else None
        if sink is None:
            return
        with contextlib.suppress(Crash):
            sink._drain()
        if sink.progress.stopped or sink._contested:
            self.seen["a late writer was fenced"] += 1

    def _disturb(self, sink: Sink) -> None:
        """A partition falls behind the others, the group rebalances, or the process is killed between two steps."""
        what = self.chance.random()
        held = sorted(sink._held)
        if what < 0.25 and held:
            _broker(sink).pause(self.chance.sample(held, self.chance.randint(1, len(held))))
        elif what < 0.7:
            _broker(sink).resume(held)
        elif what < 0.8:
            self.seen["rebalance"] += 1
            self.kafka.rebalance()
        elif what < (0.92 if self.reads else 0.82):
            self.seen["killed between steps"] += 1
            raise Crash("between steps")

    def _finish(self) -> None:
        sink = self.sink()
        progress = sink.run(until_caught_up=True)
        if progress.stopped:
            self._broken(f"a sink without faults stopped: {progress.stopped}")
        self.check_landing()
        if self.reads:
            self.read(everything=True)

    # -- promises ---------------------------------------------------------------------------------------------------

    def check_landing(self) -> None:
        """Every record of Kafka is in the lake once."""
        root = self._root
        landed: list[Coordinates] = []
        for path in [*(layout.log_path(root, SOURCE, t) for t in TABLES), layout.transactions_path(root, SOURCE)]:
            landed += [(r["__topic"], r["__partition"], r["__offset"]) for r in self.store.rows(path)]
        dead = self.store.rows(layout.dead_letters_path(root, SOURCE))
        landed += [(r["topic"], r["partition"], r["offset"]) for r in dead]
        twice = [c for c, n in Counter(landed).items() if n > 1]
        sent = self._in_kafka()
        if twice or set(landed) != sent:
            self._broken(f"landed twice: {twice}, absent: {sent - set(landed)}, from nowhere: {set(landed) - sent}")
        if len(dead) != self.feed.poison:
            self._broken(f"{len(dead)} dead letters, {self.feed.poison} records were spoilt")

    def read(self, *, everything: bool = False) -> None:
        """All tables at one cut, against the model; `everything`: at the newest moment."""
        con, own = _engine("read"), f"lake.run_{next(_NUMBERS)}"
        con.execute(f"CREATE SCHEMA {own}")
        try:
            state = read_source(con, MemoryLake(self._root, own=own, store=self.store), SOURCE, lambda _: True)
            if {t.table for t in state.tables} != set(TABLES):
                return  # a table is waited for from its first landed row on
            cut = state.cut
            if everything and (cut.stalled or cut.tx_id != f"{self.feed.transactions:05d}"):
                self._broken(f"everything has landed, and the cut is {cut}")
            if cut.position < self.position:
                self._broken(f"the cut went back from {self.position} to {cut.position}")
            self.position = cut.position
            for number, table in enumerate(state.tables):
                if table.error is not None:
                    self._broken(f"{table.table}: {table.error.message} {table.error.why}")
                view = state.view(con, table, f"settled_{number}")
                rows = con.execute(keyed_sql(view) if view.shapes.keyed else bag_sql(view)).fetchall()
                found = sorted((r[:3] for r in rows), key=repr)
                expected = self.feed.at(cut.tx_id, table.table)
                if found != expected or any(r[-1] for r in rows):
                    self._broken(f"{table.table} at {cut}:\nshown {found}\nmodel {expected}")
            self.seen["reads"] += 1
        finally:
            con.execute(f"DROP SCHEMA {own} CASCADE")

    @property
    def _root(self) -> str:
        return str(self.folder / "lake")

    def _in_kafka(self) -> set[Coordinates]:
        topics = [TopicPartition(f"{SOURCE}.{t}", p) for t in TABLES for p in range(self.feed.partitions)]
        logs = {tp: self.kafka._log(tp) for tp in [*topics, TopicPartition(TRANSACTIONS, 0)]}
        return {(tp.topic, tp.partition, r.offset) for tp, log in logs.items() for r in log.records}

    def _broken(self, what: str) -> None:
        raise Broken(
            f"seed {self.seed}: {what}\nfaults: {dict(self.seen)}\n"
            f"again: SEED={self.seed} python -m pytest tests/simulation/test_simulation.py"
        )


def _broker(sink: Sink) -> MemoryBroker:
    broker = sink._broker
    assert isinstance(broker, MemoryBroker)
    return broker


def _engine(what: str) -> duckdb.DuckDBPyConnection:
    if what not in _ENGINES:
        _ENGINES[what] = con = duckdb.connect(config={"threads": 1})
        con.execute("SET TimeZone = 'UTC'; PRAGMA disable_optimizer")  # planning costs more than a handful of rows
        if what == "read":
            prepare(con)
    return _ENGINES[what]


def simulate(seed: int) -> Counter[str]:
    """One run, in a folder of its own in memory where there is one."""
    shared = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of our own in it
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-simulation-", dir=shared if shared.is_dir() else None))
    try:
        return Simulation(seed, folder).run()
    finally:
        shutil.rmtree(folder)
