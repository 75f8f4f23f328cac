"""`retention`: how long a lake keeps what, by the class of each table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.cli.alone import Alone, sole_or_alone
from cdc_lake.errors import EXIT_DIFFERENCES, EXIT_FAILED

if TYPE_CHECKING:
    from datetime import timedelta

    from cdc_lake.config import Config
    from cdc_lake.events import TableId
    from cdc_lake.retain.moving import Moving
    from cdc_lake.retain.place import Bound
    from cdc_lake.retain.run import Job, Report

_EXAMPLES = (
    "Examples:  cdc-lake retention plan   ·   cdc-lake retention apply   ·   "
    "cdc-lake retention apply public.pings   ·   cdc-lake retention plan --json"
)
_COLUMNS = ("table", "class", "keeps", "outcome", "since", "until", "rows", "files", "bytes", "starts", "why")

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
    """Say what `apply` would take away, and what it would move to a tier, table by table. Writes nothing.

    Ends with 3 when something stands in the way of a table's class.
    """
    from cdc_lake.retain.letters import retain_letters
    from cdc_lake.retain.moving import move_older
    from cdc_lake.retain.run import retain

    job = _job(tables, memory_mb, apply=False)
    reports, moves = list(retain(job, output.say)), list(move_older(job, output.say))
    _show(reports, moves, list(retain_letters(job, output.say)), apply=False)


def apply(
    tables: _Tables = None,
    *,
    memory_mb: _Memory = 1024,
    alone: Alone = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, as `plan` does.")] = False,
) -> None:
    """Take changes away that are older than their table's class keeps, and leave each living row as a starting point;
    then move what is older than it keeps near to its tier.

    One commit a table: killed at any moment, the next run goes on. It runs beside a sink, folds and open readers.
    Their files are deleted by `maintain`. Ends with 3 when something stands in the way of a table's class.
    """
    from cdc_lake.retain.letters import retain_letters
    from cdc_lake.retain.moving import move_older
    from cdc_lake.retain.run import retain

    if dry_run:
        plan(tables, memory_mb=memory_mb)
        return
    job = _job(tables, memory_mb, apply=True)
    way = "cdc-lake retention apply --alone  when no maintenance runs on this lake"
    with sole_or_alone(job.lake.root, alone=alone, done="removed", next=way):
        # What goes need not be moved before.
        reports = list(retain(job, output.say))
        moves = list(move_older(job, output.say))
        # Letters go by how far the logs are kept, so they come last.
        letters = list(retain_letters(job, output.say))
    _show(reports, moves, letters, apply=True)


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
        return Policy.of(name, written, hold=hold, tiers=lake.tiers)

    def held(con: Any, source: Any, table: Any) -> dict[str, str]:
        return held_keys(con, source, table, config.held_keys(table.table))

    wanted = find_in_lake(lake, tables)
    unread = _unread(config)
    return Job(lake, config.captures, policy, wanted, apply=apply, memory_mb=memory_mb, held=held, unread=unread)


def _unread(config: Config) -> dict[tuple[str, TableId], list[Bound]]:
    """How far rules and models have read each table."""
    from cdc_lake.react.unread import find_unread
    from cdc_lake.retain.place import Bound

    found: dict[tuple[str, TableId], list[Bound]] = {}
    for one in find_unread(config):
        why = f"the {one.reader} has not read on; first: {one.first}"
        found.setdefault((one.source, one.table), []).append(Bound(one.position, why))
    return found


def _show(reports: list[Report], moves: list[Moving], letters: list[Report], *, apply: bool) -> None:
    from cdc_lake.retain.run import DONE, DUE, REFUSED

    errors = [r.error for r in (*reports, *letters) if r.error is not None]
    errors += [m.error for m in moves if m.error is not None]
    if output.as_json():
        found = {"tables": [_document(r) for r in reports], "dead_letters": [_letters(r) for r in letters]}
        output.emit({"applied": apply, **found, "tiers": [_moving(m) for m in moves]})
    else:
        rows = [*map(_row, reports), *map(_moving_row, moves), *map(_letter_row, letters)]
        if rows:
            output.result({}, _COLUMNS, rows)
        for error in errors:
            output.fail(error)
        wanted = DONE if apply else DUE
        gone, kept = ([r for r in found if r.outcome == wanted] for found in (reports, letters))
        moved = [m for m in moves if m.outcome == wanted]
        if gone or kept or not moved:
            output.say(_summary(gone, kept, apply=apply))
        if moved:
            output.say(_moved(moved, apply=apply))
    if errors:
        raise typer.Exit(EXIT_FAILED)
    if any(r.outcome == REFUSED for r in reports):
        raise typer.Exit(EXIT_DIFFERENCES)


def _summary(reports: list[Report], letters: list[Report], *, apply: bool) -> str:
    from cdc_lake.maintain.plan import size

    if not reports and not letters:
        return "Nothing was older than its class keeps." if apply else "Nothing is older than its class keeps."
    counts = [(sum(r.rows for r in found), word) for found, word in ((reports, "changes"), (letters, "dead letters"))]
    what = " and ".join(f"{count:,} {word}" for count, word in counts if count)
    what += f", {size(sum(r.bytes for r in (*reports, *letters)))},"
    if not apply:
        return f"{what} are older than their class keeps; to let them go: cdc-lake retention apply"
    return f"{what} are gone. Their files go with: cdc-lake maintain"


def _moved(moves: list[Moving], *, apply: bool) -> str:
    from cdc_lake.maintain.plan import size

    what = f"{sum(m.rows for m in moves):,} changes, {size(sum(m.bytes for m in moves))},"
    if not apply:
        return f"{what} are older than their class keeps near; to move them: cdc-lake retention apply"
    return f"{what} are in their tier. Their files here go with: cdc-lake maintain"


def _moving_row(move: Moving) -> dict[str, Any]:
    from cdc_lake.maintain.plan import size
    from cdc_lake.retain.run import DONE, DUE

    numbers = move.outcome in (DONE, DUE)
    return {
        "table": f"{move.table}: tier",
        "class": move.policy.name,
        "keeps": _days(move.policy.after),
        "outcome": move.outcome,
        "since": move.since.isoformat(timespec="seconds") if move.since else None,
        "until": move.until.isoformat(timespec="seconds") if move.until else None,
        "rows": move.rows if numbers else None,
        "files": move.files if numbers else None,
        "bytes": size(move.bytes) if numbers else None,
        "starts": None,
        "why": "; ".join(t for t in (f"to {move.uri}" if move.uri else "", move.why) if t) or None,
    }


def _moving(move: Moving) -> dict[str, Any]:
    document: dict[str, Any] = {
        "source": move.source,
        "table": str(move.table),
        "class": move.policy.name,
        "after": _days(move.policy.after),
        "uri": move.uri,
        "outcome": move.outcome,
        "horizon": move.horizon.isoformat() if move.horizon else None,
        "since": move.since.isoformat() if move.since else None,
        "until": move.until.isoformat() if move.until else None,
        "rows": move.rows,
        "files": move.files,
        "bytes": move.bytes,
        "why": move.why,
        "seconds": round(move.seconds, 3),
    }
    return document | (move.error.as_dict() if move.error is not None else {})


def _row(report: Report) -> dict[str, Any]:
    from cdc_lake.maintain.plan import size
    from cdc_lake.retain.run import DONE, DUE

    numbers = report.outcome in (DONE, DUE)
    return {
        "table": str(report.table),
        "class": report.policy.name,
        "keeps": _days(report.policy.log),
        "outcome": report.outcome,
        "since": None,
        "until": report.until.isoformat(timespec="seconds") if report.until else None,
        "rows": report.rows if numbers else None,
        "files": report.files if numbers else None,
        "bytes": size(report.bytes) if numbers else None,
        "starts": report.starts if numbers else None,
        "why": report.why or None,
    }


def _letter_row(report: Report) -> dict[str, Any]:
    row = _row(report)
    return row | {"table": f"{row['table']}: dlq", "keeps": _days(report.policy.dlq), "files": None, "starts": None}


def _days(kept: timedelta | None) -> str:
    if kept is None:
        return "forever"
    return f"{kept.days}d" if kept.seconds == 0 else f"{int(kept.total_seconds())}s"


def _letters(report: Report) -> dict[str, Any]:
    document = _document(report) | {"keeps": _days(report.policy.dlq), "letters": report.rows}
    return {k: v for k, v in document.items() if k not in ("rows", "files", "starts", "position")}


def _document(report: Report) -> dict[str, Any]:
    from cdc_lake.retain.run import HELD

    document: dict[str, Any] = {
        "source": report.source,
        "table": str(report.table),
        "class": report.policy.name,
        "keeps": _days(report.policy.log),
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
