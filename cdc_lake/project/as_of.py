"""A source's tables as of an earlier position.

A fold that is not beyond the position is the base, as ever; a table whose fold is beyond it is read from the start of
its log.
"""

from __future__ import annotations

from dataclasses import replace

import duckdb

from cdc_lake.errors import LakeError
from cdc_lake.project.base import placed_base
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.moments import Calendar, MomentError, find_position
from cdc_lake.project.order import load_ends
from cdc_lake.project.runs import find_runs, relation_of
from cdc_lake.project.shapes import resolve_shapes
from cdc_lake.project.snapshot import SourceState, TableState, with_own_runs
from cdc_lake.project.tail import REPAIR, RUN, Facts, Tail, placed, survey
from cdc_lake.project.timeline import timeline_sql


def calendar_of(state: SourceState) -> Calendar:
    """Where moments of this source are looked up. Raises MomentError when it sends no transaction metadata."""
    if state.transactions is None:
        raise MomentError(
            f"The source {state.source} has no past moments to read.",
            why="Its connector sends no transaction metadata, so nothing says which changes belong together.",
            next='set "provide.transaction.metadata": "true" in the connector; later moments can then be read',
            code="as_of_unavailable",
        )
    logs = tuple(tuple(t.log.paths) for t in state.tables)
    return Calendar(state.source, timeline_sql(state.transactions), logs, state.cut)


def read_as_of(con: duckdb.DuckDBPyConnection, state: SourceState, moment: str, *, number: int = 0) -> SourceState:
    """`state` as of `moment` (a time, an LSN or a transaction), all tables at that one position.

    A table whose first rows were captured later has an error.
    Raises MomentError when there is no such position.
    """
    cut = find_position(con, calendar_of(state), moment)
    ends = f"{state.lake.own}.ends_as_of_{number}"
    load_ends(con, ends, state.transactions, 0)
    tables = [_rewound(t) if t.checkpoint.cut > cut.position else t for t in state.tables]
    facts = survey(con, [t.tail for t in tables])
    tables = [replace(t, tail=replace(t.tail, facts=f)) for t, f in zip(tables, facts, strict=True)]
    tables = [_in_its_shape(con, t, ends, cut.position) for t in tables]
    tables = [with_own_runs(con, t, ends, cut.position) for t in tables]
    checked = tuple(_checked(con, t, ends, cut.position, moment) for t in tables)
    return replace(state, tables=checked, ends=ends, after=0, cut=cut, past=True)


def _rewound(table: TableState) -> TableState:
    """The table as if it had never been folded."""
    return replace(table, base=None, checkpoint=Checkpoint(), tail=Tail(tuple(table.log.paths)))


def _in_its_shape(con: duckdb.DuckDBPyConnection, table: TableState, ends: str, position: int) -> TableState:
    """The table with the columns that it had at the position, as far as its rows tell."""
    versions = {v.schema_id for v in table.versions if v.kind == "connect"}
    if table.error is not None or len(versions) < 2:
        return table
    whole = Tail(tuple(table.log.paths), facts=Facts(1, 1))
    rows = placed(whole, ends, position, ["__schema_id AS sid"], where=f"__schema_id IS NOT NULL AND NOT {REPAIR}")
    row = con.execute(f"SELECT sid FROM ({rows}) ORDER BY pos_tx DESC, pos_order DESC, off DESC LIMIT 1").fetchone()
    if row is None or row[0] not in versions:
        return table
    shapes = resolve_shapes(table.table, table.versions, row[0], lambda: ([], []))
    base = placed_base(replace(table.base, written=None), shapes) if table.base is not None else None
    return replace(table, shapes=shapes, base=base)


def _checked(con: duckdb.DuckDBPyConnection, table: TableState, ends: str, position: int, moment: str) -> TableState:
    """The table itself, or with an error: a snapshot after the position brought rows that had been there before.

    Such a row is one whose first event in the log is the snapshot's: a row made later begins with a create.
    """
    if table.error is not None or not (table.tail.facts.free and table.tail.facts.placed):
        return table
    whole = Tail(tuple(table.log.paths), facts=Facts(1, 1, runs=1))
    runs = find_runs(con, whole, ends)
    whole = replace(whole, runs=relation_of(runs))
    # A key that a later snapshot met first was not there when the one before it read the table.
    again = f"{RUN} AND __lsn > {runs[0].lsn}" if runs else "false"
    where = f"__op <> 't' AND NOT {REPAIR} AND NOT coalesce({again}, false)"
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
