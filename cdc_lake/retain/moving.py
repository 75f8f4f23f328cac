"""Changes that are older than their class keeps near go to its tier: what would go, and the move, one commit a table.

A file whose rows are all old is copied as it is; of one that has others too, each part is written anew where it
belongs. What stays: the last change of each partition, which tells the table's shape to whoever does not ask the tier;
starting rows and repairs, which every reader looks at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, LakeError, first_line, is_disk_full
from cdc_lake.events import TableId
from cdc_lake.land.layout import open_store
from cdc_lake.land.swap import live_actions, live_files
from cdc_lake.land.tables import LOG, REPAIR_OFFSETS
from cdc_lake.land.tier_writing import TierTable, copy_file
from cdc_lake.project.fold import fold_connection
from cdc_lake.project.snapshot import SourceState, TableState, read_source
from cdc_lake.project.tiered import tier_table
from cdc_lake.retain.policy import Policy
from cdc_lake.retain.rewriting import Rewriting, batches, overtaken
from cdc_lake.retain.run import DONE, DUE, FAILED, NOTHING, Job, Tell
from cdc_lake.sqltext import literal

_AT = "coalesce(l.__source_ts, l.__ingested_at)"


@dataclass(frozen=True, slots=True)
class Moving:
    """A table whose class has a tier, and what goes there or went: `rows` of so many `files`, their `bytes`, and the
    times of the first and the last of these changes, `since` and `until`. `uri` is the place as the configuration names
    it, `horizon` what the class asks for."""

    source: str
    table: TableId
    policy: Policy
    outcome: str
    uri: str = ""
    horizon: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    rows: int = 0
    files: int = 0
    bytes: int = 0
    why: str = ""
    seconds: float = 0.0
    error: CdcLakeError | None = None


@dataclass(frozen=True, slots=True)
class _Aged:
    """A data file of which `old` of its `rows` are old."""

    path: str
    bytes: int
    rows: int
    old: int
    since: datetime
    until: datetime

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def move_older(job: Job, tell: Tell) -> Iterator[Moving]:
    """One report for each table whose class has a tier; one that fails does not stop the others. Moving needs
    `lock.sole_rewriter`."""
    for source in job.lake.sources():
        wanted = [t for t in job.lake.tables(source) if job.wanted is None or t in job.wanted]
        if not any(job.policy(t).tier is not None for t in wanted):
            continue
        with fold_connection(job.memory_mb) as con:
            state = read_source(con, job.lake, source, job.captured)
            work = _Work(job, con, state, tell)
            for table in state.tables:
                policy = job.policy(table.table)
                if policy.tier is not None and table.table in wanted:
                    yield work.table(table, policy)


@dataclass(frozen=True, slots=True)
class _Work:
    """One source."""

    job: Job
    con: duckdb.DuckDBPyConnection
    state: SourceState
    tell: Tell

    def table(self, table: TableState, policy: Policy) -> Moving:
        report, begun = Moving(self.state.source, table.table, policy, NOTHING), time.monotonic()
        try:
            report = self._examined(table, report)
        except CdcLakeError as error:
            report = replace(report, outcome=FAILED, error=error)
        except (DeltaError, OSError, pa.ArrowException, duckdb.Error) as error:
            report = replace(report, outcome=FAILED, error=_explained(table.table, error))
        return replace(report, seconds=time.monotonic() - begun)

    def _examined(self, table: TableState, report: Moving) -> Moving:
        policy = report.policy
        if policy.after is None or policy.tier is None:
            raise ValueError("only a class with a tier is looked at")
        if table.error is not None:
            raise table.error
        horizon = (self.job.now or datetime.now(UTC)) - policy.after
        report = replace(report, uri=policy.tier.name, horizon=horizon)
        move = _Move(self.con, table, tuple(_find_aged(self.con, table, horizon)), horizon)
        if not move.aged:
            return report
        report = replace(
            report,
            outcome=DUE,
            since=min(a.since for a in move.aged),
            until=max(a.until for a in move.aged),
            rows=sum(a.old for a in move.aged),
            files=len(move.aged),
            bytes=sum(a.bytes * a.old // max(a.rows, 1) for a in move.aged),
        )
        # A log has one tier: where it is, the older changes of today go too.
        has = tier_table(self.state.source, table.table, table.log)
        tier = has or TierTable(policy.tier, policy.tier.path(self.state.source, table.table), None)
        if tier.tier.name != policy.tier.name:
            report = replace(report, uri=tier.tier.name, why="what was moved before is there, and a log has one tier")
        if not self.job.apply:
            return report
        self.tell(f"{report.table}: {report.rows:,} changes go to {report.uri}")
        move.do(self.state, tier)
        return replace(report, outcome=DONE)


def _old(horizon: datetime) -> str:
    """SQL over a log row `l`, beside the last offset `e.last` of its partition: whether it goes."""
    return f"""(l.__offset BETWEEN 0 AND {REPAIR_OFFSETS - 1} AND l.__offset < e.last
        AND {_AT} < {literal(horizon.isoformat())}::TIMESTAMPTZ)"""


def _rows(paths: Sequence[str], table: TableState) -> str:
    """The rows of `paths`, each beside the offset of its partition's last change that is in the log itself."""
    listed, all_own = (", ".join(literal(p) for p in some) for some in (paths, [f.path for f in table.log.own]))
    return f"""read_parquet([{listed}], hive_partitioning=false, filename='__file', file_row_number=true) l
        LEFT JOIN (SELECT __topic AS top, __partition AS part, max(__offset) FILTER (__op <> 'x') AS last
            FROM read_parquet([{all_own}], hive_partitioning=false)
            WHERE __offset BETWEEN 0 AND {REPAIR_OFFSETS - 1} GROUP BY ALL) e
        ON e.top = l.__topic AND e.part = l.__partition"""


