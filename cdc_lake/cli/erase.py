"""`erase`: take a person's data out of the lake."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.cli.alone import Alone, sole_or_alone

if TYPE_CHECKING:
    from cdc_lake.erase.run import Job, Report

_EXAMPLES = (
    "Examples:  cdc-lake erase customers 42 --dry-run   ·   cdc-lake erase public.customers id=42   ·   "
    "cdc-lake erase customers 42 --now   ·   cdc-lake erase customers 42 --json"
)
_COLUMNS = ("table", "keys", "rows", "events", "images", "versions", "current", "files", "bytes")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(erase)


def erase(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, or a table of public.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="A value; column=value,column=value; or a JSON object.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go. Writes nothing.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Delete the replaced files too: a query that reads them fails.")
    ] = False,
    alone: Alone = False,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=64, help="Memory for it; the rest spills to disk.")
    ] = 1024,
) -> None:
    """Erase a row for ever: from the log, history, current, dead letters, and old files; also under its earlier keys.

    Rows of other tables go with it where `belongs_to` says that a column refers to it. Delete it in the source first:
    what the source still has comes back with its next change. Killed at any moment, the same command goes on.
    """
    from cdc_lake.erase.run import erase as run

    job = _job(table, key, apply=not dry_run, delete=now, memory_mb=memory_mb)
    if dry_run:
        _show(run(job, output.say), job)
        return
    way = "the same with --alone  when no maintenance runs on this lake"
    with sole_or_alone(job.lake.root, alone=alone, done="erased", next=way):
        report = run(job, output.say)
    _show(report, job)


def _job(table: str, key: str, *, apply: bool, delete: bool, memory_mb: int) -> Job:
    from cdc_lake.erase.holds import Holds
    from cdc_lake.erase.run import Job
    from cdc_lake.query.session import open_lake

    config = output.settings()
    return Job(
        open_lake(config),
        config.captures,
        config.owners,
        table,
        key,
        apply=apply,
        delete=delete,
        memory_mb=memory_mb,
        holds=Holds(lambda t: config.retained(t)[2], config.held_keys),
    )


def _show(report: Report, job: Job) -> None:
    if output.as_json():
        output.emit(_document(report, job))
        return
    if report.parts:
        output.result({}, _COLUMNS, _rows(report))
    for line in _words(report, job):
        output.say(line)


def _words(report: Report, job: Job) -> list[str]:
    letters = f"{len(report.letters)} dead letters" if len(report.letters) != 1 else "1 dead letter"
    lines = [f"{letters} of the person{'' if job.apply else ' would lose their contents'}."] if report.letters else []
    if not report.parts and not report.letters:
        lines.append("There is nothing of it any more: it was erased before.")
    if sum(p.living for p in report.parts):
        lines.append(
            "The source still had it when it was last seen: delete it there, then erase it once more. "
            "Its next change comes back."
        )
    if job.apply:
        lines.append(_until(report, job))
        lines.append(f"Proof:  cdc-lake query {_quoted(_proof(report))}")
    else:
        lines.append(f"Nothing was written. To erase it: cdc-lake erase {report.table} {_quoted(job.key)}")
    return [*lines, "What this does not reach:", *(f"  {b}" for b in _beyond(report))]


def _until(report: Report, job: Job) -> str:
    if job.delete:
        return f"Replaced files that were deleted: {report.files:,}"
    if not report.files:
        return "No replaced file is left."
    from cdc_lake.maintain.plan import Rules

    when = (datetime.now(UTC) + Rules().keep).date().isoformat()
    return (
        f"Replaced files that open readers may need still hold it: {report.files:,}; cdc-lake maintain deletes them "
        f"from {when} on. To delete them now: the same with --now"
    )


def _proof(report: Report) -> str:
    """A query that counts what is left of the row; all three are 0."""
    names = ("current", "history", "changes")
    counts = [f"(SELECT count(*) FROM {n}.{report.table} WHERE {report.where}) AS {n}" for n in names]
    return f"SELECT {', '.join(counts)}"


def _beyond(report: Report) -> list[str]:
    return [
        "Kafka: its topics keep the records until their retention",
        "the source database itself, its WAL and its replicas",
        "backups and copies of the lake, results of queries, exports",
        "rows of streaming models: cdc-lake stream replay MODEL makes them anew without it",
        *report.beyond,
    ]


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _rows(report: Report) -> list[dict[str, Any]]:
    from cdc_lake.maintain.plan import size

    return [{**_part(p), "bytes": size(p.bytes)} for p in report.parts]


def _part(part: Any) -> dict[str, Any]:
    return {
        "table": str(part.table.table),
        "keys": len(part.keys),
        "rows": part.rows,
        "events": part.events,
        "images": part.images,
        "versions": part.versions,
        "current": part.current,
        "files": len(part.touched),
        "bytes": part.bytes,
    }


def _document(report: Report, job: Job) -> dict[str, Any]:
    return {
        "applied": job.apply,
        "source": report.source,
        "table": str(report.table),
        "tables": [_part(p) for p in report.parts],
        "dead_letters": [x.id for x in report.letters],
        "erased_before": [str(t) for t in report.remains],
        "in_source": bool(sum(p.living for p in report.parts)),
        "deleted_files": report.files if job.delete else 0,
        "replaced_files": 0 if job.delete else report.files,
        "proof": _proof(report),
        "not_reached": _beyond(report),
    }
