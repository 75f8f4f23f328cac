"""The views of a session: `current`, `changes` and `history`, one view per source table in each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import duckdb
from deltalake import DeltaTable

from cdc_lake.errors import CdcLakeError, LakeError, UnavailableError, lines
from cdc_lake.events import TableId
from cdc_lake.land.tables import LOG
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.files import scan
from cdc_lake.project.history_names import distinct_names
from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.snapshot import SourceState, TableState, unreadable
from cdc_lake.project.tail import START, Facts, placed, whole_tail
from cdc_lake.query.history_views import history_query, open_history
from cdc_lake.query.needs import CATALOGUES, Needs, everything
from cdc_lake.sqltext import ident, literal
from cdc_lake.traceids import trace_sql

# Columns of `changes` before the source's own, as SQL over the log.
EVENT_COLUMNS = {
    "__op": "__op",
    "__key": "CAST(__key AS JSON)",
    "__before": "CAST(__before AS JSON)",
    "__after": "CAST(__after AS JSON)",
    "__source_ts": "__source_ts",
    "__tx_id": "__tx_id",
    "__tx_order": "__tx_order",
    "__lsn": "__lsn",
    "__topic": "__topic",
    "__partition": "__partition",
    "__offset": "__offset",
    "__ingested_at": "__ingested_at",
    "__schema_id": "__schema_id",
}
# Tables that are opened side by side: each waits for its store most of the time.
_THREADS = 8
# The last before the source's own: values that do not fit their column's type of today, as they arrived.
UNREAD = "__unread"
# And the trace that the change belongs to, in the view only: it is worked out when a query asks for it.
TRACE = "__trace_id"
# Files that are looked at for what their statistics do not tell.
_TOLD = 4
_PARTIAL = """(__op = 'u' AND __before IS NULL) OR (__op = 'c' AND contains(__headers, '"__debezium.oldkey"'))"""


def attach(con: duckdb.DuckDBPyConnection) -> None:
    """Make the catalogues, and `current` with its schema `public` the place where names are looked up."""
    for catalogue in CATALOGUES:
        con.execute(f"ATTACH ':memory:' AS {catalogue}; CREATE SCHEMA {catalogue}.public")
    con.execute("SET search_path = 'current.public'")


def create_views(con: duckdb.DuckDBPyConnection, sources: Sequence[SourceState], needs: Needs = everything) -> None:
    """One view per table in each catalogue. A table that cannot be shown says why when it is read."""
    named: dict[tuple[str, str], list[tuple[SourceState, TableState]]] = defaultdict(list)
    for source in sources:
        for table in source.tables:
            named[table.table.schema.lower(), table.table.name.lower()].append((source, table))
    with ThreadPoolExecutor(_THREADS) as pool:
        groups = [
            (g, pool.submit(open_history, *g[0]) if any(needs("history", t.table) for _, t in g) else None)
            for g in named.values()
        ]
    for number, (group, opened) in enumerate(groups):
        source, table = group[0]
        queries = {
            "current": partial(_current, con, source, table, f"settled_{number}"),
            "changes": partial(_changes, source, table),
            "history": partial(_history, con, source, table, opened, f"{source.lake.own}.history_{number}"),
        }
        wanted = [c for c in CATALOGUES if any(needs(c, t.table) for _, t in group)]
        for catalogue in wanted:
            try:
                if len(group) > 1:
                    raise _clash(group)
                _create(con, catalogue, table.table, queries[catalogue]())
            except UnavailableError:
                raise
            except CdcLakeError as error:
                _refuse(con, catalogue, table, error)
            except duckdb.IOException as error:
                _refuse(con, catalogue, table, unreadable(table, error))


def _sound(table: TableState) -> Shapes:
    if table.error is not None or table.shapes is None:
        raise table.error or ValueError("a table without shapes has an error")
    return table.shapes


def _refuse(con: duckdb.DuckDBPyConnection, catalogue: str, table: TableState, error: CdcLakeError) -> None:
    """A view that raises when it is read. It has the table's columns where these are known."""
    names = table.shapes.names if table.shapes is not None else []
    columns = {"current": (), "changes": (*EVENT_COLUMNS, UNREAD, TRACE), "history": HISTORY_COLUMNS}[catalogue]
    shown = distinct_names(names, columns)
    _create(con, catalogue, table.table, _refusal(error, [*columns, *shown] or ["error"]))


def _create(con: duckdb.DuckDBPyConnection, catalogue: str, table: TableId, query: str) -> None:
    schema = f"{catalogue}.{ident(table.schema)}"
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE OR REPLACE VIEW {schema}.{ident(table.name)} AS {query}")
    if schema == 'current."public"':
        # A cursor starts without the search path of its connection, in `memory.main`; drivers like to use cursors.
        con.execute(f"CREATE OR REPLACE VIEW memory.main.{ident(table.name)} AS FROM {schema}.{ident(table.name)}")


