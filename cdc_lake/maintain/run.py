"""Keep a lake in shape: go through its tables, see what is due, and do it beside a running sink and open readers.

1. Fold where it pays, so that the files that are merged then hold nothing that the next query resolves.
2. For each Delta table: merge small files, write a checkpoint, take old commits away, delete what readers gave up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.maintain.look import look
from cdc_lake.maintain.plan import CHECKPOINT, COMPACT, CURRENT, FOLD, TIER, Rules, Step, fold_due, plan
from cdc_lake.maintain.tiers import STEPS, Kept
from cdc_lake.maintain.work import do
from cdc_lake.project.fold import Folded, fold_connection, fold_source
from cdc_lake.project.history_fold import unfolded_history
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import read_source

Tell = Callable[[str], None]

LOG = "log"
PLANNED, DONE, FAILED, SKIPPED = "planned", "done", "failed", "skipped"


@dataclass(frozen=True, slots=True)
class Part:
    """One Delta table of the lake. `table` is None for what belongs to a source as a whole."""

    source: str
    kind: str
    path: str
    table: TableId | None = None

    def __str__(self) -> str:
        return f"{self.table or self.source}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Taken:
    """A step and what became of it: `planned`, `done`, `skipped` or `failed`."""

    step: Step
    outcome: str
    seconds: float = 0.0
    error: CdcLakeError | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A Delta table: its live files and bytes before and after, and the steps. With an `error` it cannot be read."""

    part: Part
    files: int = 0
    bytes: int = 0
    files_after: int = 0
    bytes_after: int = 0
    steps: tuple[Taken, ...] = ()
    error: CdcLakeError | None = None

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return self.error is not None or any(t.outcome == FAILED for t in self.steps)


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for. `wanted` are source tables, None all; `locked` says that logs may be rewritten; `folded` hears
    of each table of a source that was folded."""

    lake: Lake
    captured: Callable[[TableId], bool]
    rules: Rules
    wanted: Collection[TableId] | None = None
    dry_run: bool = False
    locked: bool = True
    memory_mb: int = 1024
    folded: Callable[[str, Folded], None] = lambda _source, _folded: None

    def wants(self, table: TableId) -> bool:
        """Whether the table was asked for."""
        return self.wanted is None or table in self.wanted


def maintain(job: Job, tell: Tell) -> Iterator[Report]:
    """Go through the lake; a table that fails does not stop the others. `tell` hears what takes a while."""
    for source in job.lake.sources():
        folds = _folds(job, source, tell) if job.rules.fold else {}
        for part in _parts(job, source):
            if part.kind == TIER and part.table is not None:
                yield from _kept_tier(job, part, part.table, tell)
                continue
            fold = folds.get(part.table) if part.kind == CURRENT and part.table else None
            report = _kept(job, part, fold, tell)
            if report is not None:
                yield report


def parts_of(lake: Lake, source: str, table: TableId) -> list[Part]:
    """The Delta tables of a source's table; some may not be there yet."""
    return [Part(source, kind, path, table) for kind, path in layout.table_paths(lake.root, source, table).items()]


def _parts(job: Job, source: str) -> list[Part]:
    root = job.lake.root
    wanted = [t for t in job.lake.tables(source) if job.wants(t)]
    found = [p for t in wanted for p in (*parts_of(job.lake, source, t), Part(source, TIER, "", t))]
    if job.wanted is None:
        found += [Part(source, kind, path) for kind, path in layout.source_paths(root, source).items()]
        for model in layout.list_models(root, source, job.lake.options):
            found.append(Part(source, f"stream {model}", layout.stream_path(root, source, model)))
            found.append(Part(source, f"stream_late {model}", layout.stream_late_path(root, source, model)))
    return found


