"""Where every row of a log stands, and up to which position rows may go.

A starting row stands for all that its table was at the position, so everything that stands at or before it goes, and
nothing else: what comes later, or is read again, must stand as it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from cdc_lake.events import TopicPartition
from cdc_lake.land.dead_letters import Letter
from cdc_lake.land.tables import REPAIR_OFFSETS
from cdc_lake.project.runs import Run, find_runs, relation_of
from cdc_lake.project.snapshot import TableState
from cdc_lake.project.tail import NEVER, RUN, Facts, whole_tail
from cdc_lake.sqltext import literal


@dataclass(frozen=True, slots=True)
class Bound:
    """The last position at or before which rows may go, and what keeps it from being later; empty when nothing does.
    `held` says that it is a legal hold."""

    position: int
    why: str = ""
    held: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """The DuckDB table `name` (f, n, topic, part, off, start, streamed, run, place): one row for each of the log's, by
    the number of its file and its number in it. `ends` is the relation of all transactions that ended."""

    con: duckdb.DuckDBPyConnection
    name: str
    ends: str
    table: TableState

    @classmethod
    def find(cls, con: duckdb.DuckDBPyConnection, table: TableState, ends: str, name: str) -> Places:
        """Read the narrow columns of the whole log."""
        raw = f"{name}_raw"
        con.execute(
            f"""CREATE OR REPLACE TABLE {raw} (f INT, n BIGINT, topic VARCHAR, part INT, off BIGINT, streamed BOOLEAN,
            pos BIGINT, stands BIGINT, run BIGINT)"""
        )
        for number, path in enumerate(table.log.paths):
            con.execute(
                f"""INSERT INTO {raw} SELECT {number}, file_row_number, __topic, __partition, __offset,
                __tx_id IS NOT NULL, CASE WHEN __tx_id IS NOT NULL THEN coalesce(e.pos, {NEVER}) END,
                CASE WHEN __tx_id IS NULL THEN __tx_order END, CASE WHEN {RUN} THEN __lsn END
                FROM read_parquet([{literal(path)}], hive_partitioning=false, file_row_number=true) l
                LEFT JOIN {ends} e ON e.tx_id = l.__tx_id"""
            )
        found = cls(con, name, ends, table)
        runs = relation_of(found.runs()) or "(SELECT NULL::BIGINT, NULL::BIGINT WHERE false)"
        # The running maximum: a redelivered transaction does not set later rows back.
        con.execute(
            f"""CREATE OR REPLACE TABLE {name} AS SELECT f, n, topic, part, off, off < 0 AS start, streamed, run,
            CASE WHEN off < 0 THEN {table.log.start} WHEN streamed THEN pos ELSE greatest(coalesce(stands,
                max(pos) OVER (PARTITION BY topic, part ORDER BY off ROWS UNBOUNDED PRECEDING), 0),
                coalesce(r.pos_of_run, 0), {table.log.start}) END AS place
            FROM {raw} LEFT JOIN {runs} r(lsn, pos_of_run) ON r.lsn = run"""
        )
        con.execute(f"DROP TABLE {raw}")
        return found

    def runs(self) -> list[Run]:
        """The snapshots in the log that read the table whole."""
        return find_runs(self.con, replace(whole_tail(self.table.log), facts=Facts(1, 1, runs=1)), self.ends)

    def one(self, what: str, where: str = "true") -> int:
        """One number about the rows that meet `where`; null is 0."""
        row = self.con.execute(f"SELECT {what} FROM {self.name} WHERE {where}").fetchone()
        return int(row[0] or 0) if row is not None else 0

    def before(self, position: int) -> int:
        """The last position below `position`; 0 when there is none."""
        row = self.con.execute(f"SELECT max(pos) FROM {self.ends} WHERE pos < {position}").fetchone()
        return int(row[0] or 0) if row is not None else 0

    def bound(
        self, wanted: int, letters: Sequence[Letter], held: Mapping[str, str], unread: Sequence[Bound] = ()
    ) -> Bound:
        """How far rows may go when the horizon is at the position `wanted`. `held` are the texts of keys under a legal
        hold, each with what was written of it; `unread` is how far those have read who follow the table."""
        found = self._bound_by_fold(wanted)
        # The newest change stays: it tells the shape that the table has now.
        newest = self.one("max(place)", f"streamed AND place < {NEVER}")
        found = replace(found, position=min(found.position, self.before(newest)))
        found = min([found, *unread], key=lambda b: b.position)
        for letter in letters:
            found = self._below_letter(found, letter)
        found = self._below_held(found, held)
        found = self._below_runs(found)
        # Of positions between which nothing changed the first: the same is done, and the next run sees that it is.
        last = self.one("max(place)", f"place <= {found.position}")
        return replace(found, position=last)

    def _bound_by_fold(self, wanted: int) -> Bound:
        cut = self.table.checkpoint.cut
        if wanted <= cut:
            return Bound(wanted)
        return Bound(cut, f"its fold has not read on; first: cdc-lake fold {self.table.table}")

    def _below_letter(self, bound: Bound, letter: Letter) -> Bound:
        """A letter that waits may be put back into its place: that, and what follows, stays."""
        here = f"topic = {literal(letter.tp.topic)} AND part = {letter.tp.partition}"
        place = self.one("max(place)", f"streamed AND {here} AND off < {letter.offset}")
        if place > bound.position:
            return bound
        why = f"a dead letter waits for a decision; first: cdc-lake dlq show {letter.id}"
        return Bound(self.before(max(place, 1)), why)

    def _below_held(self, bound: Bound, held: Mapping[str, str]) -> Bound:
        """The first change of a row under hold stays, and what follows: so its life can be read as it was."""
        first: tuple[int, str] | None = None
        for number, path in enumerate(self.table.log.paths if held else ()):
            rows = self.con.execute(
                f"""SELECT min(place), arg_min(__key, place)
                FROM read_parquet([{literal(path)}], hive_partitioning=false, file_row_number=true) l
                JOIN {self.name} p ON p.f = {number} AND p.n = l.file_row_number
                WHERE __key IN (SELECT unnest($1::VARCHAR[])) HAVING count(*) > 0""",
                [sorted(held)],
            ).fetchall()
            first = min([r for r in (first, *rows) if r is not None], default=None)
        if first is None or first[0] > bound.position:
            return bound
        return Bound(self.before(max(first[0], 1)), f"a legal hold keeps the row {held[first[1]]}", held=True)

    def _below_runs(self, bound: Bound) -> Bound:
        """A snapshot goes whole or stays whole, and nothing is known of what the table was before its first one."""
        runs = self.runs()
        position, why = bound.position, bound.why
        if runs and runs[0].pos > position and not self.table.log.start:
            return replace(bound, position=0, why=why or "its first snapshot is later")
        marked, unfinished = [r.lsn for r in runs], [r.lsn for r in runs if not r.over]
        while position > self.table.log.start:
            torn = f"max(place) > {position} OR list_contains({unfinished}::BIGINT[], run)"
            row = self.con.execute(
                f"""SELECT min(low) FROM (SELECT min(place) AS low FROM {self.name}
                WHERE list_contains({marked}::BIGINT[], run)
                GROUP BY run HAVING min(place) <= {position} AND ({torn}))"""
            ).fetchone()
            if row is None or row[0] is None:
                break
            position, why = self.before(row[0]), "a snapshot of the table reaches across its horizon"
        return replace(bound, position=position, why=why)

    def kept_offsets(self, position: int) -> dict[TopicPartition, int]:
        """Per partition of which something goes: the first offset that stays, or the one behind the last."""
        rows = self.con.execute(
            f"""SELECT topic, part, coalesce(min(off) FILTER (place > {position}), max(off) + 1) FROM {self.name}
            WHERE off BETWEEN 0 AND {REPAIR_OFFSETS - 1} GROUP BY ALL HAVING bool_or(place <= {position})"""
        ).fetchall()
        return {TopicPartition(topic, part): off for topic, part, off in rows}

    def drop(self) -> None:
        """Give the memory back."""
        self.con.execute(f"DROP TABLE IF EXISTS {self.name}")
