"""Dead letters that were decided and are older than their table's class keeps: one commit for a source.

A replayed letter goes whole: its change is in the log. Of a dropped one the contents go and the coordinates stay, for
the cut counts it in the place of a missing change (see `project.dropped`), until retention has taken the changes around
it away. One that waits for a decision stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, LakeError, first_line, is_disk_full
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import EXPIRED_LETTER, REPLAYED, WAITING, DeadLetters, Letter
from cdc_lake.land.erasures import ERASED_LETTER
from cdc_lake.land.layout import dead_letters_path, log_path
from cdc_lake.land.letter_files import rewritten
from cdc_lake.land.starts import kept_from
from cdc_lake.land.swap import live_files, swap_files
from cdc_lake.project.fold import fold_connection
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import TableState, read_source
from cdc_lake.retain.run import DONE, DUE, FAILED, FOREVER, HELD, NOTHING, Job, Report, Tell


@dataclass(slots=True)
class _Chosen:
    """The ids of letters that go whole, and of those that lose their contents."""

    gone: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)


def retain_letters(job: Job, tell: Tell) -> Iterator[Report]:
    """One report for each table that has decided letters. Removal needs `lock.sole_rewriter`.

    A report's `rows` and `bytes` are those of letters. Letters of a topic without a table go by the table that the
    topic is named after.
    """
    for source in job.lake.sources():
        letters = [x for x in DeadLetters(job.lake.root, source, job.lake.options).all() if x.state != WAITING]
        if not letters:
            continue
        reports, chosen = list[Report](), _Chosen()
        with fold_connection(job.memory_mb) as con:
            state = read_source(con, job.lake, source, job.captured)
            for table, mine in sorted(_by_table(letters, state.tables).items()):
                if job.wanted is None or table in job.wanted:
                    report = Report(source, table, job.policy(table), NOTHING)
                    known = next((t for t in state.tables if t.table == table and t.error is None), None)
                    held = report.policy.hold or (known is not None and bool(job.held(con, state, known)))
                    reports.append(_examined(job, report, mine, chosen, held=held))
        yield from _applied(job, source, reports, chosen, tell) if job.apply else reports


def _by_table(letters: Sequence[Letter], tables: Sequence[TableState]) -> dict[TableId, list[Letter]]:
    homes = {topic: t.table for t in tables for topic, _ in t.log.positions}
    found: dict[TableId, list[Letter]] = {}
    for letter in letters:
        topic = letter.tp.topic
        named = TableId(*topic.rsplit(".", 2)[1:]) if topic.count(".") > 1 else TableId("", topic)
        found.setdefault(homes.get(topic, named), []).append(letter)
    return found


def _examined(job: Job, report: Report, letters: Sequence[Letter], chosen: _Chosen, *, held: bool) -> Report:
    """What is said of a table's letters; those that are due are added to `chosen`."""
    if held:
        return replace(report, outcome=HELD, why="a legal hold keeps them")
    if report.policy.dlq is None:
        return replace(report, outcome=FOREVER)
    horizon = (job.now or datetime.now(UTC)) - report.policy.dlq
    report = replace(report, horizon=horizon)
    log = job.lake.open(log_path(job.lake.root, report.source, report.table))
    old = [x for x in letters if x.ingested_at < horizon]
    gone = [x for x in old if _goes(x, log)]
    emptied = [x for x in old if not _goes(x, log) and x.error_class not in (ERASED_LETTER, EXPIRED_LETTER)]
    due = [*gone, *emptied]
    if not due:
        return report
    chosen.gone |= {x.id for x in gone}
    chosen.emptied |= {x.id for x in emptied}
    size = sum(len(x.key or b"") + len(x.value or b"") + len(x.headers or "") for x in due)
    return replace(report, outcome=DUE, until=max(x.ingested_at for x in due), rows=len(due), bytes=size)


def _goes(letter: Letter, log: DeltaTable | None) -> bool:
    """Whether nothing needs the coordinates of a letter any more."""
    return letter.state == REPLAYED or (log is not None and letter.offset < kept_from(log, letter.tp))


def _applied(job: Job, source: str, reports: Sequence[Report], chosen: _Chosen, tell: Tell) -> Iterator[Report]:
    count, begun, error = len(chosen.gone) + len(chosen.emptied), time.monotonic(), None
    if count:
        tell(f"{source}: {count:,} dead letters go, or lose their contents")
        try:
            _rewrite(job.lake, source, chosen)
        except CdcLakeError as failure:
            error = failure
    for report in reports:
        due = report.outcome == DUE
        outcome = report.outcome if not due else DONE if error is None else FAILED
        yield replace(report, outcome=outcome, error=error if due else None, seconds=time.monotonic() - begun)


def _rewrite(lake: Lake, source: str, chosen: _Chosen) -> None:
    """Take them out, and the contents of others, in one commit. Raises LakeError."""
    path = dead_letters_path(lake.root, source)
    table = lake.open(path)
    if table is None:
        raise _failed(path, "It is not there any more.")
    said = {"error_class": EXPIRED_LETTER, "reason": "its contents were kept for as long as its class says"}
    try:
        added, replaced = rewritten(path, lake.options, table, emptied=chosen.emptied, said=said, gone=chosen.gone)
        reach("retention:before-letters-commit")
        names = {a.path for a in added}
        swap_files(
            lambda: lake.open(path),
            added,
            replaced,
            [],
            landed=lambda now: names <= live_files(now).keys() and not replaced.keys() & live_files(now).keys(),
            overtaken=_failed(path, "It was rewritten meanwhile."),
        )
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise _failed(path, first_line(error), full=is_disk_full(error)) from error
    reach("retention:after-letters-commit")


def _failed(path: str, why: str, *, full: bool = False) -> LakeError:
    return LakeError(
        f"The older letters of {path} could not be removed.",
        why=why,
        next="free space on the disk, then: cdc-lake retention apply" if full else "cdc-lake retention apply once more",
        code="disk_full" if full else "retention_failed",
    )
