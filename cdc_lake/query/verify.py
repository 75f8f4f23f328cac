"""`verify`: the proof that the lake equals the source, at a position that both have reached.

1. Take a snapshot of the source, then write a marker: a transaction that commits after everything the snapshot sees.
2. Read the lake and leave out transactions that the snapshot does not see: both sides are now the same moment.
3. Compare. A difference counts only when the lake has the marker; until then the lake is given time to reach it.

A repair needs one thing more: a position in the lake's order that is the snapshot's. Transactions can become visible in
another order than they were committed in; a snapshot taken in such a moment has no position, and the next one is taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import duckdb
import psycopg

from cdc_lake.errors import LakeError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.erasures import Erasures, read_erasures
from cdc_lake.land.layout import parquet_files, transactions_path
from cdc_lake.land.store import DeltaStore
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.files import scan
from cdc_lake.project.fold import fold_connection
from cdc_lake.project.lake import Lake
from cdc_lake.project.printing import printed
from cdc_lake.project.snapshot import SourceState, read_source
from cdc_lake.project.types import schema_from_catalogue
from cdc_lake.query.causes import explain
from cdc_lake.query.compare import Comparison, TableReport, pairs
from cdc_lake.query.found import Found
from cdc_lake.query.source_rights import check_rights
from cdc_lake.query.source_side import SourceSide, not_reached, read_refused, take_snapshot, write_marker

# A running sink lands a heartbeat every few seconds. Without any for this long, waiting on is of no use.
_QUIET_SECONDS = 12.0
_POLL_SECONDS = 0.25
_ROUNDS = 3
_AHEAD = "a fold is ahead of the source's snapshot"
_REWRITTEN = "truncated or rewritten while it was read"
_NO_PLACE = "the source's snapshot falls between transactions that became visible in another order"
# Causes that lie in the moment of looking: another one tells more.
_MOVED = (_AHEAD, _REWRITTEN, _NO_PLACE)


@dataclass(slots=True)
class Report:
    """All tables of one source. `reached` is false when the lake did not get to the source's position."""

    source: str
    lsn: str
    snapshot: str
    reached: bool
    tables: list[TableReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row of every table is equal."""
        return all(t.ok for t in self.tables)

    @property
    def position(self) -> dict[str, Any]:
        """Where both sides were compared."""
        return {"source": self.source, "lsn": self.lsn, "snapshot": self.snapshot, "reached": self.reached}


Mend = Callable[[Found], None]


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares one source with its part of the lake. `settings` are the connector's modes, `dsn` an administrator's.

    `slot` is the connector's replication slot, which a report then looks at.
    """

    dsn: str
    lake: Lake
    source: str
    captured: Callable[[TableId], bool]
    settings: Mapping[str, str]
    slot: str | None = None
    memory_mb: int = 512
    progress: Callable[[str], None] = lambda _: None

    def verify(self, entries: Sequence[Mapping[str, Any]], *, wait_seconds: float = 60.0) -> Report:
        """Compare all tables of `entries` (catalogue entries of the source).

        Raises SourceError when the source refuses to be read, LakeError when the lake cannot be.
        """
        try:
            report = self._round(entries, None)
            for _ in range(_ROUNDS):
                wrong = {t.table for t in report.tables if not t.ok}
                if not wrong:
                    break
                self.progress(f"{len(wrong)} tables differ: waiting until the lake has all that the source shows")
                again = [e for e in entries if TableId(e["schema"], e["table"]) in wrong]
                newer = self._round(again, wait_seconds)
                newer.tables += [t for t in report.tables if t.table not in wrong]
                report = newer
                # At the same position a difference is one, unless the two sides were not of the same moment.
                if not newer.reached or all(t.cause not in _MOVED for t in newer.tables):
                    break
        except psycopg.Error as error:
            raise read_refused(error) from None
        report.tables.sort(key=lambda t: t.table)
        return report

    def repair(self, entries: Sequence[Mapping[str, Any]], mend: Mend, *, wait_seconds: float = 60.0) -> Report:
        """Compare all tables of `entries` and give each to `mend`, at a position that both sides have.

        The report is of what was found. Raises LakeError when there is no such position, and as `verify` does.
        """
        done: list[TableReport] = []
        try:
            for _ in range(_ROUNDS):
                report = self._round(entries, wait_seconds, mend)
                done += [t for t in report.tables if t.cause not in _MOVED]
                entries = [e for e in entries if _cause_of(report, e) in _MOVED]
                if not entries:
                    report.tables = sorted(done, key=lambda t: t.table)
                    return report
        except psycopg.Error as error:
            raise read_refused(error) from None
        why = next(t.cause for t in report.tables if t.cause in _MOVED)
        raise LakeError(
            "No moment was found at which lake and source can be compared.",
            why=f"{_ROUNDS} times in a row: {why}.",
            next="cdc-lake verify --repair  once more",
            code="repair_no_position",
        )

    def _round(
        self, entries: Sequence[Mapping[str, Any]], wait_seconds: float | None, mend: Mend | None = None
    ) -> Report:
        with psycopg.connect(self.dsn) as snapshot, fold_connection(self.memory_mb) as con:
            side = take_snapshot(snapshot)
            check_rights(snapshot, entries)
            marker = write_marker(self.dsn)
            reached = wait_seconds is None or self._wait(con, marker, wait_seconds)
            if mend is not None and not (reached and marker):
                raise not_reached(self.source, marked=marker is not None)
            state = read_source(con, self.lake, self.source, self.captured)
            position, cut = side.position(con, state) if mend is not None else 0, state.cut.position
            if position:
                # Rows that never came keep the cut back; what they lack is what a repair is for.
                state = replace(state, cut=replace(state.cut, position=max(position, state.cut.position)))
            con.execute(f"DELETE FROM {state.ends} WHERE {side.unseen}")
            ahead = _fold_is_ahead(con, state, side)
            erasures = read_erasures(DeltaStore(self.lake.options), self.lake.root, self.source)
            report = Report(self.source, side.lsn, side.transactions, reached)
            for entry in entries:
                compare = partial(self._compare, con, side, state, entry, (position, cut), erasures=erasures)
                found = self._with_memory(con, f"{entry['schema']}.{entry['table']}", compare)
                table = found.report
                if mend is not None or not table.ok:
                    table.cause = _why(
                        found, self.slot, ahead=ahead, reached=reached, placed=bool(position or not mend)
                    )
                if mend is not None and table.cause not in _MOVED:
                    mend(found)
                self.progress(f"{table.table}: {table.rows_source:,} rows, {'equal' if table.ok else 'different'}")
                report.tables.append(table)
            return report

    def _wait(self, con: duckdb.DuckDBPyConnection, marker: str | None, seconds: float) -> bool:
        """Whether the lake got the marker's END; gives up after `seconds`, or when nothing lands any more."""
        deadline = time.monotonic() + seconds
        quiet_since, version = time.monotonic(), -1
        while time.monotonic() < min(deadline, quiet_since + _QUIET_SECONDS):
            table = self.lake.open(transactions_path(self.lake.root, self.source))
            if table is not None and table.version() != version:
                version, quiet_since = table.version(), time.monotonic()
                files = parquet_files(table)
                query = f"SELECT count(*) FROM {scan(files)} WHERE status = 'END' AND tx_id = ?"
                row = con.execute(query, [marker]).fetchone() if marker and files else None
                if row and row[0]:
                    return True
            time.sleep(_POLL_SECONDS)
        return marker is None

    def _with_memory(self, con: duckdb.DuckDBPyConnection, table: str, compare: Callable[[], Found]) -> Found:
        """What `compare` finds; a value of which several copies do not fit gets more memory, while there is some."""
        reason = ""
        for megabytes in _memory_steps(self.memory_mb):
            con.execute(f"SET memory_limit = '{megabytes}MB'")
            try:
                return compare()
            except duckdb.OutOfMemoryException as error:
                reason = first_line(error)
        raise LakeError(
            f"{table} cannot be compared: its values do not fit into the memory.",
            why=reason,
            next="run cdc-lake verify where there is more memory",
            code="verify_memory",
        )

    def _compare(
        self,
        con: duckdb.DuckDBPyConnection,
        side: SourceSide,
        state: SourceState,
        entry: Mapping[str, Any],
        place: tuple[int, int],
        *,
        erasures: Erasures,
    ) -> Found:
        name = TableId(entry["schema"], entry["table"])
        table = next((t for t in state.tables if t.table == name), None)
        columns = schema_from_catalogue(entry, self.settings).columns
        keyed = any(c.key_position is not None for c in columns)
        lake, rows = {c.name: "NULL" for c in columns}, None
        if table is not None:
            view = state.view(con, table, "verified")
            rows = keyed_sql(view) if view.shapes.keyed else bag_sql(view)
            lake = {c.name: printed(c.lake_type, f"l.c{i}") for i, c in enumerate(view.shapes.target.columns)}
            keyed = keyed and view.shapes.keyed
        erased = erasures.salt, frozenset(e.row_hash for e in erasures.of(name) if keyed)
        comparison = Comparison(con, side.connection, name, pairs(columns, lake, keyed), rows, erased)
        return Found(comparison, comparison.run(), state, table, entry, side, *place)


def _memory_steps(least_mb: int) -> Iterator[int]:
    """Megabytes to try with: the least, and twice as much each time up to half of the machine's."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2_000_000
    yield least_mb
    while (least_mb := least_mb * 2) <= most:
        yield least_mb


def _why(found: Found, slot: str | None, *, ahead: bool, reached: bool, placed: bool) -> str | None:
    """Why a table differs, as far as it is known; or what made it impossible to compare."""
    if ahead:
        return _AHEAD
    if found.side.rewritten(found.report.table):
        return _REWRITTEN
    if not placed:
        return _NO_PLACE
    if found.report.ok:
        return None
    known = explain(found, slot)
    return known if reached else "; ".join(filter(None, ("not landed yet", known)))


def _fold_is_ahead(con: duckdb.DuckDBPyConnection, state: SourceState, side: SourceSide) -> bool:
    """Whether a fold holds transactions that the snapshot does not see: then the two sides cannot be compared."""
    cut = max((t.checkpoint.cut for t in state.tables if t.base is not None), default=0)
    if state.transactions is None or not cut:
        return False
    files = [f.path for f in state.transactions.files if f.offsets[0] < cut]
    if not files:
        return False
    query = f"SELECT count(*) FROM {scan(files)} WHERE status = 'END' AND __offset < {cut} AND {side.unseen}"
    row = con.execute(query).fetchone()
    return bool(row and row[0])


def _cause_of(report: Report, entry: Mapping[str, Any]) -> str | None:
    name = TableId(entry["schema"], entry["table"])
    return next((t.cause for t in report.tables if t.table == name), None)
