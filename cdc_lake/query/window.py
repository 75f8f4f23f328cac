"""The events of one table between two moments, each once, in the order of the source.

A window is half open: what `--as-of FROM` shows is not in it, what `--as-of TO` shows is. So windows that follow each
other leave nothing out and hold nothing twice. An event that was delivered twice is there once, at its first place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from cdc_lake.config import Config
from cdc_lake.events import TableId
from cdc_lake.land.tables import LOG
from cdc_lake.project.as_of import calendar_of, refuse_before_start
from cdc_lake.project.base import storage_type
from cdc_lake.project.files import scan
from cdc_lake.project.history_names import distinct_names
from cdc_lake.project.moments import MomentError, find_position
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.tail import START, placed
from cdc_lake.query.catalogue import EVENT_COLUMNS, TRACE, UNREAD
from cdc_lake.query.keys import find_table
from cdc_lake.query.session import Session, open_session
from cdc_lake.sqltext import ident

BATCH_ROWS = 2048
_PLACES = "temp.main.replayed_places"
_AT = "l.__topic = p.top AND l.__partition = p.part AND l.__offset = p.off"
_SAME = "w.__topic = p.top AND w.__partition = p.part AND w.__offset = p.off"
_ORDER = "p.pos_tx, p.pos_order, p.part, p.off"
# As the log has them, and where the event stands among the source's transactions.
_RAW = (
    *("__op", "__key", "__before", "__after", "__source_ts", "__tx_id", "__tx_order", "__lsn"),
    *("__topic", "__partition", "__offset", "__schema_id"),
)
POSITION = "__position"
_AS_TEXT = ("__key", "__before", "__after", UNREAD)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is in a window; the two times are those of its first and last event."""

    events: int
    transactions: int
    operations: Mapping[str, int]
    first: datetime | None = None
    last: datetime | None = None


