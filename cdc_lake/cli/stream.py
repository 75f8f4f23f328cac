"""`stream`: SQL models over changes, kept up while they land."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.cli.rules import iso
from cdc_lake.errors import EXIT_DIFFERENCES, EXIT_INTERRUPTED

_EXAMPLES = (
    "Examples:  cdc-lake stream check   ·   cdc-lake stream explain sales_per_hour   ·   "
    "cdc-lake stream run --until-caught-up   ·   "
    "cdc-lake stream replay sales_per_hour --from 2026-11-01 --dry-run"
)
_Names = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]…", help="Names of models; all without.")]
_Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    stream = typer.Typer(no_args_is_help=True, help="SQL models over changes, kept up as they land.", epilog=_EXAMPLES)
    for command in (check, run, explain, replay):
        stream.command(command.__name__, epilog=_EXAMPLES)(command)
    app.add_typer(stream, name="stream")


def check(names: _Names = None) -> None:
    """Check models against the lake: whether they parse, fit the tables, and can be kept up change by change.

    Ends with 3 when one is refused. Evaluates and writes nothing.
    """
    from cdc_lake.cli.stream_runner import checked

    found = checked(output.settings(), names)
    rows = [{"model": name, "result": "OK" if error is None else "refused"} for name, error in found]
    documents = [r | (error.as_dict() if error is not None else {}) for r, (_, error) in zip(rows, found, strict=True)]
    output.result({"models": documents}, ["model", "result"], rows)
    for _, error in found:
        if error is not None and not output.as_json():
            output.fail(error)
    if any(error is not None for _, error in found):
        raise typer.Exit(EXIT_DIFFERENCES)


def run(
    names: _Names = None,
    *,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that is in the lake now has been evaluated.")
    ] = False,
) -> None:
    """Keep models up as changes land: each row once in the model's table, with the position behind it.

    One process keeps a model up. SIGTERM and Ctrl-C end it; killed at any moment, the next run goes on where it was.
    Ends with 3 when a model stands still.
    """
    from cdc_lake.cli.stream_runner import run_models

    done = run_models(output.settings(), names, until_caught_up=until_caught_up)
    sent = {name: {"sent": count} for name, count in done.sent.items()}
    rows = [{"model": name, **counts, **sent.get(name, {})} for name, counts in done.found.items()]
    document = {"models": rows, "failed": [e.as_dict()["error"] for e in done.errors]}
    shown = [{"sent": None} | r for r in rows] if sent else rows
    output.result(document, ["model", "rows", "late", *(["sent"] if sent else [])], shown)
    for error in done.errors:
        if not output.as_json():
            output.fail(error)
    if done.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if done.errors:
        raise typer.Exit(EXIT_DIFFERENCES)


def explain(name: _Name) -> None:
    """Show what a model reads, when its rows come about, what it remembers, and where it is."""
    from cdc_lake.cli.stream_runner import explained

    said = explained(output.settings(), name)
    rows = [{"what": what, "is": text} for what, text in said]
    output.result({"model": name, "explained": rows}, ["what", "is"], rows)


def replay(
    name: _Name,
    *,
    since: Annotated[
        str | None, typer.Option("--from", metavar="MOMENT", help="A time, an LSN or a transaction [default: all].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare; write nothing.")] = False,
) -> None:
    """Make a model's rows again from the log, compare them with those that are there, and put them in their place.

    Ends with 3 when the table had other rows. After a change of the model's SQL all rows are made anew.
    """
    from cdc_lake.cli.stream_runner import replayed

    done = replayed(output.settings(), name, since, dry_run=dry_run)
    counts = {"rows": done.rows, "same": done.same, "missing": done.missing, "extra": done.extra, "late": done.late}
    row = {"model": name, "behind": done.after, "up_to": done.upto, **counts, "anew": done.anew}
    document = {**row, "examples": iso(list(done.examples)), "written": not dry_run}
    output.result(document, list(row), [row])
    if done.differs and not output.as_json() and not done.anew:
        output.table(["what", "position", "id"], [[e["what"], e["__position"], e["__id"]] for e in done.examples])
    if done.differs and not done.anew:
        raise typer.Exit(EXIT_DIFFERENCES)
