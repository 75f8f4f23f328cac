"""A model that was checked against its tables: what it reads of them, and the columns of its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb

from cdc_lake.errors import suggest
from cdc_lake.events import TableId
from cdc_lake.query.placed import POSITION, Log, stored_type, unknown_table
from cdc_lake.react.expressions import NO_COLUMN
from cdc_lake.react.stream.modelfile import EVENT_TIME, Model, ModelError, digest
from cdc_lake.react.stream.partials import END, START, Fold
from cdc_lake.react.stream.query import WINDOW_COLUMNS, Query, Source, parse, text_of, tree_of
from cdc_lake.sqltext import ident

Columns = tuple[tuple[str, str], ...]
# What rows of a model have behind its own columns.
OWN = (("__id", "VARCHAR"), ("__position", "BIGINT"), ("__time", "TIMESTAMP WITH TIME ZONE"))
# What every event has that may be remembered of a join.
_ALWAYS = (POSITION, "__tx_order", "__et", "__time")
_WIDER = {
    **{"HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)", "UBIGINT": "DECIMAL(20,0)"},
    **{"UINTEGER": "BIGINT", "USMALLINT": "INTEGER", "UTINYINT": "SMALLINT"},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A checked model. `columns` are those of its rows with the types they are stored in, `kept` what is remembered:
    of groups, or by alias of the events of a join; `fingerprint` changes when its rows or what it remembers may."""

    query: Query
    source: str
    tables: Mapping[str, TableId]
    columns: Columns
    kept: Mapping[str, Columns]
    fold: Fold | None
    fingerprint: str
    # The other source that some of the tables are of, by alias; events meet them as they had landed then (`landed`),
    # changes of a database as they were by the clocks of both.
    beside: Mapping[str, str] = field(default_factory=dict)
    # The source of each stream, by alias. `source` is that of the first, where its rows are.
    owners: Mapping[str, str] = field(default_factory=dict)
    landed: bool = True

    @property
    def model(self) -> Model:
        """The model."""
        return self.query.model

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose changes it follows, by name."""
        return tuple(sorted(set(self.owners.values())))

    def tables_of(self, source: str) -> set[TableId]:
        """The tables of one source that it follows, or meets at the positions of its events."""
        return {t for alias, t in self.tables.items() if alias not in self.beside and self.owners[alias] == source}

    @property
    def remembers(self) -> bool:
        """Whether its rows depend on earlier events."""
        return bool(self.kept)


def _fingerprint(con: duckdb.DuckDBPyConnection, query: Query, *known: object) -> str:
    sources = [(s.alias, s.kind, s.table, s.left, s.on) for s in query.sources]
    nodes = [*(i.node for i in query.items), *query.groups, *([query.having] if query.having is not None else [])]
    return digest(query.model.core, repr(known), query.where, repr(sources), *(text_of(con, n) for n in nodes))


def check(con: duckdb.DuckDBPyConnection, model: Model, logs: Sequence[Log]) -> Shape:
    """The model with its tables. Raises ModelError: it does not parse, cannot be kept up incrementally, or names what
    is not there."""
    query = parse(con, model)
    own = _logs_of(query, logs)
    tables = {s.alias: _table(own[s.alias], s) for s in query.sources}
    for log in own.values():
        _ = log.transactions  # without an order there is nothing to follow
    query = _with_times(query, {alias for alias, log in own.items() if log.events})
    try:
        return _bound(con, query, own, tables)
    except duckdb.Error as error:
        raise _explained(query, error, con, tables, own) from None


def _logs_of(query: Query, logs: Sequence[Log]) -> dict[str, Log]:
    """By alias, the log whose order is followed: one that has all, else of two streams the only one that has each."""
    fitting = [g for g in logs if all(_finds(g, s) for s in query.sources)]
    if len(fitting) == 1:
        _refuse_two(query, fitting[0])
        return {s.alias: fitting[0] for s in query.sources}
    having = {s.alias: [g for g in logs if g.find(s.table) is not None] for s in query.sources}
    for source in query.sources:
        if not having[source.alias]:
            error = unknown_table(source.table, logs)
            raise query.model.refused(error.message.rstrip(".") + ".", error.why, at=source.at)
        if len(having[source.alias]) > 1:
            named = " and of ".join(g.source for g in having[source.alias])
            why = f"It is a table of {named}: nothing says which of them is meant."
            raise query.model.refused(f"{source.table} is in several sources.", why, at=source.at, wrong=False)
    if query.tables:
        raise query.model.refused(
            "it joins a table with changes of several sources.",
            "Nothing says which version of the table a pair met. Join it with the changes of one source.",
            wrong=False,
        )
    return {alias: log for alias, (log,) in having.items()}


def _finds(log: Log, source: Source) -> bool:
    return log.find(source.table) is not None or (
        source.kind == "current" and log.find_beside(source.table) is not None
    )


def _refuse_two(query: Query, log: Log) -> None:
    found = {s.table: [o.source for o in log.beside if o.find(s.table)] for s in query.tables if not log.find(s.table)}
    for table, having in found.items():
        if len(having) > 1:
            why = f"It is a table of {' and of '.join(having)}: nothing says which of them is meant."
            raise query.model.refused(f"{table} is in several sources.", why, wrong=False)
    others = sorted({source for having in found.values() for source in having})
    if len(others) > 1:
        why = f"They are of {', '.join(others)}: join with the tables of one of them."
        raise query.model.refused("it joins tables of two databases.", why, wrong=False)


def owner(log: Log, source: Source) -> Log:
    """The log that a relation's table is of: the streams' own, or that of a database beside it."""
    return log if log.find(source.table) is not None else log.find_beside(source.table) or log


def _with_times(query: Query, aliases: Collection[str]) -> Query:
    """An event says itself when it was."""
    said = {a.lower() for a, _ in query.model.times}
    silent = [s.alias for s in query.streams if s.alias in aliases and s.alias.lower() not in said and "" not in said]
    times = (*query.model.times, *((alias, EVENT_TIME) for alias in silent))
    names = query.names | ({"time", "__source_ts"} if silent else set())
    return replace(query, model=replace(query.model, times=times), names=names)


def _table(log: Log, source: Source) -> TableId:
    found = owner(log, source).find(source.table)
    if found is None:
        raise ValueError("the log was chosen for its tables")
    return found


def _bound(
    con: duckdb.DuckDBPyConnection, query: Query, own: Mapping[str, Log], tables: Mapping[str, TableId]
) -> Shape:
    relations = {s.alias: _empty(con, query, own[s.alias], s, tables[s.alias]) for s in query.sources}
    logs = {s.alias: (own[s.alias], owner(own[s.alias], s)) for s in query.sources}
    beside = {alias: other.source for alias, (log, other) in logs.items() if other is not log}
    source = from_sql(query, relations, beside=beside)
    groups = ", ".join(f"(\n{text_of(con, g)}\n)" for g in query.groups)
    having = f"HAVING {text_of(con, query.having)}" if query.having is not None else ""
    items = ", ".join(_item(con, i.node, i.name) for i in query.items)
    grouped = f"GROUP BY {groups}" if groups else ""
    found = _described(con, f"SELECT {items} {source} {grouped} {having}")
    _refuse_names(query.model, [n for n, _ in found])
    columns = tuple((n, stored(t)) for n, t in found)
    _refuse_key(query.model, [n for n, _ in found])
    owners = {alias: log.source for alias, log in own.items()}
    several = [sorted(owners.items())] if len(set(owners.values())) > 1 else []
    first = own[query.streams[0].alias]
    home, landed = first.source, first.events
    if query.model.window is None:
        always = (*_ALWAYS, *(["__at"] if beside else []))
        kept = {s.alias: _kept(con, query, relations[s.alias], always) for s in query.streams} if query.timed else {}
        form = _fingerprint(con, query, columns, kept, *several)
        return Shape(query, home, tables, columns, kept, None, form, beside, owners, landed)
    fold = Fold.of(con, query)
    types = dict(_described(con, fold.partial(source)))
    fold.refuse_inexact([types[f"p{i}"] for i in range(len(fold.parts))])
    known = tuple((n, _WIDER.get(types[n], types[n])) for n in fold.columns)
    empty = ", ".join(f"CAST(NULL AS {t}) AS {n}" for n, t in known)
    _described(con, f"SELECT {', '.join(fold.items)} FROM (SELECT {empty}) WHERE {fold.having or 'true'}")
    form = _fingerprint(con, query, columns, known)
    return Shape(query, home, tables, columns, {"": known}, fold, form, beside, owners, landed)


def _item(con: duckdb.DuckDBPyConnection, node: dict[str, object], name: str | None) -> str:
    return text_of(con, node) + (f" AS {ident(name)}" if name else "")


def stored(lake_type: str) -> str:
    """The type that a column of this type has in the model's table."""
    return _WIDER.get(lake_type) or stored_type(lake_type)


