"""`retention`: how long a lake keeps what, by the class of each table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.cli.alone import Alone, sole_or_alone
from cdc_lake.errors import EXIT_DIFFERENCES, EXIT_FAILED

if TYPE_CHECKING:
    from cdc_lake.retain.run import Job, Report

_EXAMPLES = (
    "Examples:  cdc-lake retention plan   ·   cdc-lake retention apply   ·   "
    "cdc-lake retention apply public.pings   ·   cdc-lake retention plan --json"
)
_COLUMNS = ("table", "class", "keeps", "outcome", "until", "rows", "files", "bytes", "starts", "why")

_Tables = Annotated[
    list[str] | None, typer.Argument(metavar="[TABLE]…", help="schema.table, or a table of public; all without.")
]
_Memory = Annotated[int, typer.Option("--memory-mb", min=64, help="Memory for the work; the rest spills to disk.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    retention = typer.Typer(no_args_is_help=True, help="Let go what is older than its class keeps.", epilog=_EXAMPLES)
    for command in (plan, apply):
        retention.command(epilog=_EXAMPLES)(command)
    app.add_typer(retention, name="retention")


def plan(tables: _Tables = None, *, memory_mb: _Memory = 1024) -> None:
    """Say what `apply` would take away, table by table. Writes nothing.

    Ends with 3 when something stands in the way of a table's class.
    """
    from cdc_lake.retain.run import retain

    _show(list(retain(_job(tables, memory_mb, apply=False), output.say)), apply=False)


def apply(
    tables: _Tables = None,
    *,
    memory_mb: _Memory = 1024,
    alone: Alone = False,
) -> None:
    """Take changes away that are older than their table's class keeps, and leave each living row as a starting point.

    One commit a table: killed at any moment, the next run goes on. It runs beside a sink, folds and open readers.
    Their files are deleted by `maintain`. Ends with 3 when something stands in the way of a table's class.
    """
    from cdc_lake.retain.run import retain

    job = _job(tables, memory_mb, apply=True)
    way = "cdc-lake retention apply --alone  when no maintenance runs on this lake"
    with sole_or_alone(job.lake.root, alone=alone, done="removed", next=way):
        reports = list(retain(job, output.say))
    _show(reports, apply=True)


def _job(tables: list[str] | None, memory_mb: int, *, apply: bool) -> Job:
    from cdc_lake.cli.fold import find_in_lake
    from cdc_lake.query.held import held_keys
    from cdc_lake.query.session import open_lake
    from cdc_lake.retain.policy import Policy
    from cdc_lake.retain.run import Job

    config = output.settings()
    lake = open_lake(config)

    def policy(table: Any) -> Policy:
        name, written, hold = config.retained(table)
        return Policy.of(name, written, hold=hold)

    def held(con: Any, source: Any, table: Any) -> dict[str, str]:
        return held_keys(con, source, table, config.held_keys(table.table))

    wanted = find_in_lake(lake, tables)
    return Job(lake, config.captures, policy, wanted, apply=apply, memory_mb=memory_mb, held=held)


def _show(reports: list[Report], *, apply: bool) -> None:
    from cdc_lake.retain.run import DONE, DUE, FAILED, REFUSED

    if output.as_json():
        output.emit({"applied": apply, "tables": [_document(r) for r in reports]})
    else:
        if reports:
            output.result({}, _COLUMNS, [_row(r) for r in reports])
        for report in reports:
            if report.error is not None:
                output.fail(report.error)
        output.say(_summary([r for r in reports if r.outcome == (DONE if apply else DUE)], apply=apply))
    if any(r.outcome == FAILED for r in reports):
        raise typer.Exit(EXIT_FAILED)
    if any(r.outcome == REFUSED for r in reports):
        raise typer.Exit(EXIT_DIFFERENCES)


def _summary(reports: list[Report], *, apply: bool) -> str:
    from cdc_lake.maintain.plan import size

    if not reports:
        return "Nothing was older than its class keeps." if apply else "Nothing is older than its class keeps."
    rows, freed = sum(r.rows for r in reports), size(sum(r.bytes for r in reports))
    if not apply:
        return f"{rows:,} changes, {freed}, are older than their class keeps; to let them go: cdc-lake retention apply"
    return f"{rows:,} changes, {freed}, are gone. Their files go with: cdc-lake maintain"


def _row(report: Report) -> dict[str, Any]:
    from cdc_lake.maintain.plan import size
    from cdc_lake.retain.run import DONE, DUE

    numbers = report.outcome in (DONE, DUE)
    return {
        "table": str(report.table),
        "class": report.policy.name,
        "keeps": _days(report),
        "outcome": report.outcome,
        "until": report.until.isoformat(timespec="seconds") if report.until else None,
        "rows": report.rows if numbers else None,
        "files": report.files if numbers else None,
        "bytes": size(report.bytes) if numbers else None,
        "starts": report.starts if numbers else None,
        "why": report.why or None,
    }


def _days(report: Report) -> str:
    log = report.policy.log
    if log is None:
        return "forever"
    return f"{log.days}d" if log.seconds == 0 else f"{int(log.total_seconds())}s"


def _document(report: Report) -> dict[str, Any]:
    from cdc_lake.retain.run import HELD

    document: dict[str, Any] = {
        "source": report.source,
        "table": str(report.table),
        "class": report.policy.name,
        "keeps": _days(report),
        "hold": report.outcome == HELD,
        "outcome": report.outcome,
        "horizon": report.horizon.isoformat() if report.horizon else None,
        "until": report.until.isoformat() if report.until else None,
        "position": report.position,
        "rows": report.rows,
        "files": report.files,
        "bytes": report.bytes,
        "starts": report.starts,
        "why": report.why,
        "seconds": round(report.seconds, 3),
    }
    return document | (report.error.as_dict() if report.error is not None else {})
