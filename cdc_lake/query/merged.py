"""The logs of several sources as one, in an order that what they hold decides: whoever reads it, and whenever.

Sources share no order, only time. The clock of a source is its greatest commit time so far, and the next transaction is
always that of the source whose clock is furthest back; of several, of the first by name. Within a source its own order
stays. A source that is furthest back and has nothing more holds the others up: what it brings next may be as old as its
clock says, so nothing behind it is decided yet.

A position here is the sum of the positions of the sources, which grows with each transaction and means one position of
each (`frontier`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import duckdb

from cdc_lake.events import TableId
from cdc_lake.project.files import Lows
from cdc_lake.project.moments import MomentError, read_moment
from cdc_lake.query.placed import NEVER, POSITION, Log, Placed


@dataclass(frozen=True, slots=True)
class Held:
    """The source that the others wait for, and the time up to which it has told everything; None: it told nothing."""

    source: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Merged:
    """The ordered changes of several sources, as they were when these were opened. `cut` is the last position that is
    decided; `timeline` a relation of all transactions up to it: s (the number of the source), pos, position, before,
    clock, mark, and of each source how far it is then (p0, p1, …)."""

    con: duckdb.DuckDBPyConnection
    logs: tuple[Log, ...]
    timeline: str
    cut: int
    held: Held

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, logs: Sequence[Log], name: str) -> Self:
        """The logs as one; the timeline is kept in the table `name`. Raises LakeError for a source without an order."""
        ordered = tuple(sorted(logs, key=lambda log: log.source))
        told = [
            f"""SELECT {i} AS s, pos, coalesce(epoch_us(shown_ts), {NEVER}) AS clock FROM ({log.timeline})
            WHERE pos <= {log.cut}"""
            for i, log in enumerate(ordered)
        ]
        so_far = "coalesce(max(CASE WHEN s = {} THEN {} END) OVER so_far, {}) AS {}{}"
        columns = [
            so_far.format(i, *of, i) for i in range(len(ordered)) for of in (("pos", 0, "p"), ("clock", NEVER, "c"))
        ]
        con.execute(
            f"""CREATE OR REPLACE TABLE {name} AS
            SELECT *, {_each("p{}", ordered, " + ")} AS position, least({_each("c{}", ordered, ", ")}) AS mark
            FROM (SELECT *, {", ".join(columns)} FROM (
                SELECT *, lag(clock, 1, {NEVER}) OVER (PARTITION BY s ORDER BY pos) AS before
                FROM ({" UNION ALL ".join(told)}))
            WINDOW so_far AS (ORDER BY before, s, pos ROWS UNBOUNDED PRECEDING))"""
        )
        clocks = dict(con.execute(f"SELECT s, max(clock) FROM {name} GROUP BY s").fetchall())
        first, number = min((int(clocks.get(i, NEVER)), i) for i in range(len(ordered)))
        con.execute(f"DELETE FROM {name} WHERE (before, s) > ({first}, {number})")
        ((cut,),) = con.execute(f"SELECT coalesce(max(position), 0) FROM {name}").fetchall()
        since = datetime.fromtimestamp(first / 1_000_000, UTC) if first > NEVER else None
        return cls(con, ordered, name, int(cut), Held(ordered[number].source, since))

    @property
    def source(self) -> str:
        """The sources' names, for people."""
        return "+".join(self.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose changes it orders."""
        return tuple(log.source for log in self.logs)

    @property
    def behind(self) -> bool:
        """Whether there is something that is not decided yet."""
        frontier = self.frontier(self.cut)
        return any(log.cut > frontier[log.source] for log in self.logs)

    def find(self, name: str) -> TableId | None:
        """The table called `name`."""
        return next((t for log in self.logs if (t := log.find(name)) is not None), None)

    def frontier(self, position: int) -> dict[str, int]:
        """How far each of `sources` is at a position."""
        columns = _each("p{}", self.logs, ", ")
        row = self.con.execute(
            f"SELECT {columns} FROM {self.timeline} WHERE position <= {position} ORDER BY position DESC LIMIT 1"
        ).fetchone()
        return dict(zip(self.sources, row or (0,) * len(self.logs), strict=True))

    def aligned(self, known: Mapping[str, int]) -> int:
        """The last position at which no source is further than `known` says of it."""
        within = [f"p{i} <= {known[s]}" for i, s in enumerate(self.sources) if s in known]
        return self._last(f"max(position) FROM {self.timeline} WHERE {' AND '.join(within) or 'true'}", 0)

    def reached(self, wanted: Mapping[str, int]) -> int:
        """The first position at which each source is at least as far as `wanted` says."""
        there = " AND ".join(f"p{i} >= {wanted.get(s, 0)}" for i, s in enumerate(self.sources))
        if all(position <= 0 for position in wanted.values()):
            return 0
        return self._last(f"min(position) FROM {self.timeline} WHERE {there}", self.cut)

    def clock(self, position: int) -> int:
        """The time up to which everything has come at a position, in microseconds."""
        return self._last(f"max(mark) FROM {self.timeline} WHERE position <= {position}", NEVER)

    def position(self, moment: str) -> int:
        """The last position at a moment: a time, or a transaction or LSN of one of the sources. Raises MomentError."""
        times = [m.time for m in read_moment(moment) if m.time is not None]
        if times:
            micros = int(times[0].timestamp() * 1_000_000)
            return self._last(f"max(position) FROM {self.timeline} WHERE mark <= {micros}", 0)
        failed: MomentError | None = None
        for log in self.logs:
            try:
                return self.aligned({log.source: log.position(moment)})
            except MomentError as error:
                failed = failed or error
        raise failed or ValueError("there is more than one log")

    def between(self, after: int, limit: int) -> MergedPlaced:
        """The next `limit` transactions behind the position `after`, or as many as are decided."""
        return MergedPlaced.of(self, after, limit)

    def upto(self, after: int, position: int, limit: int) -> MergedPlaced:
        """As `between`, and not beyond a position."""
        within = f"position > {after} AND position <= {position}"
        return self.between(after, min(limit, self._last(f"count(*) FROM {self.timeline} WHERE {within}", 0)))

    def _last(self, query: str, otherwise: int) -> int:
        row = self.con.execute(f"SELECT {query}").fetchone()
        return int(row[0]) if row is not None and row[0] is not None else otherwise


@dataclass(frozen=True, slots=True)
class MergedPlaced:
    """The positions (`after`, `upto`] of merged logs; `clock`, `began` and `ended` are as `Placed` has them, with the
    clock of each transaction that of its own source, and the mark the least of all clocks."""

    log: Merged
    after: int
    upto: int
    clock: str
    began: int
    ended: int
    _parts: tuple[Placed, ...]

    @classmethod
    def of(cls, log: Merged, after: int, limit: int) -> Self:
        """As `Merged.between`."""
        con, clock = log.con, "lake.internal.merged_clock"
        con.execute(
            f"""CREATE OR REPLACE TABLE {clock} AS SELECT s, pos, position, before, clock, mark FROM {log.timeline}
            WHERE position > {after} ORDER BY position LIMIT {limit}"""
        )
        counts = dict(con.execute(f"SELECT s, count(*) FROM {clock} GROUP BY s").fetchall())
        frontier, began = log.frontier(after), log.clock(after)
        parts = tuple(
            Placed.of(one, frontier[one.source], int(counts.get(i, 0)), number=i) for i, one in enumerate(log.logs)
        )
        row = con.execute(f"SELECT max(position), max(mark) FROM {clock}").fetchone()
        upto, ended = (int(row[0]), int(row[1])) if row is not None and row[0] is not None else (after, began)
        return cls(log, after, upto, clock, began, ended, parts)

    def changes(self, table: TableId, lows: Lows) -> str:
        """A query: as `Placed.changes`, with `__position` in the merged order."""
        number, part = self._part(table)
        return f"""SELECT c.* REPLACE (m.position AS {POSITION}) FROM ({part.changes(table, lows)}) c
            JOIN (SELECT pos, position FROM {self.clock} WHERE s = {number}) m ON c.{POSITION} = m.pos"""

    def lows_after(self, table: TableId, lows: Lows) -> Lows:
        """Per (topic, partition): the offset below which nothing is left to read behind `upto`."""
        return self._part(table)[1].lows_after(table, lows)

    def _part(self, table: TableId) -> tuple[int, Placed]:
        return next((i, p) for i, p in enumerate(self._parts) if p.log.find(str(table)) is not None)


# What rules and models are evaluated over, and a part of it.
Ordered = Log | Merged
OrderedPlaced = Placed | MergedPlaced


def merge(con: duckdb.DuckDBPyConnection, logs: Sequence[Log], sources: Sequence[str]) -> Ordered:
    """The order of the changes of `sources`: of one its own. Raises LakeError for a source without an order."""
    chosen = [log for log in logs if log.source in sources]
    if len(chosen) == 1:
        return chosen[0]
    numbers = "_".join(str(i) for i, log in enumerate(logs) if log.source in sources)
    return Merged.of(con, chosen, f"lake.internal.merged_{numbers}")


def _each(text: str, logs: Sequence[Log], between: str) -> str:
    return between.join(text.format(i) for i in range(len(logs)))