def _described(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, str]]:
    return [(str(r[0]), str(r[1])) for r in con.execute(f"DESCRIBE {query}").fetchall()]


def _empty(con: duckdb.DuckDBPyConnection, query: Query, log: Log, source: Source, table: TableId) -> str:
    """A relation without rows that has the columns of a source."""
    if source.kind == "current":
        return f"({owner(log, source).versions(table, 'lake.internal.checked')} LIMIT 0)"
    names = {c.lower() for c in log.columns(table)}
    window = ""
    if query.model.window is not None:
        for name in WINDOW_COLUMNS:
            if name in names:
                why = "A model with a window has a column of this name that says which. Rename it in the source."
                raise query.model.refused(f"{source.table} has a column {name}.", why, at=source.at)
        window = "".join(f", CAST(NULL AS TIMESTAMPTZ) AS {n}" for n in WINDOW_COLUMNS)
    time = time_of(query, source)
    nothing = "CAST(NULL AS BIGINT) AS __clock, CAST(NULL AS BIGINT) AS __at"
    rows = f"(SELECT *, {nothing} FROM {log.empty(table)}) AS {ident(source.alias)}"
    if time is not None:
        _check_time(con, query, rows, time)
    return f"(SELECT *, CAST(NULL AS BIGINT) AS __et, CAST(NULL AS TIMESTAMPTZ) AS __time{window} FROM {rows})"


