"""The loop of streaming models: look for what has landed, evaluate it up to the cut, commit rows with positions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from cdc_lake.config import Config
from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError
from cdc_lake.land.layout import stream_state_path
from cdc_lake.query.merged import Merged, Ordered
from cdc_lake.query.placed import Log, open_logs
from cdc_lake.query.session import Cache
from cdc_lake.react.batches import Batch, Told
from cdc_lake.react.engine import Memory
from cdc_lake.react.memories import Memories
from cdc_lake.react.places import Place
from cdc_lake.react.run import Orders, open_connection
from cdc_lake.react.stream.beside import kept_beside, met, seen_at
from cdc_lake.react.stream.modelfile import Model, ModelError
from cdc_lake.react.stream.shape import OWN, Shape, check, owner
from cdc_lake.react.stream.step import Input, Step, advance
from cdc_lake.react.stream.table import ModelTable
from cdc_lake.react.stream.work import WORK, make
from cdc_lake.react.watch import CHUNK, Reader
from cdc_lake.sqltext import ident

# Positions of models that made nothing are committed so often: what is between is done again after a kill.
QUIET_SECONDS = 30.0


@dataclass(slots=True)
class Running:
    """A model that is kept up: where it is, what is committed, and the error that stopped it."""

    shape: Shape
    memory: Memory
    committed: Place | None
    since: int
    rows: int = 0
    late: int = 0
    error: CdcLakeError | None = None
    quiet_since: float = field(default_factory=time.monotonic)

    @property
    def place(self) -> Place:
        """Where the model is."""
        return Place(self.memory.position, self.since, form_of(self.shape))


def form_of(shape: Shape) -> int:
    """The model's form as a number that fits an app transaction."""
    return int(shape.fingerprint, 16)


@dataclass(slots=True)
class Streams:
    """Streaming models over a lake, each kept up by this process alone.

    Delivery: each row is committed once, together with its model's position and memory; killed anywhere, the next run
    makes the rest. Order: the rows of a model are those of the order of changes, whatever was evaluated at once.
    """

    config: Config
    models: Sequence[Model]
    chunk: int = CHUNK
    told: Told | None = None
    running: dict[str, Running] = field(default_factory=dict)
    _cache: Cache = field(default_factory=Cache)

    def round(self, *, final: bool = False) -> int:
        """Evaluate all that is at the cut now; how many rows were committed.

        `final` commits positions also where nothing was made. Raises ModelError for a model that is refused, LakeError
        when another process evaluates one of them.
        """
        con = open_connection()
        try:
            orders = Orders(con, open_logs(con, self.config, self._cache))
            for model in self.models:
                if model.name not in self.running:
                    self.running[model.name] = self._begin(con, model, orders)
            found = 0
            for one in self.running.values():
                if one.error is None:
                    found += self._follow(orders.of(one.shape.sources), one, final=final)
            return found
        finally:
            con.close()

    @property
    def failed(self) -> list[Running]:
        """Models that stand still, each with its error."""
        return [r for r in self.running.values() if r.error is not None]

    def outcomes(self) -> dict[str, tuple[int, CdcLakeError | None]]:
        """By model: the rows that were committed, and the error that stopped it."""
        return {name: (r.rows, r.error) for name, r in self.running.items()}

    def _begin(self, con: duckdb.DuckDBPyConnection, model: Model, orders: Orders) -> Running:
        shape = check(con, model, orders.logs)
        log = orders.of(shape.sources)
        known = self._table(shape).place()
        if known is None:
            start = start_of(log, shape)
            return Running(shape, Memory(start, log.clock(start)), None, start)
        if known.form != form_of(shape):
            raise ModelError(
                f"The model {model.name} is another one than that which made its rows.",
                why="Its SQL, its header or the types of its columns changed; rows of both would stand side by side.",
                next=f"make its rows anew: cdc-lake stream replay {model.name}",
                code="model_changed",
            )
        return Running(shape, self._remembered(log, shape, known), known, known.since)

    def _remembered(self, log: Ordered, shape: Shape, known: Place) -> Memory:
        if not shape.remembers:
            return Memory(known.position, log.clock(known.position))
        found = self._memories(shape).load(shape, known.position)
        return found or remember(log, shape, known.since, known.position, chunk=self.chunk)

    def _follow(self, log: Ordered, one: Running, *, final: bool) -> int:
        """Advance a model to the cut, and commit what it makes on the way."""
        self._heed_erasure(log, one)
        made, begun = 0, time.monotonic()
        try:
            for step in steps(log, one.shape, one.memory, log.cut, chunk=self.chunk):
                after, one.memory = one.memory.position, step.memory
                made += step.rows.num_rows
                if step.rows.num_rows or (step.late is not None and step.late.num_rows):
                    self._commit(one, step)
                self._tell(log, one, after, begun, step)
                begun = time.monotonic()
        except ModelError as error:
            one.error = error
            self._tell(log, one, one.memory.position, begun, None)
        due = time.monotonic() - one.quiet_since > QUIET_SECONDS or one.committed is None
        if one.place != one.committed and (final or due):
            self._commit(one, Step(empty_rows(one.shape), None, one.memory))
        return made

    def _tell(self, log: Ordered, one: Running, after: int, begun: float, step: Step | None) -> None:
        if self.told is None:
            return
        rows, late = (step.rows.num_rows, step.late) if step is not None else (0, None)
        before, behind = log.frontier(after), log.frontier(one.memory.position)
        streams = {s.alias for s in one.shape.query.streams}
        for source in one.shape.sources:
            first = source == one.shape.source
            mine = (t for a, t in one.shape.tables.items() if a in streams and one.shape.owners[a] == source)
            self.told(
                Batch(
                    source,
                    (one.shape.name,),
                    frozenset(mine),
                    before[source],
                    behind[source],
                    (begun, time.monotonic()),
                    rows if first else 0,
                    late.num_rows if late is not None and first else 0,
                    one.error,
                )
            )

    def _heed_erasure(self, log: Ordered, one: Running) -> None:
        """What was taken from the lake must not live on in this process: a memory whose file is gone is made anew."""
        known = one.committed
        if known is not None and one.shape.remembers and not self._memories(one.shape).there(one.shape, known.position):
            one.memory = remember(log, one.shape, known.since, known.position, chunk=self.chunk)
            self._memories(one.shape).save(one.shape, one.memory)

    def _commit(self, one: Running, step: Step) -> None:
        """Write where a model is now.

        1. Write its memory. 2. Commit rows and position. 3. Forget older memories.
        """
        memories = self._memories(one.shape)
        if one.shape.remembers:
            memories.save(one.shape, one.memory)
            reach("stream:after-memory")
        self._table(one.shape).commit(step.rows, step.late, one.committed, one.place)
        one.committed, one.quiet_since = one.place, time.monotonic()
        one.rows += step.rows.num_rows
        one.late += step.late.num_rows if step.late is not None else 0
        if one.shape.remembers:
            memories.forget(one.shape, but=one.memory.position)
            reach("stream:after-forget")

    def _table(self, shape: Shape) -> ModelTable:
        return table_of(self.config, shape)

    def _memories(self, shape: Shape) -> Memories:
        return memories_of(self.config, shape)


