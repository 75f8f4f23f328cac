"""What has come since a history was folded, and the history of both together.

A folded history is gone on with only where that gives what the whole log gives. A snapshot, a repair, or a row of a
transaction that was folded without it would stand among what is folded: then the log is read from its start, and the
next fold makes the history anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb
from deltalake import DeltaTable

from cdc_lake.project.files import at_or_above, scan
from cdc_lake.project.history import history_sql
from cdc_lake.project.history_base import HistoryBase, read_reach
from cdc_lake.project.history_plain import is_plain, plain_sql
from cdc_lake.project.keys import key_number
from cdc_lake.project.life import HISTORY_COLUMNS, Carried, Life
from cdc_lake.project.order import add_folded, load_ends
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.surveying import partitions_of
from cdc_lake.project.tail import Tail, placed, survey, without_place


@dataclass(frozen=True, slots=True)
class Behind:
    """A folded history and what has come since: `life` goes on from it, or is None where nothing has."""

    base: HistoryBase
    tail: Tail
    ends: str
    life: Life | None = None

    @property
    def query(self) -> str:
        """All versions: the values as c0, c1, …, then `HISTORY_COLUMNS`."""
        if self.life is None:
            return self.base.lines("")
        if is_plain(self.base, self.life):
            return plain_sql(self.base, self.life)
        columns = ", ".join([*(f"c{i}" for i in range(len(self.base.shapes.names))), *HISTORY_COLUMNS])
        # A truncate ends all lines that are open.
        touched = None if self.tail.facts.truncates else self.touched
        return f"{self.base.lines(touched)} UNION ALL SELECT {columns} FROM ({history_sql(self.life)})"

    @property
    def touched(self) -> str:
        """A query of all keys `k` that have changed, and of their whole numbers n0, n1, … by place."""
        columns = self.base.shapes.target.columns
        numbers = [f"{key_number('k', columns[i])} AS n{i}" for i in self.base.numbers]
        cut = self.life.cut if self.life is not None else self.tail.cut
        keys = placed(self.tail, self.ends, cut, ["__key AS k"], where="__key IS NOT NULL AND __op <> 't'")
        return f"SELECT {', '.join(['k', *numbers])} FROM (SELECT DISTINCT k FROM ({keys}))"


def find_behind(
    con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState, opened: DeltaTable, name: str
) -> Behind | None:
    """The history folded in the snapshot `opened` and what has come since; None where the log must be read.

    What is found out is kept in tables whose names begin with `name`.
    """
    shapes = table.shapes
    if shapes is None or table.error is not None or not shapes.keyed or shapes.keyings or source.past:
        return None
    reach = read_reach(opened, list(table.tail.lows or partitions_of(con, table.log)))
    checkpoint, cut = reach.checkpoint, source.cut.position
    if not reach.fits(shapes, table.log) or checkpoint.cut > cut or checkpoint.log_version > table.log.version:
        return None
    base = HistoryBase.of(opened, shapes, reach)
    tail = Tail(tuple(table.log.reaching(checkpoint.lows)), checkpoint.lows, checkpoint.cut)
    alike = table.base is not None and (table.tail.cut, table.tail.lows) == (tail.cut, tail.lows)
    (facts,) = (table.tail.facts,) if alike else survey(con, [tail])
    tail, ends = replace(tail, facts=facts), source.ends
    if facts.empty:
        return Behind(base, tail, ends)
    if source.after > tail.cut:
        ends = f"{name}_ends"
        load_ends(con, ends, source.transactions, tail.cut)
    if facts.free or not _goes_on(con, source, table, replace(Behind(base, tail, ends))):
        return None
    carried = Carried(base.standing(), tail, reach.begun)
    return Behind(base, tail, ends, Life(shapes, (), _timeline(ends, reach.shown, tail.cut, cut), cut, carried=carried))


def _timeline(ends: str, shown: int | None, after: int, cut: int) -> str:
    """As `timeline_sql`, of the transactions behind `after`."""
    first = f", make_timestamptz({shown})" if shown is not None else ""
    latest = "max(source_ts) OVER (ORDER BY pos ROWS UNBOUNDED PRECEDING)"
    return f"""SELECT tx_id, pos, greatest({latest}{first}) AS shown_ts FROM {ends}
        WHERE pos > {after} AND pos <= {cut}"""


def _goes_on(con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState, behind: Behind) -> bool:
    """Whether what is new belongs to transactions that ended behind the fold, or was delivered again."""
    tail, ends, seen = behind.tail, behind.ends, behind.base.reach.seen
    after = source.after if ends == source.ends else tail.cut
    new = f"{tail.unfolded} AND __tx_id IS NOT NULL AND {at_or_above(seen)}"
    look = f"""SELECT count(*) FILTER (e.tx_id IS NULL), count(*) FILTER (e.pos <= {tail.cut}),
        count(*) FILTER (__op = 'r') FROM {tail.relation} l LEFT JOIN {ends} e ON l.__tx_id = e.tx_id WHERE {new}"""
    unknown, older, read = con.execute(look).fetchone() or (0, 0, 0)
    if unknown:
        add_folded(con, ends, source.transactions, after, without_place(tail, ends))
        _, older, read = con.execute(look).fetchone() or (0, 0, 0)
    if read:
        return False
    return not older or not _has_late(con, table, behind, new)


def _has_late(con: duckdb.DuckDBPyConnection, table: TableState, behind: Behind, new: str) -> bool:
    tail, seen = behind.tail, behind.base.reach.seen
    late = con.execute(
        f"""SELECT 1 FROM (SELECT DISTINCT __tx_id AS tx, __tx_order AS n FROM {tail.relation} l
            JOIN {behind.ends} e ON l.__tx_id = e.tx_id WHERE {new} AND e.pos <= {tail.cut}) s
        WHERE NOT EXISTS (SELECT 1 FROM {scan(table.log.paths)} o
            WHERE o.__tx_id = s.tx AND o.__tx_order = s.n AND NOT ({at_or_above(seen)})) LIMIT 1"""
    ).fetchone()
    return late is not None
