"""A source's tables as of an earlier position.

A fold that is not beyond the position is the base, as ever; a table whose fold is beyond it is read from the start of
its log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb

from cdc_lake.errors import LakeError
from cdc_lake.project.base import placed_base
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.moments import Calendar, MomentError, find_position
from cdc_lake.project.order import load_ends
from cdc_lake.project.rekey import keyed_otherwise
from cdc_lake.project.runs import find_runs, relation_of
from cdc_lake.project.shapes import resolve_shapes
from cdc_lake.project.snapshot import SourceState, TableState, attempted, with_own_tail
from cdc_lake.project.tail import REPAIR, RUN, START, Facts, placed, survey, whole_tail
from cdc_lake.project.telling import unkeyed_in
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.sqltext import literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def calendar_of(state: SourceState) -> Calendar:
    """Where moments of this source are looked up. Raises MomentError when it sends no transaction metadata."""
    if state.transactions is None:
        raise MomentError(
            f"The source {state.source} has no past moments to read.",
            why="Its connector sends no transaction metadata, so nothing says which changes belong together.",
            next='set "provide.transaction.metadata": "true" in the connector; later moments can then be read',
            code="as_of_unavailable",
        )
    return Calendar(state.source, timeline_sql(state.transactions), tuple(t.log for t in state.tables), state.cut)


def read_as_of(con: duckdb.DuckDBPyConnection, state: SourceState, moment: str, *, number: int = 0) -> SourceState:
    """`state` as of `moment` (a time, an LSN or a transaction), all tables at that one position.

    A table whose first rows were captured later, or whose log retention made begin later, has an error.
    Raises MomentError when there is no such position.
    """
    calendar = calendar_of(state)
    cut = find_position(con, calendar, moment)
    ends = f"{state.lake.own}.ends_as_of_{number}"
    load_ends(con, ends, state.transactions, 0)
    tables = [_kept(con, calendar, t, cut.position, moment) for t in state.tables]
    tables = [attempted(t, _rewound) if t.checkpoint.cut > cut.position else t for t in tables]
    facts = survey(con, [t.tail for t in tables])
    tables = [replace(t, tail=replace(t.tail, facts=f)) for t, f in zip(tables, facts, strict=True)]
    steps: list[Callable[[TableState], TableState]] = [
        lambda t: _in_its_shape(con, t, ends, cut.position),
        lambda t: _whole_where_rekeyed(con, t),
        lambda t: with_own_tail(con, t, ends, cut.position, state.lake.own),
        lambda t: _checked(con, t, ends, cut.position, moment),
    ]
    for step in steps:
        tables = [attempted(t, step) for t in tables]
    checked = tuple(tables)
    return replace(state, tables=checked, ends=ends, after=0, cut=cut, past=True)


def refuse_before_start(
    con: duckdb.DuckDBPyConnection, calendar: Calendar, table: TableState, position: int, moment: str
) -> None:
    """Raise MomentError when retention took away what the table was at `position`."""
    if position >= table.log.start:
        return
    tx, micros = calendar.ends(con, "any_value(tx_id), epoch_us(any_value(source_ts))", f"pos = {table.log.start}")
    when = f", committed {(_EPOCH + timedelta(microseconds=micros)).isoformat()}" if micros is not None else ""
    raise MomentError(
        f"{moment} is before what is kept of {table.table}.",
        why=f"By the retention of its class its log begins behind transaction {tx}{when}.",
        next=f"--as-of tx:{tx} or later" if tx is not None else "name a later moment",
        code="as_of_before_kept",
    )


def _kept(
    con: duckdb.DuckDBPyConnection, calendar: Calendar, table: TableState, position: int, moment: str
) -> TableState:
    """The table itself, or with an error when its log begins later."""
    try:
        refuse_before_start(con, calendar, table, position, moment)
    except MomentError as error:
        return replace(table, error=table.error or error)
    return table


def _rewound(table: TableState) -> TableState:
    """The table as if it had never been folded."""
    return replace(table, base=None, checkpoint=Checkpoint(), tail=whole_tail(table.log))


def _whole_where_rekeyed(con: duckdb.DuckDBPyConnection, table: TableState) -> TableState:
    """The table as if never folded when its fold has another key than it had at the position."""
    if table.shapes is None or not keyed_otherwise(con, table.shapes, table.base, table.tail):
        return table
    whole = _rewound(table)
    return replace(whole, tail=replace(whole.tail, facts=survey(con, [whole.tail])[0]))


def _in_its_shape(con: duckdb.DuckDBPyConnection, table: TableState, ends: str, position: int) -> TableState:
    """The table with the columns that it had at the position, as far as its rows tell."""
    versions = {v.schema_id for v in table.versions if v.kind == "connect"}
    if table.error is not None or len(versions) < 2:
        return table
    whole = replace(whole_tail(table.log), facts=Facts(1, 1))
    sent = f"__schema_id IN ({', '.join(map(literal, sorted(versions)))})"
    rows = placed(whole, ends, position, ["__schema_id AS sid", f"CASE WHEN {START} THEN __lsn END AS old"], where=sent)
    # Starting rows all stand in one place, by their keys: there the newest is the one whose change was the last.
    order = "pos_tx DESC, off < 0, old DESC NULLS LAST, pos_order DESC, off DESC"
    row = con.execute(f"SELECT sid FROM ({rows}) ORDER BY {order} LIMIT 1").fetchone()
    if row is None:
        return table
    shapes = resolve_shapes(table.table, table.versions, row[0], lambda: ([], []), unkeyed_in(con, table.log))
    base = placed_base(replace(table.base, written=None), shapes) if table.base is not None else None
    return replace(table, shapes=shapes, base=base)


def _checked(con: duckdb.DuckDBPyConnection, table: TableState, ends: str, position: int, moment: str) -> TableState:
    """The table itself, or with an error: a snapshot after the position brought rows that had been there before.

    Such a row is one whose first event in the log is the snapshot's: a row made later begins with a create.
    """
    if table.error is not None or not (table.tail.facts.free and table.tail.facts.placed):
        return table
    whole = replace(whole_tail(table.log), facts=Facts(1, 1, runs=1))
    runs = find_runs(con, whole, ends)
    whole = replace(whole, runs=relation_of(runs))
    # A key that a later snapshot met first was not there when the one before it read the table, or when the log began.
    again = RUN if table.log.start else f"{RUN} AND __lsn > {runs[0].lsn}" if runs else "false"
    where = f"__op <> 't' AND NOT ({REPAIR} AND NOT {START}) AND NOT coalesce({again}, false)"
    rows = placed(whole, ends, 1 << 60, ["__key AS k", "__op AS op"], where=where)
    if table.shapes is not None and table.shapes.keyed:
        firsts = f"SELECT arg_min(op, (pos_tx, pos_order)) AS op, min(pos_tx) AS pos FROM ({rows}) GROUP BY k"
    else:
        firsts = f"SELECT arg_min(op, (pos_tx, pos_order)) AS op, min(pos_tx) AS pos FROM ({rows})"
    late = con.execute(f"SELECT count(*) FROM ({firsts}) WHERE op = 'r' AND pos > {position}").fetchone()
    if late is None or late[0] == 0:
        return table
    error = LakeError(
        f"{table.table} cannot be read as of {moment}.",
        why="The snapshot that brought its rows into the lake is later: what it held then is not known.",
        next=f"read it as of a later moment: FROM lake.transactions; its changes: FROM changes.{table.table}",
        code="as_of_before_table",
    )
    return replace(table, error=error)
