"""`maintain`: keep the lake in shape."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.maintain.run import Job, Report, Taken

_EXAMPLES = (
    "Examples:  cdc-lake maintain --dry-run   ·   cdc-lake maintain   ·   "
    "cdc-lake maintain public.orders --keep 2d   ·   cdc-lake maintain --json"
)
_COLUMNS = ("table", "part", "files", "bytes", "step", "outcome", "why")
# Files that were removed are forgotten after 14 days; one that is kept for nearly as long could be missed.
_LONGEST = timedelta(days=10)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(maintain)


def maintain(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]…", help="schema.table, or a table of public; all without.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due, and why.")] = False,
    keep: Annotated[
        str, typer.Option("--keep", metavar="AGE", help="How long replaced files stay for open readers: 12h, 7d.")
    ] = "7d",
    no_fold: Annotated[bool, typer.Option("--no-fold", help="Leave folding to `cdc-lake fold`.")] = False,
    target_mb: Annotated[int, typer.Option("--target-mb", min=1, help="The size that merged files grow to.")] = 128,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="No other maintenance runs on this lake: merge files where no lock says so."),
    ] = False,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=64, help="Memory for folds; the rest spills to disk.")
    ] = 1024,
) -> None:
    """Merge small files, write checkpoints, drop old commits, delete files that nobody reads any more, and fold.

    Only what is due is done. It runs beside a sink, folds and open readers, and may be killed at any moment.
    """
    from cdc_lake.maintain.plan import Rules
    from cdc_lake.maintain.run import maintain as keep_in_shape

    config = output.settings()
    rules = Rules(target_mb << 20, _age(keep), fold=not no_fold)
    job = _job(config, tables, rules, memory_mb, dry_run=dry_run)
    if dry_run:
        reports = list(keep_in_shape(_locked(job, locked=alone or "://" not in job.lake.root), output.say))
    else:
        reports = _done(config, job, alone=alone)
    _show(reports, dry_run=dry_run)
    if any(r.failed for r in reports):
        raise typer.Exit(EXIT_FAILED)


def _done(config: Config, job: Job, *, alone: bool) -> list[Report]:
    from dataclasses import replace
    from functools import partial

    from cdc_lake.cli.witness import witnessed
    from cdc_lake.land.lock import sole_rewriter
    from cdc_lake.maintain.run import maintain as keep_in_shape

    with sole_rewriter(job.lake.root) as held, witnessed(config, "maintain") as witness:
        told = replace(_locked(job, locked=held or alone), folded=partial(witness.folded, job.lake))
        return list(keep_in_shape(told, output.say))


def _job(config: Config, tables: list[str] | None, rules: Any, memory_mb: int, *, dry_run: bool) -> Job:
    from cdc_lake.cli.fold import find_in_lake
    from cdc_lake.maintain.run import Job
    from cdc_lake.query.session import open_lake

    lake = open_lake(config)
    return Job(lake, config.captures, rules, find_in_lake(lake, tables), dry_run=dry_run, memory_mb=memory_mb)


def _locked(job: Job, *, locked: bool) -> Job:
    from dataclasses import replace

    return replace(job, locked=locked)


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})([dh])", text.strip().lower())
    age = timedelta(**{"days" if found[2] == "d" else "hours": int(found[1])}) if found is not None else None
    if age is None or age > _LONGEST:
        raise UsageError(
            f"--keep {text} is no age from 0h to 10d.",
            why="Whole hours or days. Replaced files are written down for 14 days: kept longer, they would be missed.",
            next="cdc-lake maintain --keep 7d",
        )
    return age


def _show(reports: list[Report], *, dry_run: bool) -> None:
    if output.as_json():
        output.emit({"dry_run": dry_run, "tables": [_document(r) for r in reports]})
        return
    rows = [row for r in reports for row in _rows(r)]
    if rows:
        output.result({}, _COLUMNS, rows)
    for report in reports:
        for error in (report.error, *(t.error for t in report.steps)):
            if error is not None:
                output.fail(error)
    output.say(_summary(reports, dry_run=dry_run))


def _summary(reports: list[Report], *, dry_run: bool) -> str:
    from cdc_lake.maintain.plan import VACUUM, size
    from cdc_lake.maintain.run import DONE, PLANNED

    steps = [t for r in reports for t in r.steps if t.outcome == (PLANNED if dry_run else DONE)]
    files = f"{sum(r.files for r in reports):,} files, {size(sum(r.bytes for r in reports))}"
    if dry_run:
        return f"{files}; {len(steps)} steps are due." if steps else f"{files}; nothing is due."
    freed = sum(t.step.bytes for t in steps if t.step.action == VACUUM)
    after = sum(r.files_after for r in reports)
    if not steps:
        return f"{files}; nothing was due."
    return f"{files}; {len(steps)} steps done: {after:,} files now, {size(freed)} given back."


def _rows(report: Report) -> list[dict[str, Any]]:
    from cdc_lake.maintain.plan import size

    part = report.part
    first = {
        "table": str(part.table or part.source),
        "part": part.kind,
        "files": report.files,
        "bytes": size(report.bytes),
    }
    steps = [{"step": t.step.action, "outcome": t.outcome, "why": t.step.why} for t in report.steps]
    return [{**first, **step} for step in steps] or [first]


def _document(report: Report) -> dict[str, Any]:
    document: dict[str, Any] = {
        "source": report.part.source,
        "table": str(report.part.table) if report.part.table else None,
        "part": report.part.kind,
        "files": report.files,
        "bytes": report.bytes,
        "files_after": report.files_after,
        "bytes_after": report.bytes_after,
        "steps": [_step(t) for t in report.steps],
    }
    return document | (report.error.as_dict() if report.error is not None else {})


def _step(taken: Taken) -> dict[str, Any]:
    step = taken.step
    document: dict[str, Any] = {
        "step": step.action,
        "why": step.why,
        "files": step.files,
        "bytes": step.bytes,
        "outcome": taken.outcome,
        "seconds": round(taken.seconds, 3),
    }
    return document | (taken.error.as_dict() if taken.error is not None else {})
