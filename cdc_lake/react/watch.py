"""Rules on a lake: which source and tables each reads, checked, and advanced to the cut, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, suggest
from cdc_lake.events import TableId
from cdc_lake.query.placed import Log, Placed, unknown_table
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
    """A checked rule, the source whose tables it reads, and the table of each stream."""

    compiled: Compiled
    source: str
    tables: Mapping[str, TableId]

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self.compiled.rule


def check(con: duckdb.DuckDBPyConnection, rule: Rule, logs: Sequence[Log], config: Config) -> Target:
    """The rule with its tables. Raises RuleError or UsageError: it does not parse, cannot be maintained incrementally,
    names what is not there, or reads tables of several sources."""
    check_expressions(con, rule)
    for i, name in enumerate(rule.notify or ()):
        if name not in config.rules.outputs:
            known = list(config.rules.outputs)
            why = suggest(name, known) or f"`rules.outputs` in cdc-lake.yaml has: {', '.join(known) or 'none'}"
            where = place_in(rule.file, ("notify", i))
            raise RuleError(f"{where}: there is no output {name}.", why=why, next=f"edit {rule.file}")
    log = _log_of(rule, logs)
    tables = {name: _table(log, rule.streams[name].table) for name in dict.fromkeys(rule.used)}
    rule = _with_times(rule) if log.events else rule
    compiled = Compiled.of(rule, {name: str(table) for name, table in tables.items()})
    _bind(con, compiled, log, tables)
    return Target(compiled, log.source, tables)


def _with_times(rule: Rule) -> Rule:
    """An event says itself when it was."""
    streams = {
        n: s if s.time is not None else s.model_copy(update={"time": EVENT_TIME}) for n, s in rule.streams.items()
    }
    return rule.model_copy(update={"streams": streams})


def _log_of(rule: Rule, logs: Sequence[Log]) -> Log:
    names = {rule.streams[s].table: s for s in rule.used}
    fitting = [log for log in logs if all(log.find(n) is not None for n in names)]
    if len(fitting) == 1:
        return fitting[0]
    missing = [n for n in names if not any(log.find(n) is not None for log in logs)]
    if missing:
        error = unknown_table(missing[0], logs)
        where = place_in(rule.file, ("streams", names[missing[0]], "table"))
        raise RuleError(f"{where}: {error.message}", why=error.why, next=error.next, code="no_table")
    raise RuleError(
        f"{rule.file}: its tables are of several sources.",
        why="Sources share no order, so nothing says what came first.",
        next="make it a rule over tables of one source",
    )


def _table(log: Log, name: str) -> TableId:
    found = log.find(name)
    if found is None:
        raise ValueError("the log was chosen for its tables")
    return found


def _bind(con: duckdb.DuckDBPyConnection, compiled: Compiled, log: Log, tables: Mapping[str, TableId]) -> None:
    """Raise RuleError for an expression that does not fit its table."""
    kinds: dict[str, str] = {}
    for stream in compiled.streams:
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
    """Advances rules over one log. `lows` say what need not be read again at a position."""

    lows: dict[TableId, tuple[int, Mapping[tuple[str, int], int]]] = field(default_factory=dict)

    def step(
        self, log: Log, group: Sequence[tuple[Target, Memory]], upto: int | None = None, *, chunk: int = CHUNK
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

    def batches(self, placed: Placed, tables: set[TableId]) -> dict[TableId, str]:
        """The placed changes of each table, decoded once for all who read them."""
        made = {}
        for number, (table, changes) in enumerate(self.changes(placed, tables).items()):
            made[table] = f"{_BATCH}_{number}"
            placed.log.con.execute(f"CREATE OR REPLACE TABLE {made[table]} AS {changes}")
        return made

    def changes(self, placed: Placed, tables: set[TableId]) -> dict[TableId, str]:
        """Queries for the placed changes of each table: who reads them once leaves out what it does not need."""
        found = {}
        for table in sorted(tables):
            at, lows = self.lows.get(table, (-1, {}))
            known = lows if at == placed.after else {}
            found[table] = placed.changes(table, known)
            self.lows[table] = (placed.upto, placed.lows_after(table, known))
        return found
