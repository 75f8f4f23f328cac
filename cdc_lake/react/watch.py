"""Rules on a lake: which sources and tables each reads, checked, and advanced to the cut, chunk by chunk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, suggest
from cdc_lake.events import TableId
from cdc_lake.query.merged import Ordered, OrderedPlaced
from cdc_lake.query.placed import Log, unknown_table
from cdc_lake.react.engine import Compiled, Finding, Memory, advance
from cdc_lake.react.expressions import bind, check_expressions, expressions_of
from cdc_lake.react.rulefile import Rule, RuleError, place_in
from cdc_lake.react.stream.modelfile import EVENT_TIME
from cdc_lake.sqltext import ident

# Transactions that are read at once: bounds memory, and what is done again after a kill.
CHUNK = 20_000
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UBIGINT", "UHUGEINT", "DECIMAL", "FLOAT", "DOUBLE")
_BATCH = "lake.internal.rule_batch"


@dataclass(frozen=True, slots=True)
class Target:
    """A checked rule, and by stream the source and the table that it reads."""

    compiled: Compiled
    owners: Mapping[str, str]
    tables: Mapping[str, TableId]

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self.compiled.rule

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose tables it reads, by name."""
        return tuple(sorted(set(self.owners.values())))

    def tables_of(self, source: str) -> frozenset[TableId]:
        """The tables of one source that it reads."""
        return frozenset(self.tables[stream] for stream, owner in self.owners.items() if owner == source)


def check(con: duckdb.DuckDBPyConnection, rule: Rule, logs: Sequence[Log], config: Config) -> Target:
    """The rule with its tables. Raises RuleError or UsageError: it does not parse, cannot be maintained incrementally,
    or names what is not there, or is in more than one source."""
    check_expressions(con, rule)
    for i, name in enumerate(rule.notify or ()):
        if name not in config.rules.outputs:
            known = list(config.rules.outputs)
            why = suggest(name, known) or f"`rules.outputs` in cdc-lake.yaml has: {', '.join(known) or 'none'}"
            where = place_in(rule.file, ("notify", i))
            raise RuleError(f"{where}: there is no output {name}.", why=why, next=f"edit {rule.file}")
    owners = _owners(rule, logs)
    tables = {name: _table(log, rule.streams[name].table) for name, log in owners.items()}
    rule = _with_times(rule, {name for name, log in owners.items() if log.events})
    compiled = Compiled.of(rule, {name: str(table) for name, table in tables.items()})
    _bind(con, compiled, owners, tables)
    return Target(compiled, {name: log.source for name, log in owners.items()}, tables)


def _with_times(rule: Rule, streams: Collection[str]) -> Rule:
    """An event says itself when it was."""
    timed = {
        n: s.model_copy(update={"time": EVENT_TIME}) if n in streams and s.time is None else s
        for n, s in rule.streams.items()
    }
    return rule.model_copy(update={"streams": timed})


def _owners(rule: Rule, logs: Sequence[Log]) -> dict[str, Log]:
    """The log of each stream: one that has all of the tables, else the only one that has the table."""
    names = {s: rule.streams[s].table for s in dict.fromkeys(rule.used)}
    fitting = [log for log in logs if all(log.find(n) is not None for n in names.values())]
    if len(fitting) == 1:
        return dict.fromkeys(names, fitting[0])
    found = {stream: [log for log in logs if log.find(name) is not None] for stream, name in names.items()}
    for stream, having in found.items():
        where = place_in(rule.file, ("streams", stream, "table"))
        if not having:
            error = unknown_table(names[stream], logs)
            raise RuleError(f"{where}: {error.message}", why=error.why, next=error.next, code="no_table")
        if len(having) > 1:
            raise RuleError(
                f"{where}: {names[stream]} is a table of {' and of '.join(log.source for log in having)}.",
                why="Nothing says which of them is meant.",
                next="follow tables that only one source has, or that one source has all of",
            )
    return {stream: log for stream, (log,) in found.items()}


def _table(log: Log, name: str) -> TableId:
    found = log.find(name)
    if found is None:
        raise ValueError("the log was chosen for its tables")
    return found


def _bind(
    con: duckdb.DuckDBPyConnection, compiled: Compiled, owners: Mapping[str, Log], tables: Mapping[str, TableId]
) -> None:
    """Raise RuleError for an expression that does not fit its table."""
    kinds: dict[str, str] = {}
    for stream in compiled.streams:
        log = owners[stream.stream]
        relation, columns = log.empty(tables[stream.stream]), log.columns(tables[stream.stream])
        for one, role in stream.expressions():
            kind = bind(con, one, relation, columns)
            if role in ("where", "when") and kind != "BOOLEAN":
                raise one.refused("it is no condition.", f"It is of the type {kind}.", wrong=True)
            if role == "time" and not kind.startswith(("TIMESTAMP", "DATE")):
                raise one.refused("it is no time.", f"It is of the type {kind}.", wrong=True)
            if role == "value":
                kinds[str(one.path[-1])] = kind
    empty = ", ".join(f"CAST(NULL AS {kind}) AS {ident(name)}" for name, kind in kinds.items()) or "NULL AS nothing"
    for one in (e for e in expressions_of(compiled.rule) if e.aggregates):
        kind = bind(con, one, f"(SELECT {empty})", list(kinds))
        if one.path == ("count", "having") and kind != "BOOLEAN":
            raise one.refused("it is no condition.", f"It is of the type {kind}.", wrong=True)
        if one.path == ("anomaly", "value") and not kind.startswith(_NUMBERS):
            raise one.refused("it is no number.", f"It is of the type {kind}.", wrong=True)


@dataclass(slots=True)
class Reader:
    """Advances rules over one order of changes. `lows` say what need not be read again at a position."""

    lows: dict[TableId, tuple[int, Mapping[tuple[str, int], int]]] = field(default_factory=dict)

    def step(
        self, log: Ordered, group: Sequence[tuple[Target, Memory]], upto: int | None = None, *, chunk: int = CHUNK
    ) -> Iterator[tuple[Target, list[Finding], Memory, CdcLakeError | None]]:
        """One chunk for rules that stand at one position: what each found, and its memory then.

        A rule that cannot be evaluated stays where it was and comes with its error; the others go on.
        """
        after = group[0][1].position
        placed = log.upto(after, log.cut if upto is None else upto, chunk)
        batches = self.batches(placed, {t for target, _ in group for t in target.tables.values()})
        for target, memory in group:
            changes = {stream: batches[table] for stream, table in target.tables.items()}
            try:
                found, after_it = advance(log.con, target.compiled, memory, placed, changes)
            except CdcLakeError as error:
                yield target, [], memory, error
            else:
                yield target, found, after_it, None

    def batches(self, placed: OrderedPlaced, tables: set[TableId]) -> dict[TableId, str]:
        """The placed changes of each table, decoded once for all who read them."""
        made = {}
        for number, (table, changes) in enumerate(self.changes(placed, tables).items()):
            made[table] = f"{_BATCH}_{number}"
            placed.log.con.execute(f"CREATE OR REPLACE TABLE {made[table]} AS {changes}")
        return made

    def changes(self, placed: OrderedPlaced, tables: set[TableId]) -> dict[TableId, str]:
        """Queries for the placed changes of each table: who reads them once leaves out what it does not need."""
        found = {}
        for table in sorted(tables):
            at, lows = self.lows.get(table, (-1, {}))
            known = lows if at == placed.after else {}
            found[table] = placed.changes(table, known)
            self.lows[table] = (placed.upto, placed.lows_after(table, known))
        return found