def _folds(job: Job, source: str, tell: Tell) -> dict[TableId, Taken]:
    """The folds that pay, done unless this is a dry run."""
    due: dict[TableId, Step] = {}
    with fold_connection(job.memory_mb) as con:
        found = read_source(con, job.lake, source, job.captured)
        for state in found.tables:
            if state.error is not None or not job.wants(state.table) or state.tail.held:
                continue
            seen = look(layout.current_path(job.lake.root, source, state.table), job.lake.options, job.rules.keep)
            unfolded = state.tail.facts.placed + state.tail.facts.free
            why = fold_due(unfolded, seen.rows if seen is not None else 0)
            why = why or fold_due(*unfolded_history(con, found, state))
            if why:
                size = (len(seen.sizes), seen.bytes) if seen is not None else (0, 0)
                due[state.table] = Step(FOLD, why, *size)
    if job.dry_run or not due:
        return {table: Taken(step, PLANNED) for table, step in due.items()}
    tell(f"{source}: folding {len(due)} {'table' if len(due) == 1 else 'tables'}")
    done = {}
    for one in fold_source(job.lake, source, job.captured, due, memory_mb=job.memory_mb):
        outcome = {"folded": DONE, "failed": FAILED}.get(one.outcome, SKIPPED)
        done[one.table] = Taken(due[one.table], outcome, one.seconds, one.error)
        job.folded(source, one)
    return done


def _kept(job: Job, part: Part, fold: Taken | None, tell: Tell) -> Report | None:
    """What became of a Delta table; None when there is none."""
    taken = [fold] if fold is not None else []
    try:
        seen = look(part.path, job.lake.options, job.rules.keep)
        if seen is None:
            return Report(part, steps=tuple(taken)) if taken else None
        report = Report(part, len(seen.sizes), seen.bytes, len(seen.sizes), seen.bytes)
        taken += _steps(job, part, plan(part.kind, part.path, seen, job.rules), tell)
        if any(t.outcome == DONE for t in taken):
            after = look(part.path, job.lake.options, job.rules.keep)
            if after is not None:
                report = replace(report, files_after=len(after.sizes), bytes_after=after.bytes)
    except CdcLakeError as error:
        return Report(part, steps=tuple(taken), error=error)
    return replace(report, steps=tuple(taken))


def _kept_tier(job: Job, part: Part, table: TableId, tell: Tell) -> Iterator[Report]:
    """What became of the tier of a log; nothing when it has none."""
    try:
        kept = Kept.of(job.lake, part.source, table)
        if kept is None:
            return
        part = replace(part, path=kept.path)
        if job.locked and not job.dry_run:
            kept.settle()
        seen = look(part.path, kept.options, job.rules.keep)
        if seen is None:
            return
        due = [s for s in plan(part.kind, part.path, seen, job.rules) if s.action in STEPS]
        due = [s for s in due if job.locked or s.action == CHECKPOINT]
        steps = tuple(_steps(job, part, due, tell, lambda s: kept.do(s, job.rules.keep)))
        after = look(part.path, kept.options, job.rules.keep) or seen
        yield Report(part, len(seen.sizes), seen.bytes, len(after.sizes), after.bytes, steps)
    except CdcLakeError as error:
        yield Report(part, error=error)


def _steps(
    job: Job, part: Part, steps: Sequence[Step], tell: Tell, act: Callable[[Step], None] | None = None
) -> Iterator[Taken]:
    for step in steps:
        if step.action == COMPACT and not job.locked:
            why = f"{step.why}; not on a store without locks, unless --alone"
            yield Taken(replace(step, why=why), SKIPPED)
        elif job.dry_run:
            yield Taken(step, PLANNED)
        else:
            tell(f"{part}: {step.action}, for {step.why}")
            begun = time.monotonic()
            try:
                if act is not None:
                    act(step)
                else:
                    do(part.path, job.lake.options, step, job.rules.keep)
                yield Taken(step, DONE, time.monotonic() - begun)
            except CdcLakeError as error:
                yield Taken(step, FAILED, time.monotonic() - begun, error)
