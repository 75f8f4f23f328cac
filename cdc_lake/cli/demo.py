"""`demo`: the whole story on an embedded stack of its own, from a living shop to proven answers."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES, CdcLakeError

if TYPE_CHECKING:
    from cdc_lake.cli.demo_stage import Stage

DEFAULT_ROWS = 30_000  # on two cores the whole demo then takes less than a minute
_EXAMPLES = (
    "Examples:  cdc-lake demo   ·   cdc-lake demo --rows 500000   ·   cdc-lake demo --keep   ·   cdc-lake demo --stop"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(demo)


def demo(
    rows: Annotated[int, typer.Option("--rows", min=200, help="About how many rows to begin with.")] = DEFAULT_ROWS,
    keep: Annotated[bool, typer.Option("--keep", help="Leave all of it running, and a slow trade.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what a demo with --keep has left running.")] = False,
) -> None:
    """Show it all: a living shop in PostgreSQL, captured, landed, asked with SQL, and followed by rules and services.

    It plays in a folder of its own (.cdc-lake/demo) with its own stack: yours is not touched. Everything is stopped
    at the end, on Ctrl-C and on failure; the lake it wrote stays readable until the next demo.
    """
    from cdc_lake.cli.demo_stage import Stage

    state = output.settings().state_folder
    with _alone(state):
        stage = Stage(state / "demo")
        if stop:
            stage.end(output.say)
            output.say("The demo is stopped.")
        else:
            _play(stage, rows, keep=keep)


def _play(stage: Stage, rows: int, *, keep: bool) -> None:
    from cdc_lake.cli import demo_show
    from cdc_lake.cli.demo_story import Teller

    with _ended_at_last(stage) as leave_up:
        story = Teller(stage, rows, demo_show.Show()).tell()
        if keep:
            stage.start_trade()
            leave_up()
    commands = demo_show.next_commands(stage.config_file, kept=keep)
    if output.as_json():
        output.emit(demo_show.document(story, commands, kept=keep))
    else:
        demo_show.show_end(story, commands, kept=keep)
    if not story.ok:
        raise typer.Exit(EXIT_DIFFERENCES)


@contextlib.contextmanager
def _ended_at_last(stage: Stage) -> Iterator[Callable[[], None]]:
    """Stop all that runs for the stage when the block ends, however it ends, unless the value was called in it.

    The first Ctrl-C, `kill` or closed terminal ends the block; more of them do not disturb the stopping.
    """
    told: list[int] = []
    left_up: list[bool] = []

    def interrupt(number: int, _frame: object) -> None:
        told.append(number)
        if len(told) > 1:
            output.say("Still stopping, a moment.")
        else:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield lambda: left_up.append(True)
    finally:
        told.append(0)  # from here on a signal only says so
        if not left_up:
            with contextlib.suppress(OSError):  # the terminal may be the very thing that has gone
                output.say("Stopping all that was started …")
            stage.end(lambda line: None)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _alone(state_folder: Path) -> Iterator[None]:
    """One demo at a time in a folder: the next one wipes what the last one left."""
    from cdc_lake.local.state import State, exclusive

    State(state_folder).create()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(state_folder / "demo.lock", seconds=0))
        except CdcLakeError as error:
            if error.code != "locked":
                raise
            raise CdcLakeError(
                "Another demo is running in this folder.",
                why=f"It holds {state_folder / 'demo.lock'}.",
                next="wait for its end, or run this one in another folder",
                code="locked",
            ) from None
        yield