def table_of(config: Config, shape: Shape) -> ModelTable:
    """The table of a model's rows."""
    return ModelTable(config.lake_uri, shape.source, shape.name, config.lake.options or None)


def memories_of(config: Config, shape: Shape) -> Memories:
    """What a model remembers."""
    options = config.lake.options or None
    return Memories(config.lake_uri, shape.source, options, path=stream_state_path, kind="model")


def start_of(log: Ordered, shape: Shape) -> int:
    """The position at which a new model begins, and not before what is kept of its tables."""
    start = shape.model.start
    wanted = log.cut if start == "now" else 0 if start == "beginning" else log.position(start)
    return max(wanted, kept_from(log, shape))


def kept_from(log: Ordered, shape: Shape) -> int:
    """The position behind which the logs of all of a model's tables are whole."""
    starts = {
        one.source: max(t.log.start for t in one.state.tables if t.table in shape.tables_of(one.source))
        for one in (log.logs if isinstance(log, Merged) else (log,))
    }
    if isinstance(log, Merged):
        return log.reached(starts)
    return max(starts[log.source], kept_beside(log, shape))


def steps(log: Ordered, shape: Shape, memory: Memory, upto: int, *, chunk: int = CHUNK) -> Iterator[Step]:
    """Evaluate a model from where its memory is up to a position, chunk by chunk.

    Raises ModelError when a value cannot be computed, or what it would need is no longer kept.
    """
    if isinstance(log, Log):
        upto = met(log, shape, memory.position, upto)
    if memory.position < upto:
        _refuse_before_kept(log, shape, memory.position)
        reader, versions = Reader(), _versions(log, shape, memory.position)
    while memory.position < upto:
        placed = log.upto(memory.position, upto, chunk)
        if placed.upto == memory.position:
            return  # no transaction is there; what is at the cut is reached by the next one
        streams = {s.alias: shape.tables[s.alias] for s in shape.query.streams}
        queries = reader.changes(placed, set(streams.values()))
        changes = {alias: f"({queries[table]})" for alias, table in streams.items()}
        step = advance(log.con, shape, memory, Input(placed, changes, versions))
        memory = step.memory
        yield step


def _refuse_before_kept(log: Ordered, shape: Shape, position: int) -> None:
    kept = kept_from(log, shape)
    if position < kept:
        raise ModelError(
            f"The model {shape.name} would need changes behind position {position}; they are kept from {kept} on.",
            why="By the retention of a class, the log of one of its tables begins later.",
            next=f"replay it from a later moment: cdc-lake stream replay {shape.name} --from MOMENT",
            code="model_before_kept",
        )


def _versions(log: Ordered, shape: Shape, after: int) -> Mapping[str, str]:
    """The versions of each table that an event behind `after` may meet, with the columns that the query names."""
    found = dict[str, str]()
    if isinstance(log, Merged):
        return found  # streams of several sources meet no tables
    for number, source in enumerate(shape.query.tables):
        query = owner(log, source).versions(shape.tables[source.alias], f"{WORK}_of_{number}")
        columns = [str(c[0]) for c in log.con.execute(f"DESCRIBE {query}").fetchall()]
        own = ("__from_position", "__to_position")
        named = ", ".join(ident(c) for c in columns if c in own or c.lower() in shape.query.names)
        first = seen_at(log, shape.beside[source.alias], after) if source.alias in shape.beside else after
        where = f"__to_position IS NULL OR __to_position > {first}"
        found[source.alias] = make(log.con, f"versions_{number}", f"SELECT {named} FROM ({query}) WHERE {where}")
    return found


def remember(log: Ordered, shape: Shape, since: int, position: int, *, chunk: int = CHUNK) -> Memory:
    """The memory of a model at a position, made anew from the log; its rows on the way are there already."""
    memory = Memory(since, log.clock(since))
    for step in steps(log, shape, memory, position, chunk=chunk):
        memory = step.memory
    return Memory(position, memory.clock, memory.rows)


def empty_rows(shape: Shape) -> pa.Table:
    """No rows, with the columns of the model's table."""
    columns = ", ".join(f"CAST(NULL AS {t}) AS {ident(n)}" for n, t in (*shape.columns, *OWN))
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql(f"SELECT {columns} WHERE false").to_arrow_table()
