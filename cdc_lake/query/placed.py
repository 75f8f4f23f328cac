"""Changes of tables between two positions, each once and in its place: what rules and streaming models read.

Unlike the view `changes` this reads only files that may hold something new, leaves out what no transaction placed
(snapshots, repairs, starting rows: they are no events), and counts a redelivered change once. Between the same two
positions it is the same at every call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import duckdb

from cdc_lake.config import Config
from cdc_lake.errors import LakeError, UsageError, suggest
from cdc_lake.events import TableId
from cdc_lake.land.tables import LOG
from cdc_lake.project.as_of import calendar_of
from cdc_lake.project.base import storage_type
from cdc_lake.project.cache import Cache
from cdc_lake.project.files import LogFiles, Lows, at_or_above, scan
from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.moments import find_position, read_moment
from cdc_lake.project.order import add_folded, load_ends
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.tail import Tail, new_lows, without_place
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.query.catalogue import changes_sql
from cdc_lake.query.history_views import history_query, open_history
from cdc_lake.query.session import read_sources

# After the columns of `changes` and before the source's own: the position of the change's transaction.
POSITION = "__position"
# Names that relations over placed changes use beside it.
_TAKEN = (POSITION, "__clock", "__clock_before", "__et", "__time", "__why", "__fresh", "__closed", "__at", "__row")
# A commit time before all others, in microseconds.
NEVER = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Log:
    """The ordered changes of one source, as they were when this was opened in `con`. `cut` is the last position."""

    con: duckdb.DuckDBPyConnection
    state: SourceState
    # The other sources whose tables its changes may meet: of a source of events the databases, of a database all.
    beside: tuple[Log, ...] = ()
    events: bool = False

    @property
    def source(self) -> str:
        """The source's name."""
        return self.state.source

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose changes it orders: this one."""
        return (self.source,)

    @property
    def cut(self) -> int:
        """The position up to which every transaction is complete."""
        return self.state.cut.position

    def frontier(self, position: int) -> dict[str, int]:
        """How far each of `sources` is at a position."""
        return {self.source: position}

    @property
    def names(self) -> Mapping[str, TableId]:
        """The tables as a person may call them: those of `public` also without it."""
        tables = [t.table for t in self.state.tables]
        return {t.name: t for t in tables if t.schema == "public"} | {str(t): t for t in tables}

    def find(self, name: str) -> TableId | None:
        """The table called `name`."""
        return self.names.get(name)

    def find_beside(self, name: str) -> Log | None:
        """The log of the source beside this one that has the table called `name`."""
        return next((log for log in self.beside if log.find(name) is not None), None)

    def clock(self, position: int) -> int:
        """The greatest commit time up to a position, in microseconds."""
        return self._last(f"max(epoch_us(shown_ts)) FROM ({self.timeline}) WHERE pos <= {position}", NEVER)

    def position(self, moment: str) -> int:
        """The last position at a moment: a time, an LSN or a transaction. Raises MomentError."""
        times = [m.time for m in read_moment(moment) if m.time is not None]
        if not times:
            return find_position(self.con, calendar_of(self.state), moment).position
        micros = int(times[0].timestamp() * 1_000_000)
        before = f"epoch_us(shown_ts) <= {micros} AND pos <= {self.cut}"
        return self._last(f"max(pos) FROM ({self.timeline}) WHERE {before}", 0)

    def between(self, after: int, limit: int) -> Placed:
        """The next `limit` transactions behind the position `after`, or as many as the cut shows.

        Raises LakeError for a source without transaction metadata: nothing says in which order its changes are.
        """
        return Placed.of(self, after, limit)

    def upto(self, after: int, position: int, limit: int) -> Placed:
        """As `between`, and not beyond a position."""
        placed = self.between(after, limit)
        if placed.upto <= position:
            return placed
        query = f"SELECT count(*) FROM {placed.clock} WHERE position <= {position}"
        ((count,),) = self.con.execute(query).fetchall()
        return self.between(after, min(limit, int(count)))

    def columns(self, table: TableId) -> Sequence[str]:
        """The columns of a table's placed changes. Raises the table's error when it cannot be shown."""
        none = Placed(self, 0, 0, "", NEVER, NEVER, "(SELECT '' AS tx_id, 0 AS pos)")
        return [str(c[0]) for c in self.con.execute(f"DESCRIBE {none.changes(table, {})}").fetchall()]

    def empty(self, table: TableId) -> str:
        """A relation with the columns of a table's placed changes and no rows."""
        none = Placed(self, 0, 0, "", NEVER, NEVER, "(SELECT '' AS tx_id, 0 AS pos)")
        return f"({none.changes(table, {})})"

    def versions(self, table: TableId, name: str) -> str:
        """A query: every version of a table's rows up to the cut, with `__from_position` and `__to_position`. What it
        finds out on the way is kept in tables whose names begin with `name`. Raises the table's error when it cannot
        be shown.
        """
        state = next(t for t in self.state.tables if t.table == table)
        others = ", ".join(c for c in HISTORY_COLUMNS if c not in ("__from_position", "__to_position"))
        query = history_query(self.con, self.state, state, open_history(self.state, state), name)
        return f"SELECT * EXCLUDE ({others}) FROM ({query})"

    @property
    def timeline(self) -> str:
        """A query: all transactions (`timeline.timeline_sql`). Raises LakeError when there are none."""
        return timeline_sql(self.transactions)

    @property
    def ends(self) -> str:
        """A relation of the ends of all transactions, as the lake has them. Raises LakeError when there are none."""
        return f"(SELECT * FROM {scan(self.transactions.paths)} WHERE status = 'END')"

    @property
    def transactions(self) -> LogFiles:
        """Where the transactions are. Raises LakeError when the source tells of none."""
        if self.state.transactions is None:
            raise LakeError(
                f"The changes of {self.source} have no order that rules could follow.",
                why="Its connector sends no transaction metadata, or no transaction has landed yet.",
                next='set "provide.transaction.metadata": "true" in the connector, then: cdc-lake sink run',
                code="no_transactions",
            )
        return self.state.transactions

    def _last(self, query: str, otherwise: int) -> int:
        row = self.con.execute(f"SELECT {query}").fetchone()
        return int(row[0]) if row is not None and row[0] is not None else otherwise