def time_of(query: Query, source: Source) -> str | None:
    """The expression of a stream's event time; None: the commit's."""
    return next((t for a, t in query.model.times if a.lower() in ("", source.alias.lower())), None)


def _check_time(con: duckdb.DuckDBPyConnection, query: Query, rows: str, time: str) -> None:
    tree = tree_of(con, f"SELECT\n{time}\n")
    if tree["error"] or len(tree["statements"]) != 1 or len(tree["statements"][0]["node"]["select_list"]) != 1:
        raise query.model.refused("`time` is no SQL expression.", time)
    alone = Model(query.model.name, query.model.file, f"SELECT\n{time}\nAS t FROM changes.x")
    parse(con, alone)  # what a query may not hold, this may not either
    kind = _described(con, f"SELECT\n{time}\n FROM {rows}")[0][1]
    if not kind.startswith(("TIMESTAMP", "DATE")):
        raise query.model.refused("`time` is no time.", f"It is of the type {kind}.")


def _kept(con: duckdb.DuckDBPyConnection, query: Query, relation: str, always: Collection[str]) -> Columns:
    found = _described(con, f"SELECT * FROM {relation}")
    return tuple((n, t) for n, t in found if n in always or n.lower() in query.names)


def _refuse_key(model: Model, names: Sequence[str]) -> None:
    if model.key and model.topic is None and model.output is None:
        raise model.refused("it has a key but no topic.", "`key` is that of the records of `topic`, or of `output`.")
    for name in model.key:
        if name not in names:
            why = suggest(name, names) or f"There are: {', '.join(names)}"
            raise model.refused(f"`key` names {name}, which is no column of it.", why)


def _refuse_names(model: Model, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name.lower() in (n.lower() for n in names[:i]):
            raise model.refused(f"two of its columns are called {name}.", "Give each a name with AS.")
        if name.startswith("__"):
            own = ", ".join(n for n, _ in OWN)
            raise model.refused(
                f"its column {name} begins with __.", f"So begin those that every model has: {own}. Use AS."
            )
        if not name.replace("_", "").isalnum() or name[0].isdigit():
            raise model.refused(f"the column {name} has no name of its own.", "Give it one with AS.")


def from_sql(
    query: Query, relations: Mapping[str, str], *, span: str = "", beside: Collection[str] = frozenset()
) -> str:
    """FROM and WHERE over `relations` (by alias): streams first, then tables as of the position of their event.

    `span` is what the two streams of a join must also meet. Of tables in `beside` the position is that which had landed
    with the event.
    """
    parts: list[str] = []
    for source in (*query.streams, *query.tables):
        relation = f"{relations[source.alias]} AS {ident(source.alias)}"
        if not parts:
            parts.append(f"FROM {relation}")
            continue
        position = place(query, "__at") if source.alias in beside else place(query)
        versions = f"{ident(source.alias)}.__from_position"
        until = f"{ident(source.alias)}.__to_position"
        valid = f" AND {versions} <= {position} AND ({until} IS NULL OR {until} > {position})"
        more = valid if source.kind == "current" else span
        parts.append(f"{'LEFT ' if source.left else ''}JOIN {relation} ON (\n{source.on}\n){more}")
    return " ".join(parts) + (f" WHERE (\n{query.where}\n)" if query.where else "")


def own_columns(query: Query, order: str | None = None) -> str:
    """Where a row stands: `__position`, `__order` (when not that of its only event, it is said) and `__time`."""
    at = order or place(query, "__tx_order")
    return f"{place(query)} AS {POSITION}, {at} AS __order, {place(query, '__time')} AS __time"


def place(query: Query, column: str = POSITION) -> str:
    """The position (or another column) of the last event that makes a row."""
    names = [f"{ident(s.alias)}.{column}" for s in query.streams]
    return names[0] if len(names) == 1 else f"greatest({', '.join(names)})"


def _explained(
    query: Query,
    error: duckdb.Error,
    con: duckdb.DuckDBPyConnection,
    tables: Mapping[str, TableId],
    own: Mapping[str, Log],
) -> ModelError:
    first = str(error).strip().partition("\n")[0]
    missing = NO_COLUMN.search(first)
    if missing is not None:
        columns = [c for s in query.sources for c in owner(own[s.alias], s).columns(tables[s.alias])]
        known = [*columns, *(WINDOW_COLUMNS if query.model.window else ()), "__time"]
        shown = ", ".join(dict.fromkeys(c for c in columns if c[:2] != "__"))
        return query.model.refused(
            f"there is no column {missing[1]}.", suggest(missing[1], known) or f"There are: {shown}"
        )
    if START in first or END in first or '"g' in first:
        first = "SELECT and HAVING must name what is grouped by as GROUP BY does."
    return query.model.refused("it does not fit its tables.", first.partition(": ")[2] or first)