def _find_aged(con: duckdb.DuckDBPyConnection, table: TableState, horizon: datetime) -> list[_Aged]:
    """The files of the log itself that hold old rows."""
    own = {f.path: f for f in table.log.own}
    if not own:
        return []
    found = con.execute(
        f"""SELECT __file, count(*), count(*) FILTER (old), epoch_us(min(ts) FILTER (old)),
        epoch_us(max(ts) FILTER (old)) FROM (SELECT l.__file, {_AT} AS ts, coalesce({_old(horizon)}, false) AS old
            FROM {_rows(list(own), table)}) GROUP BY __file HAVING bool_or(old) ORDER BY __file"""
    ).fetchall()
    return [
        _Aged(path, own[path].bytes, rows, old, *(datetime.fromtimestamp(n / 1e6, UTC) for n in span))
        for path, rows, old, *span in found
    ]


@dataclass(frozen=True, slots=True)
class _Move:
    """What goes of one table: the rows older than `horizon` in the files `aged`."""

    con: duckdb.DuckDBPyConnection
    table: TableState
    aged: tuple[_Aged, ...]
    horizon: datetime

    def do(self, state: SourceState, tier: TierTable) -> None:
        """Copy what goes, and commit it to the tier and then to the log. Needs `lock.sole_rewriter`.

        1. Copy whole files; write the parts of others. What a killed move has committed to the tier is there already.
        2. Commit to the tier: no reader sees it.
        3. Commit to the log, which names the tier's version and has the rows no longer: every reader sees both at once.
        """
        table = self.table.table
        work = Rewriting(state.lake, state.source, table, self.table.log)
        handle = state.lake.open(work.path)
        if handle is None:
            raise overtaken(table, "moved")
        there, actions = live_files(tier.make(handle)), live_actions(handle)
        near, far = open_store(work.path, state.lake.options), open_store(tier.path, tier.tier.options)
        reach("tier:before-copy")
        for file in self.aged:
            work.drop(file.path, file.bytes)
            if file.old < file.rows:
                for cold in (True, False):
                    work.write(self._part(file, cold=cold), cold=cold, tier=tier)
            elif file.name in actions:
                if file.name not in there:
                    copy_file(near, far, file.name, file.bytes)
                work.cold.added.append(actions[file.name])
        _check(table, work, self.aged)
        reach("tier:after-copy")
        work.commit([], landed=lambda _: False, overtaken=overtaken(table, "moved"), tier=tier, ends=self._ends())

    def _part(self, file: _Aged, *, cold: bool) -> Iterator[pa.RecordBatch]:
        """The rows of a file that go, or those that stay, in their order."""
        query = f"""SELECT {", ".join(f"l.{n}" for n in LOG.names)} FROM {_rows([file.path], self.table)}
            WHERE {"" if cold else "NOT "}coalesce({_old(self.horizon)}, false) ORDER BY l.file_row_number"""
        return batches(self.con, query)

    def _ends(self) -> Mapping[tuple[str, int], int]:
        """The offsets behind what goes."""
        rows = self.con.execute(
            f"""SELECT l.__topic, l.__partition, max(l.__offset) + 1
            FROM {_rows([a.path for a in self.aged], self.table)} WHERE {_old(self.horizon)} GROUP BY ALL"""
        ).fetchall()
        return {(topic, partition): end for topic, partition, end in rows}


def _check(table: TableId, work: Rewriting, aged: Sequence[_Aged]) -> None:
    """No row may be lost: each was written, or its file copied."""
    if work.rows != sum(a.rows for a in aged):
        raise LakeError(
            f"{work.rows:,} rows of {table} were written where there are {sum(a.rows for a in aged):,}.",
            why="A data file changed while it was read. Nothing was moved.",
            next="cdc-lake doctor; then cdc-lake retention apply once more",
            code="retention_failed",
        )


def _explained(table: TableId, error: Exception) -> LakeError:
    full = is_disk_full(error)
    return LakeError(
        f"The older changes of {table} could not be moved to their tier; they are where they were.",
        why=first_line(error),
        next=f"{'free space there' if full else 'see that the place can be written'}, then: cdc-lake retention apply",
        code="disk_full" if full else "tier_failed",
    )
