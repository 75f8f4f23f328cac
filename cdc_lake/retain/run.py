"""Go through the tables of a lake: what each one's class lets go, and its removal, one commit a table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import duckdb
from deltalake.exceptions import DeltaError

from cdc_lake.errors import CdcLakeError, LakeError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import WAITING, DeadLetters, Letter
from cdc_lake.project.fold import fold_connection
from cdc_lake.project.history_fold import clear_history
from cdc_lake.project.lake import Lake
from cdc_lake.project.order import load_ends
from cdc_lake.project.snapshot import SourceState, TableState, read_source
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.retain.place import Bound, Places
from cdc_lake.retain.policy import Policy
from cdc_lake.retain.trim import do_trim, find_trim

Tell = Callable[[str], None]
# Of a table: the texts that the log has of its keys under a legal hold, each with what was written of it.
Held = Callable[[duckdb.DuckDBPyConnection, SourceState, TableState], Mapping[str, str]]

# What may become of a table: nothing has to go, a hold or its class keeps it, rows are due, they are gone, or something
# stands in the way.
NOTHING, HELD, FOREVER, DUE, DONE, REFUSED, FAILED = "nothing", "held", "forever", "due", "done", "refused", "failed"


@dataclass(frozen=True, slots=True)
class Report:
    """A table, its class, and what goes or went: changes `rows` and their `bytes` in so many `files`, all older than
    `until`, the commit of the transaction at `position`; `starts` rows stay as starting points.

    `horizon` is what the class asks for, `why` says what keeps rows that are older.
    """

    source: str
    table: TableId
    policy: Policy
    outcome: str
    horizon: datetime | None = None
    position: int = 0
    until: datetime | None = None
    rows: int = 0
    files: int = 0
    bytes: int = 0
    starts: int = 0
    why: str = ""
    seconds: float = 0.0
    error: CdcLakeError | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for. `wanted` are tables, None all; `apply` removes, else it is only said what would be.

    `held` tells which rows of a table no retention touches, `unread` how far those who follow a source's table have
    read it.
    """

    lake: Lake
    captured: Callable[[TableId], bool]
    policy: Callable[[TableId], Policy]
    wanted: Collection[TableId] | None = None
    apply: bool = False
    now: datetime | None = None
    memory_mb: int = 1024
    held: Held = lambda _con, _source, _table: {}
    unread: Mapping[tuple[str, TableId], Sequence[Bound]] = field(default_factory=dict)


def retain(job: Job, tell: Tell) -> Iterator[Report]:
    """One report for each table; one that fails does not stop the others. Removal needs `lock.sole_rewriter`."""
    for source in job.lake.sources():
        with fold_connection(job.memory_mb) as con:
            state = read_source(con, job.lake, source, job.captured)
            ends = f"{job.lake.own}.retained_ends"
            load_ends(con, ends, state.transactions, 0)
            letters = [x for x in DeadLetters(job.lake.root, source, job.lake.options).all() if x.state == WAITING]
            work = _Work(job, con, state, ends, letters, tell)
            for table in state.tables:
                if job.wanted is None or table.table in job.wanted:
                    yield work.table(table)


@dataclass(frozen=True, slots=True)
class _Work:
    """One source."""

    job: Job
    con: duckdb.DuckDBPyConnection
    state: SourceState
    ends: str
    letters: list[Letter]
    tell: Tell

    def table(self, table: TableState) -> Report:
        policy, begun = self.job.policy(table.table), time.monotonic()
        report = Report(self.state.source, table.table, policy, NOTHING)
        if policy.hold:
            return replace(report, outcome=HELD, why="a legal hold keeps all of it")
        if policy.log is None:
            return replace(report, outcome=FOREVER)
        try:
            report = self._examined(report, table, policy.log)
        except CdcLakeError as error:
            report = replace(report, outcome=FAILED, error=error)
        except duckdb.Error as error:
            report = replace(report, outcome=FAILED, error=_unreadable(table.table, error))
        return replace(report, seconds=time.monotonic() - begun)

    def _examined(self, report: Report, table: TableState, kept: timedelta) -> Report:
        horizon = (self.job.now or datetime.now(UTC)) - kept
        report = replace(report, horizon=horizon)
        if table.error is not None:
            raise table.error
        reason = self._reason(table)
        if reason:
            return replace(report, outcome=REFUSED, why=reason)
        wanted = self._position(horizon)
        if wanted <= table.log.start:
            return report
        places = Places.find(self.con, table, self.ends, f"{self.job.lake.own}.places")
        try:
            topics = {topic for topic, _ in table.log.positions} | {f.topic for f in table.log.own}
            bound = places.bound(
                wanted,
                [x for x in self.letters if x.tp.topic in topics],
                self.job.held(self.con, self.state, table),
                self.job.unread.get((self.state.source, table.table), ()),
            )
            return self._trimmed(replace(report, why=bound.why), places, bound)
        finally:
            places.drop()

    def _trimmed(self, report: Report, places: Places, bound: Bound) -> Report:
        trim = find_trim(self.con, self.state, places, bound.position)
        if trim is None:
            return replace(report, outcome=HELD if bound.held else REFUSED if bound.why else NOTHING)
        report = replace(
            report,
            outcome=DUE,
            position=trim.position,
            until=self._time(trim.position),
            rows=trim.gone,
            files=len(trim.touched),
            bytes=trim.bytes,
            starts=trim.starts,
        )
        if not self.job.apply:
            return report
        self.tell(f"{report.table}: {trim.gone:,} changes go, {trim.starts:,} rows stay as starting points")
        do_trim(self.con, self.state, places, trim)
        self._clear_history(report.table)
        return replace(report, outcome=DONE)

    def _clear_history(self, table: TableId) -> None:
        """Versions that ended before the log begins now are in no history: the next fold makes it anew."""
        try:
            clear_history(self.job.lake, self.state.source, table)
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"Changes of {table} went, but versions of its rows are still in its folded history.",
                why=first_line(error),
                next=f"cdc-lake fold {table}: it makes the history anew",
                code="retention_failed",
            ) from error

    def _reason(self, table: TableState) -> str:
        """Why nothing of a table may go; empty when something may."""
        if self.state.transactions is None:
            return "its connector sends no transaction metadata, so nothing says what was complete when"
        if table.base is None:
            return f"it was never folded; first: cdc-lake fold {table.table}"
        keys = {v.key_definition for v in table.versions if v.kind == "connect" and v.key_definition}
        if len({tuple(f["field"] for f in json.loads(k)["fields"]) for k in keys}) > 1:
            return "its key was put on other columns: older rows are found by what the log tells of that"
        return ""

    def _position(self, horizon: datetime) -> int:
        """The last position at or before the cut whose transaction was committed before the horizon."""
        timeline = timeline_sql(self.state.transactions)
        row = self.con.execute(
            f"SELECT max(pos) FROM ({timeline}) WHERE shown_ts < $1 AND pos <= {self.state.cut.position}", [horizon]
        ).fetchone()
        return int(row[0] or 0) if row is not None else 0

    def _time(self, position: int) -> datetime | None:
        row = self.con.execute(f"SELECT epoch_us(source_ts) FROM {self.ends} WHERE pos = {position}").fetchone()
        return datetime.fromtimestamp(row[0] / 1e6, UTC) if row is not None and row[0] is not None else None


def _unreadable(table: TableId, error: Exception) -> LakeError:
    return LakeError(
        f"The log of {table} could not be gone through, so nothing of it was removed.",
        why=first_line(error),
        next="cdc-lake doctor; then cdc-lake retention apply once more",
        code="retention_failed",
    )
