"""`sink run`: land what Kafka holds, until told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake import tuning
from cdc_lake.cli import output
from cdc_lake.errors import EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.progress import Progress

_EXAMPLES = (
    "Examples:  cdc-lake sink run   ·   cdc-lake sink run --until-caught-up   ·   "
    "cdc-lake sink run --tables 'public.order*'   ·   cdc-lake sink run --metrics 127.0.0.1:9464 --log json"
)
_TABLES_HELP = (
    "Only tables whose schema.table matches. Readers wait at the cut for the others' changes until a sink lands them "
    "too."
)
_METRICS_HELP = "Answer /metrics, /healthz and /readyz there [config: sink.metrics]."
_LOG_HELP = "json: one JSON object a line on stderr [config: sink.log]."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    sink = typer.Typer(no_args_is_help=True, help="Land changes from Kafka in the lake.", epilog=_EXAMPLES)
    sink.command(epilog=_EXAMPLES)(run)
    app.add_typer(sink, name="sink")


def run(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that was in Kafka at the start has landed.")
    ] = False,
    tables: Annotated[str | None, typer.Option("--tables", metavar="GLOB", help=_TABLES_HELP)] = None,
    accept_gap: Annotated[
        str | None,
        typer.Option("--accept-gap", metavar="TOPIC", help="Go on although Kafka deleted records of these topics."),
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="HOST:PORT", help=_METRICS_HELP)] = None,
    log: Annotated[str | None, typer.Option("--log", metavar="text|json", help=_LOG_HELP)] = None,
) -> None:
    """Run the sink: every change once, in order, into the change log.

    SIGTERM and Ctrl-C finish and commit what is buffered. A second Ctrl-C stops at once, which loses nothing either.
    """
    if log not in (None, "text", "json"):
        raise UsageError(f"There is no log format {log}.", why="There are: text, json", next="cdc-lake sink run --help")
    tuning.before_loading()
    from cdc_lake.cli.sink_runner import Choice, run_sinks

    config = output.settings()
    choice = Choice(tables, accept_gap, metrics or config.sink.metrics, (log or config.sink.log) == "json")
    interrupted, progress = run_sinks(config, until_caught_up=until_caught_up, choice=choice)
    _tell(config, progress, until_caught_up=until_caught_up)
    stopped = [error for one in progress for error in one.stopped.values()]
    if stopped:
        raise stopped[0]
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def _tell(config: Config, progress: list[Progress], *, until_caught_up: bool) -> None:
    from cdc_lake.checks import many
    from cdc_lake.cli.stack_status import connector_lines

    if output.as_json():
        output.emit(_document(progress))
        return
    for one in progress:
        landed, dead = many(one.events, "event"), many(one.dead, "dead letter")
        output.say(f"Landed {landed} of {many(len(one.tables), 'table')}; {dead}.")
    if any(one.dead for one in progress):
        output.say("Next: cdc-lake dlq list")
    if until_caught_up and not any(one.commits for one in progress):
        for line in connector_lines(config):
            output.say(line)


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
