"""Past moments in a session: the whole session as of one, and `lake.position` and `lake.at` in its SQL.

DuckDB has no hook for `AS OF` behind a table of ours, so the moment is an argument: `FROM lake.at('orders', '…')`.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from cdc_lake.errors import CdcLakeError, lines
from cdc_lake.project.as_of import calendar_of, read_as_of, refuse_before_start
from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.moments import Calendar, MomentError, find_position, read_moment
from cdc_lake.project.snapshot import SourceState, hide_progress_bar

_FUNCTION = "cdc_lake_position"


def sources_as_of(
    con: duckdb.DuckDBPyConnection, sources: Sequence[SourceState], moment: str
) -> tuple[SourceState, ...]:
    """All sources as of `moment`. Raises MomentError: there is no such position, or it is that of one source only."""
    readings = read_moment(moment)
    if not sources:
        raise MomentError("The lake is empty.", why="Nothing has landed yet.", next="cdc-lake sink run")
    if len(sources) > 1 and any(m.time is None for m in readings):
        raise _several(moment, [s.source for s in sources])
    return tuple(read_as_of(con, s, moment, number=i) for i, s in enumerate(sources))


def create_moment_macros(con: duckdb.DuckDBPyConnection, sources: Sequence[SourceState]) -> None:
    """`lake.position(moment)`, the position to compare with `__from_position` and `__to_position`, and
    `lake.at(table, moment)`, the table as it was."""
    known = tuple(sources)

    # It must not hold the connection that holds it: nothing could free the two.
    def position(table: str, moment: str) -> int:
        try:
            return _position(_source_of(known, table, moment), table, moment)
        except CdcLakeError as error:
            raise ValueError(lines(error)) from None

    con.create_function(_FUNCTION, position, ["VARCHAR", "VARCHAR"], "BIGINT")
    name = "CASE WHEN contains(name, '.') THEN name ELSE 'public.' || name END"
    con.execute(f"CREATE MACRO lake.position(moment) AS system.main.{_FUNCTION}('', CAST(moment AS VARCHAR))")
    con.execute(
        f"""CREATE MACRO lake.at(name, moment) AS TABLE
        SELECT * EXCLUDE ({", ".join(HISTORY_COLUMNS)}) FROM query_table('history.' || {name}) AS versions
        WHERE versions.__from_position <= system.main.{_FUNCTION}({name}, CAST(moment AS VARCHAR))
        AND (versions.__to_position IS NULL
            OR versions.__to_position > system.main.{_FUNCTION}({name}, CAST(moment AS VARCHAR)))"""
    )


def _source_of(sources: Sequence[SourceState], table: str, moment: str) -> SourceState:
    named = [s for s in sources if not table or any(_same(table, str(t.table)) for t in s.tables)]
    if len(named) > 1:
        raise _several(moment, [s.source for s in named])
    if not named:
        raise MomentError("The lake is empty.", why="Nothing has landed yet.", next="cdc-lake sink run")
    return named[0]


def _same(typed: str, table: str) -> bool:
    return typed.replace('"', "").lower() == table.lower()


def _position(source: SourceState, table: str, moment: str) -> int:
    calendar: Calendar = calendar_of(source)
    con = duckdb.connect()
    try:
        source.lake.reach(con)
        con.execute("SET TimeZone = 'UTC'")
        hide_progress_bar(con)
        position = find_position(con, calendar, moment).position
        for state in source.tables:
            if _same(table, str(state.table)):
                refuse_before_start(con, calendar, state, position, moment)
        return position
    finally:
        con.close()


def _several(moment: str, sources: Sequence[str]) -> MomentError:
    return MomentError(
        f"{moment} is a moment of one source, and there are several: {', '.join(sources)}.",
        why="Sources share no log and no transactions; only a time is a moment of all.",
        next="name a time, or read one source with a configuration of its own",
        code="as_of_several_sources",
    )