class Window:
    """An open window. `after` is the position behind which it begins, None for the beginning of the log; `until` the
    position at which it ends."""

    def __init__(self, session: Session, source: SourceState, table: TableState, after: int | None, until: int) -> None:
        self._session, self._state = session, table
        self._con = session.connection
        self.source, self.table = source.source, table.table
        self.after, self.until = after, until
        self._lake = source.lake
        self.counts = self._find(source)

    @property
    def root(self) -> str:
        """Where the lake is."""
        return self._lake.root

    @property
    def options(self) -> Mapping[str, str] | None:
        """How the lake's store is reached."""
        return self._lake.options

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the events came from."""
        log = self._state.log
        return tuple(sorted({topic for topic, _ in log.positions} | {f.topic for f in log.files if f.topic}))

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def raw(self) -> Iterator[pa.RecordBatch]:
        """The events as the log has them (keys and images as JSON text), with `__position`."""
        columns = ", ".join(f"l.{name}" for name in _RAW)
        yield from self._batches(
            f"""SELECT {columns}, p.pos_tx AS {POSITION} FROM {scan(self._state.log.paths, LOG)} l
            JOIN {_PLACES} p ON {_AT} ORDER BY {_ORDER}"""
        )

    def typed(self, *, without: str | None = None) -> Iterator[pa.RecordBatch]:
        """The events as `changes` shows them, in types that Delta has, with `__position`.

        `without` is a relation (__topic, __partition, __offset) of events to leave out.
        """
        names = [*EVENT_COLUMNS, UNREAD]
        shown = [] if self._state.shapes is None else distinct_names(self._state.shapes.names, [*names, TRACE])
        columns = [] if self._state.shapes is None else self._state.shapes.target.columns
        items = [f"CAST(l.{n} AS VARCHAR) AS {n}" if n in _AS_TEXT else f"l.{n}" for n in names]
        items += [
            f"CAST(l.{ident(name)} AS {storage_type(c.lake_type)}) AS {ident(name)}"
            for name, c in zip(shown, columns, strict=True)
        ]
        view = f"changes.{ident(self.table.schema)}.{ident(self.table.name)}"
        left_out = f"ANTI JOIN {without} w ON {_SAME}" if without is not None else ""
        yield from self._batches(
            f"""SELECT {", ".join(items)}, p.pos_tx AS {POSITION} FROM {view} l JOIN {_PLACES} p ON {_AT}
            {left_out} ORDER BY {_ORDER}"""
        )

    def known(self, relation: str) -> int:
        """How many events of the window are in `relation` (__topic, __partition, __offset)."""
        # All rows are fetched: an open result keeps the connection from being asked again.
        (row,) = self._con.execute(f"SELECT count(*) FROM {_PLACES} p SEMI JOIN {relation} w ON {_SAME}").fetchall()
        return int(row[0])

    def _batches(self, query: str) -> Iterator[pa.RecordBatch]:
        yield from self._con.sql(query).to_arrow_reader(BATCH_ROWS)

    def _find(self, source: SourceState) -> Counts:
        """Make the narrow table of the events' places, and count it."""
        whole, ends = source.whole(self._con, self._state)
        # Under the keys that they were sent with: an event is what it was.
        tail = replace(whole.tail, renaming=None)
        columns = ["__topic AS top", "__partition AS part", "__op AS op", "__tx_id AS tx", "__source_ts AS ts"]
        rows = placed(tail, ends, self.until, columns, where=f"NOT {START}")
        begun = "true" if self.after is None else f"pos_tx > {self.after}"
        # A row without a transaction has no name but its place.
        name = ["tx", "CASE WHEN tx IS NULL THEN off ELSE pos_order END", "CASE WHEN tx IS NULL THEN (top, part) END"]
        once = f"row_number() OVER (PARTITION BY {', '.join(name)} ORDER BY off) = 1"
        self._con.execute(
            f"""CREATE OR REPLACE TEMP TABLE replayed_places AS
            SELECT top, part, off, pos_tx, pos_order, op, tx, ts FROM ({rows}) WHERE {begun} QUALIFY {once}"""
        )
        operations = dict(self._con.execute(f"SELECT op, count(*) FROM {_PLACES} GROUP BY op ORDER BY op").fetchall())
        (facts,) = self._con.execute(
            f"""SELECT count(*), count(DISTINCT (pos_tx, tx)) FILTER (tx IS NOT NULL),
            epoch_us(min(ts)), epoch_us(max(ts)) FROM {_PLACES}"""
        ).fetchall()
        times = [datetime.fromtimestamp(us / 1e6, UTC) if us is not None else None for us in facts[2:]]
        return Counts(facts[0], facts[1], operations, *times)


def open_window(config: Config, name: str, start: str | None, end: str | None) -> Window:
    """The events of the table `name` behind the moment `start` and up to the moment `end`.

    Without `start` from the beginning of its log, the rows of a snapshot among them; without `end` up to the cut.
    Raises UsageError for an unknown table, MomentError for a moment that the lake does not hold or that comes before
    the other one, LakeError when the table cannot be read.
    """
    session = open_session(config, tables=[name])
    try:
        source, table = find_table(session, name)
        if table.error is not None:
            raise table.error
        after = None if start is None else _position(session.connection, source, table, start)
        until = source.cut.position if end is None else _position(session.connection, source, None, end)
        if after is not None and after > until:
            raise MomentError(
                f"{start} is later than {end or 'what the lake holds'}.",
                why="A window ends behind its beginning.",
                next="change the two moments, or leave out --to",
                code="empty_window",
            )
        session.connection.execute(f"SET memory_limit = '{max(int(config.sink.memory_mb), 256)}MB'")
        return Window(session, source, table, after, until)
    except BaseException:
        session.close()
        raise


def _position(con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState | None, moment: str) -> int:
    calendar = calendar_of(source)
    position = find_position(con, calendar, moment).position
    if table is not None:
        refuse_before_start(con, calendar, table, position, moment)
    return position


def in_words(table: TableId, counts: Counts) -> str:
    """What there is in a window, as a sentence."""
    span = f", {counts.first.isoformat()} to {counts.last.isoformat()}" if counts.first and counts.last else ""
    return f"{table}: {counts.events:,} events of {counts.transactions:,} transactions{span}"
