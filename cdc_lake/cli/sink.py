"""`sink run`: land what Kafka holds, until told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from cdc_lake.pipeline import Progress

_EXAMPLES = (
    "Examples:  cdc-lake sink run   ·   cdc-lake sink run --until-caught-up   ·   "
    "cdc-lake sink run --tables 'public.order*'"
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    sink = typer.Typer(no_args_is_help=True, help="Land changes from Kafka in the lake.", epilog=_EXAMPLES)
    sink.command(epilog=_EXAMPLES)(run)
    app.add_typer(sink, name="sink")


def run(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that was in Kafka at the start has landed.")
    ] = False,
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables",
            metavar="GLOB",
            help="Only tables whose schema.table matches. Readers wait at the cut for the others' changes until a sink "
            "lands them too.",
        ),
    ] = None,
    accept_gap: Annotated[
        str | None,
        typer.Option("--accept-gap", metavar="TOPIC", help="Go on although Kafka deleted records of these topics."),
    ] = None,
) -> None:
    """Run the sink: every change once, in order, into the change log.

    SIGTERM and Ctrl-C finish and commit what is buffered. A second Ctrl-C stops at once, which loses nothing either.
    """
    from cdc_lake.cli.sink_runner import run_sinks

    config = output.settings()
    interrupted, progress = run_sinks(config, until_caught_up=until_caught_up, tables=tables, accept_gap=accept_gap)
    if output.as_json():
        output.emit(_document(progress))
    else:
        for one in progress:
            output.say(f"Landed {one.events:,} events of {len(one.tables)} tables; {one.dead:,} dead letters.")
    stopped = [error for one in progress for error in one.stopped.values()]
    if stopped:
        raise stopped[0]
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def _document(progress: list[Progress]) -> dict[str, object]:
    return {
        "events": sum(p.events for p in progress),
        "dead_letters": sum(p.dead for p in progress),
        "commits": sum(p.commits for p in progress),
        "tables": sorted(str(t) for p in progress for t in p.tables),
        "stopped": [
            {"topic": tp.topic, "partition": tp.partition, **error.as_dict()["error"]}
            for p in progress
            for tp, error in p.stopped.items()
        ],
    }
