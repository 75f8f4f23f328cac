"""Advance the folded `history` of a table to the cut, in one Delta commit that holds lines and checkpoint.

It is gone on with where that gives what the whole log gives (see `history_tail`), else made anew. A table without a
key, one whose key was redefined, and one whose source sends no transaction metadata have none: their log is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import duckdb
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cdc_lake import crashpoints
from cdc_lake.events import TableId
from cdc_lake.land.layout import history_path
from cdc_lake.land.tables import REPAIR_OFFSETS
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.files import scan
from cdc_lake.project.headers import NEW_KEY, OLD_KEY, names
from cdc_lake.project.history import state_sql
from cdc_lake.project.history_base import HistoryBase, Reach, read_reach, shape_number
from cdc_lake.project.history_plain import is_plain, plain_state_sql
from cdc_lake.project.history_tail import Behind, find_behind
from cdc_lake.project.history_writing import Fresh, HistoryWriter, stored
from cdc_lake.project.keys import KeyOrder
from cdc_lake.project.lake import Lake
from cdc_lake.project.life import Life, life_steps
from cdc_lake.project.order import add_folded
from cdc_lake.project.rules import anew_pays
from cdc_lake.project.segments import replace_files, segments_of
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.shares import COLUMNS, Share, Tell, cut_up, image_bytes, in_shares, untold
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.tail import Tail, new_lows, without_place
from cdc_lake.project.timeline import timeline_sql

# How often DuckDB holds a change, in one form or another, while its line is made.
_TIMES = 8
# A snapshot whose last row landed longer ago is over, or it stands still.
_ARRIVING_SECONDS = 60


def fold_history(
    con: duckdb.DuckDBPyConnection,
    state: SourceState,
    table: TableState,
    *,
    replacing: bool = False,
    tell: Tell = untold,
) -> int:
    """Fold the history of one table, and return how many rows were written; `replacing` makes it anew in any case.
    `tell` hears how far it has come.

    Raises the errors of Delta and DuckDB. Idempotent: killed anywhere, it resumes from the last commit.
    """
    shapes = table.shapes
    if shapes is None or table.error is not None or table.tail.held:
        return 0
    opened = _opened(state, table)
    if not _can_be(state, shapes):
        _empty(opened)
        return 0
    fold = HistoryFold(con, state, table, shapes, opened, tell=tell)
    behind = None
    if opened is not None and not replacing:
        behind = find_behind(con, state, table, opened, fold.own)
        if behind is None and (fold.is_overtaken or not fold.pays):
            return 0
    return fold.whole() if behind is None else fold.part(behind)


def unfolded_history(con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState) -> tuple[int, int]:
    """How many changes of a table are not in its folded history, and how many lines that has."""
    if table.shapes is None or table.error is not None or not _can_be(state, table.shapes):
        return 0, 0
    opened = _opened(state, table)
    if opened is None:
        return table.log.rows, 0
    lines = sum(s.rows for s in segments_of(opened))
    behind = find_behind(con, state, table, opened, f"{state.lake.own}.history_fold")
    if behind is None:
        return (table.log.rows, lines) if HistoryFold(con, state, table, table.shapes, opened).pays else (0, lines)
    return behind.tail.facts.placed, lines


def _can_be(state: SourceState, shapes: Shapes) -> bool:
    """Whether a table can have a folded history."""
    return shapes.keyed and not shapes.keyings and state.cut.position > 0


def _opened(state: SourceState, table: TableState) -> DeltaTable | None:
    return state.lake.open(history_path(state.lake.root, state.source, table.table))


def clear_history(lake: Lake, source: str, table: TableId) -> None:
    """Take all lines out of a folded history: the next fold makes it anew. Raises DeltaError."""
    _empty(lake.open(history_path(lake.root, source, table)))


def _empty(table: DeltaTable | None) -> None:
    segments = segments_of(table) if table is not None else []
    if table is not None and segments:
        # No shape has this number, so nobody takes it for a history without lines.
        replace_files(table, [], segments, Reach(shape=-1).transactions())


class HistoryFold:
    """One fold of one table."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        state: SourceState,
        table: TableState,
        shapes: Shapes,
        opened: DeltaTable | None,
        *,
        tell: Tell = untold,
    ) -> None:
        self._con, self._state, self._table, self._shapes, self._opened = con, state, table, shapes, opened
        self._tell = tell
        self.own = f"{state.lake.own}.history_fold"

    @property
    def is_overtaken(self) -> bool:
        """Whether what is folded is of a later moment than the one we look from."""
        if self._opened is None:
            return False
        checkpoint = read_reach(self._opened, ()).checkpoint
        return checkpoint.cut > self._state.cut.position or checkpoint.log_version > self._table.log.version

    @property
    def pays(self) -> bool:
        """Whether to make the history anew now: not again and again while a snapshot is on its way."""
        log = self._table.log
        arriving = self._con.execute(
            f"""SELECT 1 FROM {scan(log.paths)} WHERE __tx_id IS NULL AND __op = 'r'
            AND __ingested_at > now() - INTERVAL {_ARRIVING_SECONDS} SECOND LIMIT 1"""
        ).fetchone()
        lines = sum(s.rows for s in segments_of(self._opened)) if self._opened is not None else 0
        return anew_pays(log.rows, lines, arriving=arriving is not None)

    def whole(self) -> int:
        """Fold all of the log."""
        whole, ends = self._state.whole(self._con, self._table)
        tail, log, cut = whole.tail, self._table.log, self._state.cut.position
        if tail.facts.empty or tail.held or tail.renaming is not None:
            return 0
        life = Life(self._shapes, tuple(log.paths), timeline_sql(self._state.transactions), cut, start=log.start)
        shown, ended = self._shown(ends, 0, None), self._ended(life) if tail.facts.runs else None
        # What a snapshot ended must lie before all that may still come: keys that it did not have begin later.
        if ended is not None and (shown is None or ended > shown):
            return 0
        reach = self._reach(tail, ends, shown, self._begun(life, tail, None))
        plain = ended is None and not tail.facts.truncates
        return self._write(life, reach, tail, None, plain=plain)

    def part(self, behind: Behind) -> int:
        """Fold what has come since."""
        before, tail = behind.base.reach, behind.tail
        if behind.life is None:
            return 0
        if behind.ends == self._state.ends:
            missing = without_place(tail, behind.ends)
            add_folded(self._con, behind.ends, self._state.transactions, self._state.after, missing)
        shown = self._shown(behind.ends, tail.cut, before.shown)
        reach = self._reach(tail, behind.ends, shown, self._begun(behind.life, tail, before.begun))
        reach = replace(reach, seen={**before.seen, **reach.seen})
        known = replace(reach, checkpoint=replace(reach.checkpoint, log_version=before.checkpoint.log_version))
        if known == before:
            return 0
        return self._write(behind.life, reach, tail, behind, plain=is_plain(behind.base, behind.life))

    def _write(self, life: Life, reach: Reach, tail: Tail, behind: Behind | None, *, plain: bool) -> int:
        base = behind.base if behind is not None else None
        path = history_path(self._state.lake.root, self._state.source, self._table.table)

        def write(count: int) -> int:
            writer = HistoryWriter(self._con, path, self._opened, self._state.lake.options, reach.transactions())
            fresh = Fresh(f"{self.own}_lines", self._shapes, clears=base is not None and bool(tail.facts.truncates))
            for _ in self._each(fresh, tail, life, lambda one: _query(one, base, plain=plain), count):
                crashpoints.reach("history:before-write")
                if base is None:
                    writer.add(fresh, reach.shown, count)
            if base is None:
                writer.replace()
            else:
                writer.part(fresh, base, reach.shown)
            return writer.rows

        try:
            changes = tail.facts.placed + tail.facts.free
            nbytes = changes * _TIMES * image_bytes(self._con, tail.relation)
            rows = in_shares(self._con, nbytes, changes, write)
        except DeltaError:
            # Another fold was first: what it wrote is as right.
            if not self._is_changed(path):
                raise
            return 0
        else:
            crashpoints.reach("history:after-commit")
            return rows
        finally:
            for name in ("lines", "timeline", "runs", "moved"):
                self._con.execute(f"DROP TABLE IF EXISTS {self.own}_{name}")

    def _each(self, fresh: Fresh, tail: Tail, life: Life, query: Callable[[Life], str], count: int) -> Iterator[None]:
        """Make the table `fresh`, of one share of the keys after the other; behind a folded history, of all of them."""
        into = f"CREATE OR REPLACE TABLE {fresh.relation} AS"
        if count == 1:
            self._con.execute(f"{into} {stored(self._shapes, query(life))}")
            yield
            return
        life = self._prepared(life)
        apart = self._moved(tail) if tail.facts.moves else None
        keys = f"SELECT __key FROM {life.relation}"
        self._tell("setting out the history", 0.0)
        with cut_up(self._con, self._placed(life), keys, KeyOrder.of(self._shapes), count, apart=apart) as shares:
            for number, share in enumerate(shares):
                self._tell("history", number / len(shares))
                one = replace(life, set_out=share.of(tail))
                if life.carried is not None:
                    one = replace(one, chosen=_chosen(share, apart))
                self._con.execute(f"{into} {stored(self._shapes, query(one))}")
                if life.carried is not None:
                    into = f"INSERT INTO {fresh.relation}"
                yield

    def _prepared(self, life: Life) -> Life:
        """With what is the same for all shares as tables."""
        timeline, runs = f"{self.own}_timeline", f"{self.own}_runs"
        self._con.execute(f"CREATE OR REPLACE TABLE {timeline} AS {life.timeline}")
        life = replace(life, timeline=f"FROM {timeline}")
        if life.carried is not None:
            return life
        self._con.execute(f"CREATE OR REPLACE TABLE {runs} AS WITH timeline AS (FROM {timeline}) {life.runs()}")
        return replace(life, found_runs=f"FROM {runs}")

    def _placed(self, life: Life) -> str:
        runs = "" if life.carried is not None else f", runs AS ({life.runs()})"
        return f"WITH timeline AS ({life.timeline}){runs} {life.placed(COLUMNS)}"

    def _moved(self, tail: Tail) -> str:
        """A query of all keys from or to which a row was moved."""
        moved = f"{self.own}_moved"
        self._con.execute(
            f"""CREATE OR REPLACE TABLE {moved} AS SELECT DISTINCT __key AS k FROM {tail.relation}
            WHERE {tail.unfolded} AND __key IS NOT NULL AND ({names(NEW_KEY)} OR {names(OLD_KEY)})"""
        )
        return f"SELECT k FROM {moved}"

    def _is_changed(self, path: str) -> bool:
        now = self._state.lake.open(path)
        before = self._opened.version() if self._opened is not None else -1
        return now is not None and now.version() > before

    def _reach(self, tail: Tail, ends: str, shown: int | None, begun: int | None) -> Reach:
        log, cut = self._table.log, self._state.cut.position
        lows = new_lows(self._con, tail, ends, cut)
        rows = self._con.execute(
            f"""SELECT __topic, __partition, max(__offset) + 1 FROM {tail.relation}
            WHERE {tail.unfolded} AND __offset < {REPAIR_OFFSETS} GROUP BY ALL"""
        ).fetchall()
        seen = {(topic, partition): max(0, offset) for topic, partition, offset in rows}
        number = shape_number(self._shapes)
        return Reach(Checkpoint(cut, lows, log.version), seen, shown, begun, number, log.start, log.erased)

    def _shown(self, ends: str, after: int, before: int | None) -> int | None:
        cut = self._state.cut.position
        row = self._con.execute(
            f"SELECT epoch_us(max(source_ts)) FROM {ends} WHERE pos > {after} AND pos <= {cut}"
        ).fetchone()
        found = [t for t in (row[0] if row is not None else None, before) if t is not None]
        return max(found, default=None)

    def _begun(self, life: Life, tail: Tail, before: int | None) -> int | None:
        """When the last era began, in microseconds."""
        if not tail.facts.truncates:
            return before
        row = self._con.execute(
            f"WITH {', '.join(life_steps(life, []))} SELECT epoch_us(begun_at) FROM eras ORDER BY era DESC LIMIT 1"
        ).fetchone()
        return row[0] if row is not None and row[0] is not None else before

    def _ended(self, life: Life) -> int | None:
        """When the last snapshot was that may have ended rows, in microseconds; None when none was."""
        row = self._con.execute(
            f"""WITH timeline AS ({life.timeline}), runs AS ({life.runs()})
            SELECT epoch_us(max(greatest(r.ts, t.shown_ts))) FROM runs r LEFT JOIN timeline t ON t.pos = r.pos
            WHERE complete AND preceded AND r.pos <= {life.cut}"""
        ).fetchone()
        return row[0] if row is not None else None


def _chosen(share: Share, apart: str | None) -> str:
    """The condition (see `Life.chosen`) for the keys of a share."""
    if share.apart:
        return f"{{0}} IN ({apart})"
    mine = share.holds(share.order.of_text("{0}"))
    return mine if apart is None else f"{mine} AND {{0}} NOT IN ({apart})"


def _query(life: Life, base: HistoryBase | None, *, plain: bool) -> str:
    return plain_state_sql(life, base) if plain else state_sql(life)