def _current(con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState, name: str) -> str:
    _sound(table)
    view = source.view(con, table, name)
    inner = keyed_sql(view) if view.shapes.keyed else bag_sql(view)
    columns = ", ".join(f"c{i} AS {ident(n)}" for i, n in enumerate(view.shapes.names))
    return f"SELECT {columns} FROM ({inner})"


def _history(
    con: duckdb.DuckDBPyConnection,
    source: SourceState,
    table: TableState,
    opened: Future[DeltaTable | None] | None,
    name: str,
) -> str:
    return history_query(con, source, table, opened.result() if opened is not None else None, name)


def _changes(source: SourceState, table: TableState) -> str:
    """Every event that landed; in a session of the past, every event until then."""
    where = f"NOT {START} AND {_until(source, table)}"
    return changes_sql(table, scan(table.log.paths, LOG), where, trace=trace_sql(literal(source.source)))


def changes_sql(table: TableState, log: str, where: str, *, taken: Sequence[str] = (), trace: str = "") -> str:
    """The rows of `log` that meet `where` as events, with the source's columns from the image after each (before it,
    for a delete), and with the column of what `trace` is over the log's columns, if anything.

    A source column called like one of `taken` gets another name. Raises the table's error when it cannot be shown.
    """
    shapes = _sound(table)
    traced = {TRACE: trace} if trace else {}
    own = [f"{sql} AS e{i}" for i, sql in enumerate((EVENT_COLUMNS | traced).values())]
    rows = f"""(SELECT {", ".join(own)}, coalesce(__after, __before) AS img, __schema_id AS sid, {_PARTIAL} AS partial
        FROM {log} WHERE __op NOT IN ('x', 'e') AND {where})"""
    carry = [*(f"e{i}" for i in range(len(own))), "partial"]
    decoded = shapes.decoded(rows, "img", "sid", carry, marks=True, unread=True)
    toastable = set(shapes.toastable)
    keys = {c.name for c in shapes.target.key_columns}
    columns = [f"e{i} AS {ident(n)}" for i, n in enumerate(EVENT_COLUMNS)] + [f"CAST(unread AS JSON) AS {UNREAD}"]
    columns += [f"e{len(EVENT_COLUMNS)} AS {TRACE}"] if trace else []
    names = distinct_names(shapes.names, [*EVENT_COLUMNS, UNREAD, *traced, *taken])
    for i, (shown, name) in enumerate(zip(names, shapes.names, strict=True)):
        # An unchanged value is not in the event: null here, and in `current` the value it still has.
        value = f"CASE WHEN NOT (partial AND u{i}) THEN c{i} END" if i in toastable else f"c{i}"
        if keys and name not in keys:
            value = f"CASE WHEN e0 <> 'd' OR whole THEN {value} END"
        columns.append(f"{value} AS {ident(shown)}")
    return f"SELECT {', '.join(columns)} FROM ({decoded}), ({_whole(table)})"


def _whole(table: TableState) -> str:
    """Whether deletes hold the whole row. Else Debezium fills what it does not know of a NOT NULL column with '' or 0.

    Only under REPLICA IDENTITY FULL an update has an image before it. The statistics tell of a file with more
    updates than deletes; where there is none, a look at the newest ones does.
    """
    if any(f.both for f in table.log.files):
        return "SELECT true AS whole"
    told = sorted((f for f in table.log.files if f.befores), key=lambda f: f.ingested_us)
    files = [f.path for f in told[-_TOLD:]]
    return f"""SELECT coalesce(bool_or(__op = 'u' AND __before IS NOT NULL), false) AS whole
        FROM {scan(files, LOG)}"""


def _until(source: SourceState, table: TableState) -> str:
    """The condition for log rows that a session of the past may show."""
    if not source.past:
        return "true"
    place = ["__topic AS top", "__partition AS part"]
    whole = replace(whole_tail(table.log), facts=Facts(1, 1))
    rows = placed(whole, source.ends, source.cut.position, place)
    return f"(__topic, __partition, __offset) IN (SELECT (top, part, off) FROM ({rows}))"


def _clash(group: Sequence[tuple[SourceState, TableState]]) -> LakeError:
    """Two tables of one name for DuckDB: in letters of another case, or in two sources."""
    (source, table), (other_source, other) = group[0], group[1]
    if table.table == other.table:
        return LakeError(
            f"{table.table} is in the sources {source.source} and {other_source.source}.",
            why="A session has one table of each name.",
            next="query them with two configurations, one per source",
            code="table_clash",
        )
    return LakeError(
        f"{_quoted(table.table)} and {_quoted(other.table)} differ only in case.",
        why="DuckDB ignores case in names, so a session cannot show both.",
        next="rename one in the source, or exclude it in the configuration's `tables`",
        code="table_case",
    )


def _quoted(table: TableId) -> str:
    return f"{ident(table.schema)}.{ident(table.name)}"


def _refusal(error: CdcLakeError, columns: Sequence[str]) -> str:
    """A view that raises when it is read, however little of it is asked for."""
    text = literal(lines(error))
    return f"SELECT {', '.join(f'NULL AS {ident(c)}' for c in columns)} WHERE error({text}) IS NOT NULL"
