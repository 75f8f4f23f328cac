"""The loop of rules: look for what has landed, evaluate it up to the cut, commit alerts with positions, go on."""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from cdc_lake.config import Config
from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError
from cdc_lake.query.merged import Merged, Ordered, merge
from cdc_lake.query.placed import Log, open_logs
from cdc_lake.query.session import Cache
from cdc_lake.react.batches import Batch, Told
from cdc_lake.react.engine import Finding, Memory
from cdc_lake.react.memories import Memories
from cdc_lake.react.places import Place
from cdc_lake.react.records import row_of
from cdc_lake.react.rulefile import Rule
from cdc_lake.react.standing import Standing, by_home, ledger_of
from cdc_lake.react.watch import CHUNK, Reader, Target, check

# Positions of rules that found nothing are committed so often: what is between is done again after a kill.
QUIET_SECONDS = 30.0


@dataclass(slots=True)
class Watched:
    """A rule that is evaluated: where it is, what is committed (`standing`, as the lake has it), and the error that
    stopped it."""

    target: Target
    memory: Memory
    standing: Standing
    committed: Place | None
    since: int
    found: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    error: CdcLakeError | None = None

    @property
    def place(self) -> Place:
        """Where the rule is."""
        return Place(self.memory.position, self.since)


@dataclass(slots=True)
class Watch:
    """Rules over a lake, evaluated by this process alone.

    Delivery: each finding is committed once, together with its rule's position in each source, and its memory; killed
    anywhere, the next run finds the rest. Order: findings of a rule are those of the order of changes (of several
    sources, the merged one), whatever was evaluated at once.
    """

    config: Config
    rules: Sequence[Rule]
    chunk: int = CHUNK
    told: Told | None = None
    watched: dict[str, Watched] = field(default_factory=dict)
    _readers: dict[str, Reader] = field(default_factory=dict)
    _cache: Cache = field(default_factory=Cache)
    _quiet_since: float = 0.0

    def round(self, *, final: bool = False) -> int:
        """Evaluate all that is at the cut now; how many findings were committed.

        `final` commits positions also where nothing was found. Raises RuleError for a rule that cannot be evaluated at
        all, LakeError when another process evaluates one of them.
        """
        con = open_connection()
        try:
            orders = Orders(con, open_logs(con, self.config, self._cache))
            for rule in self.rules:
                if rule.name not in self.watched:
                    self.watched[rule.name] = self._begin(con, rule, orders)
            read = dict.fromkeys(w.target.sources for w in self.watched.values())
            return sum(self._follow(orders.of(sources), final=final) for sources in read)
        finally:
            con.close()

    @property
    def failed(self) -> list[Watched]:
        """Rules that stand still, each with its error."""
        return [w for w in self.watched.values() if w.error is not None]

    def outcomes(self) -> dict[str, tuple[int, CdcLakeError | None]]:
        """By rule: the findings that were committed, and the error that stopped it."""
        return {name: (sum(w.found.values()), w.error) for name, w in self.watched.items()}

    def _begin(self, con: duckdb.DuckDBPyConnection, rule: Rule, orders: Orders) -> Watched:
        target = check(con, rule, orders.logs, self.config)
        order, standing = orders.of(target.sources), Standing.of(self.config, target)
        known = standing.place(order)
        if known is None:
            start = start_of(order, rule)
            return Watched(target, Memory(start, order.clock(start)), standing, None, start)
        memory = self._memories(standing.home).load(rule, known.position)
        memory = memory or remember(order, target, known, chunk=self.chunk)
        return Watched(target, memory, standing, known, known.since)

    def _follow(self, log: Ordered, *, final: bool) -> int:
        """Advance all rules over the same sources to the cut, those that stand furthest back first."""
        committed = 0
        self._heed_erasure(log)
        reader = self._readers.setdefault(log.source, Reader())
        while True:
            mine = [w for w in self.watched.values() if w.target.sources == log.sources and w.error is None]
            after = min((w.memory.position for w in mine), default=log.cut)
            if after >= log.cut:
                break
            committed += self._step(log, reader, [w for w in mine if w.memory.position == after])
        quiet = time.monotonic() - self._quiet_since > QUIET_SECONDS
        moved = [w for w in mine if w.place != w.committed]
        if moved and (final or quiet or any(w.committed is None for w in moved)):
            self._commit(log, moved, [])
        return committed

    def _heed_erasure(self, log: Ordered) -> None:
        """What was taken from the lake must not live on in this process: a memory whose file is gone is made anew."""
        for one in self.watched.values():
            known = one.committed
            if one.target.sources == log.sources and known is not None and one.error is None:
                rule, memories = one.target.rule, self._memories(one.standing.home)
                if not memories.there(rule, known.position):
                    one.memory = remember(log, one.target, known, chunk=self.chunk)
                    memories.save(rule, one.memory)

    def _step(self, log: Ordered, reader: Reader, group: list[Watched]) -> int:
        rows: list[dict[str, object]] = []
        now, begun, after = datetime.now(UTC), time.monotonic(), group[0].memory.position
        behind = {w.target.rule.name: w for w in group}
        for target, found, memory, error in reader.step(
            log, [(w.target, w.memory) for w in group], self._upto(log, group), chunk=self.chunk
        ):
            one = behind[target.rule.name]
            one.memory, one.error = memory, error
            rows += [row_of(target.rule, f, memory.position, now) for f in found]
            for f in found:
                one.found[f.change] += 1
        if rows:
            self._commit(log, [w for w in group if w.error is None], rows)
        if self.told is not None:
            for batch in _batches(log, group, after, (begun, time.monotonic()), len(rows)):
                self.told(batch)
        return len(rows)

    def _upto(self, log: Ordered, group: Sequence[Watched]) -> int | None:
        """Where the next rule stands: from there on, all are evaluated together."""
        after = group[0].memory.position
        ahead = [w.memory.position for w in self.watched.values() if w.target.sources == log.sources]
        return min((p for p in ahead if after < p <= log.cut), default=None)

    def _commit(self, log: Ordered, moved: Sequence[Watched], rows: Sequence[dict[str, object]]) -> None:
        """Write where the rules are now, those of one home in one commit.

        1. Write their memories. 2. Commit findings and positions. 3. Forget older memories.
        """
        for home, names in by_home([w.standing for w in moved]).items():
            mine, memories = [w for w in moved if w.target.rule.name in names], self._memories(home)
            for one in mine:
                memories.save(one.target.rule, one.memory)
            reach("rules:after-memory")
            to = {w.target.rule.name: w.standing.to(log, w.place) for w in mine}
            places = {k: v for w in mine for k, v in w.standing.moved(to[w.target.rule.name]).items()}
            ledger_of(self.config, home).write([r for r in rows if r["rule"] in names], places)
            for one in mine:
                one.committed, one.standing = one.place, to[one.target.rule.name]
                memories.forget(one.target.rule, but=one.memory.position)
            reach("rules:after-forget")
        self._quiet_since = time.monotonic()

    def _memories(self, home: str) -> Memories:
        return Memories(self.config.lake_uri, home, self.config.lake.options or None)