def open_logs(con: duckdb.DuckDBPyConnection, config: Config, cache: Cache | None = None) -> list[Log]:
    """The logs of all sources of a lake, read into a fresh connection; see `read_sources`. Raises LakeError when they
    cannot be read."""
    states = read_sources(con, config, cache)
    events = {s.name for s in config.all_sources if not s.captured}
    alone = [Log(con, state, events=state.source in events) for state in states]
    return [
        replace(log, beside=tuple(o for o in alone if o is not log and not (log.events and o.events))) for log in alone
    ]


@dataclass(frozen=True, slots=True)
class Placed:
    """The positions (`after`, `upto`] of a log.

    `clock` is a relation with one row per transaction: `position`, and the greatest commit time of the source so far,
    before it (`before`) and with it (`clock`), in microseconds; `mark` is the time up to which everything has come with
    it, which of one source is its clock. The mark begins at `began` and ends at `ended`.
    """

    log: Log
    after: int
    upto: int
    clock: str
    began: int
    ended: int
    _ends: str

    @property
    def ends(self) -> str:
        """The relation of the ends of transactions behind `after` (`order.load_ends`)."""
        return self._ends

    @classmethod
    def of(cls, log: Log, after: int, limit: int, *, number: int = 0) -> Self:
        """As `Log.between`. Those of different numbers can be used at one time."""
        con, own = log.con, log.state.lake.own
        ends, clock = f"{own}.placed_ends_{number}", f"{own}.placed_clock_{number}"
        load_ends(con, ends, log.transactions, after)
        began = log.clock(after)
        so_far = "max(us) OVER (ORDER BY pos ROWS BETWEEN UNBOUNDED PRECEDING AND {})"
        con.execute(
            f"""CREATE OR REPLACE TABLE {clock} AS
            WITH ended AS (SELECT pos, max(epoch_us(source_ts)) AS us FROM {ends}
                WHERE pos > {after} AND pos <= {log.cut} GROUP BY pos ORDER BY pos LIMIT {limit})
            SELECT pos AS position, greatest({began}, coalesce({so_far.format("1 PRECEDING")}, {began})) AS before,
                greatest({began}, coalesce({so_far.format("CURRENT ROW")}, {began})) AS clock, clock AS mark
            FROM ended"""
        )
        row = con.execute(f"SELECT max(position), max(clock) FROM {clock}").fetchone()
        upto, ended = (int(row[0]), int(row[1])) if row is not None and row[0] is not None else (after, began)
        return cls(log, after, upto, clock, began, ended, ends)

    def changes(self, table: TableId, lows: Lows) -> str:
        """A query: the columns of `changes`, `__position`, and the source's columns, of changes in these positions.

        `lows` are offsets below which nothing of interest lies, as `lows_after` told at `after`; empty: not known.
        Raises the table's error when it cannot be shown.
        """
        state = self._state(table)
        placed = f"(SELECT tx_id, pos FROM {self._ends} WHERE pos > {self.after} AND pos <= {self.upto})"
        where = f"{at_or_above(lows)} AND __op NOT IN ('r', 'a') AND __tx_id IN (SELECT tx_id FROM {placed})"
        events = changes_sql(state, scan(state.log.reaching(lows), LOG), where, taken=_TAKEN)
        return f"""SELECT c.*, p.pos AS {POSITION} FROM ({events}) c JOIN {placed} p ON c.__tx_id = p.tx_id
            QUALIFY row_number() OVER (PARTITION BY c.__tx_id, c.__tx_order ORDER BY c.__offset) = 1"""

    def lows_after(self, table: TableId, lows: Lows) -> Lows:
        """Per (topic, partition): the offset below which nothing is left to read behind `upto`."""
        tail = Tail(tuple(self._state(table).log.reaching(lows)), lows)
        if not tail.files:
            return dict(lows)
        con = self.log.con
        add_folded(con, self._ends, self.log.transactions, self.after, without_place(tail, self._ends))
        return new_lows(con, tail, self._ends, self.upto)

    def _state(self, table: TableId) -> TableState:
        return next(t for t in self.log.state.tables if t.table == table)


def stored_type(lake_type: str) -> str:
    """The type in which a Delta table keeps values of a type."""
    return storage_type(lake_type)


def unknown_table(name: str, logs: Sequence[Log]) -> UsageError:
    """The error for a table that no log has."""
    known = [n for log in logs for n in log.names]
    why = suggest(name, known) or "Nothing of it has landed in this lake yet."
    return UsageError(f"There is no table {name}.", why=why, next="cdc-lake tables", code="no_table")