@dataclass(slots=True)
class Orders:
    """The logs of a lake as one opened them, and the orders that rules over them follow."""

    con: duckdb.DuckDBPyConnection
    logs: Sequence[Log]
    _made: dict[tuple[str, ...], Ordered] = field(default_factory=dict)

    def of(self, sources: tuple[str, ...]) -> Ordered:
        """The order of the changes of `sources`. Raises LakeError for a source without one."""
        if sources not in self._made:
            self._made[sources] = merge(self.con, self.logs, sources)
        return self._made[sources]


def _batches(log: Ordered, group: Sequence[Watched], after: int, times: tuple[float, float], found: int) -> list[Batch]:
    """What was evaluated at once, of each source; the findings are told of with the first."""
    upto = max(w.memory.position for w in group)
    before, behind = log.frontier(after), log.frontier(upto)
    return [
        Batch(
            source,
            tuple(w.target.rule.name for w in group),
            frozenset(table for w in group for table in w.target.tables_of(source)),
            before[source],
            behind[source],
            times,
            found if source == log.sources[0] else 0,
            error=next((w.error for w in group if w.error is not None), None),
        )
        for source in log.sources
    ]


def open_connection() -> duckdb.DuckDBPyConnection:
    """A DuckDB that spills into the system's folder for temporary files."""
    return duckdb.connect(config={"temp_directory": str(Path(tempfile.gettempdir()) / f"cdc-lake-{os.getpid()}")})


def start_of(log: Ordered, rule: Rule) -> int:
    """The position at which a new rule begins. Raises MomentError for a `start` that is none."""
    if not isinstance(log, Merged):
        _ = log.transactions  # a source without an order has no positions
    if rule.start == "now":
        return log.cut
    return 0 if rule.start == "beginning" else log.position(rule.start)


def remember(log: Ordered, target: Target, place: Place, *, chunk: int = CHUNK) -> Memory:
    """The memory of a rule at a position, made anew from the log: it was lost, or the rule is another one now.

    What it finds on the way was found before, or would have been by the rule as it is now; it is not found again.
    """
    memory, reader = Memory(place.since, log.clock(place.since)), Reader()
    while memory.position < place.position:
        before = memory
        ((_, _, memory, error),) = reader.step(log, [(target, before)], place.position, chunk=chunk)
        if error is not None:
            raise error
        if memory.position == before.position:
            return Memory(place.position, memory.clock, memory.rows)
    return memory


def tried(log: Ordered, target: Target, after: int, upto: int, *, chunk: int = CHUNK) -> list[tuple[int, Finding]]:
    """What a rule finds between two positions, each with the position at which it was evaluated. Writes nothing."""
    memory, reader, found = Memory(after, log.clock(after)), Reader(), list[tuple[int, Finding]]()
    while memory.position < upto:
        before = memory
        ((_, some, memory, error),) = reader.step(log, [(target, before)], upto, chunk=chunk)
        if error is not None:
            raise error
        found += [(memory.position, f) for f in some]
        if memory.position == before.position:
            break
    return found
