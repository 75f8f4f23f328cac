"""The command line's root: global options, words for errors, exit codes. Each noun has a file of its own beside it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cdc_lake import __version__
from cdc_lake.cli import output
from cdc_lake.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, CdcLakeError, UsageError, suggest

# Each module adds its commands with `register(app)`. They import what they need inside the commands, so that
# `cdc-lake --help` stays fast.
NOUNS: tuple[str, ...] = ()

_FLAGS = {"--json", "-v", "-vv", "-q", "--verbose", "--quiet"}

app = typer.Typer(
    name="cdc-lake",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Every change of a database, once and in order, in Delta Lake; asked with SQL in DuckDB.",
    epilog="Start here:  [bold]cdc-lake demo[/bold]   ·   every command has examples in its --help",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cdc-lake {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    config: Annotated[
        str | None, typer.Option("--config", metavar="PATH", help="The configuration [default: cdc-lake.yaml].")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Machine-readable output on stdout, and nothing else.")
    ] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv adds tracebacks.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only results and errors.")] = False,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    output.configure(config=config, as_json=as_json, verbosity=-1 if quiet else verbose)


def hoist_globals(arguments: list[str]) -> list[str]:
    """Move global options to the front, so that they may stand anywhere before a `--`."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest.append(word)
            rest.extend(words)
        elif word in _FLAGS or word.startswith("--config="):
            front.append(word)
        elif word == "--config":
            front.extend([word, *[v for v in [next(words, None)] if v is not None]])
        else:
            rest.append(word)
    return front + rest


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code SURFACE documents."""
    for noun in NOUNS:
        importlib.import_module(f"cdc_lake.cli.{noun}").register(app)
    words = hoist_globals(sys.argv[1:] if arguments is None else arguments)
    output.configure(config=None, as_json="--json" in words, verbosity=2 if "-vv" in words else 0)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        result = app(args=words, prog_name="cdc-lake", standalone_mode=False)
        sys.stdout.flush()
    except CdcLakeError as error:
        output.fail(error)
        return error.exit_code
    except TyperException as error:
        output.fail(_usage(error))
        return EXIT_USAGE
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        output.say("Interrupted.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; a second flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _usage(error: TyperException) -> CdcLakeError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "cdc-lake"
    message = error.format_message()
    if message.startswith("No such command"):
        known = list(getattr(context.command, "commands", {})) if context is not None else []
        hint = suggest(message.split("'")[1] if "'" in message else "", known)
        message = f"{message.split(' Did you mean')[0].rstrip('.')}."
        return UsageError(message, why=hint, next=f"{command} --help")
    return UsageError(message, next=f"{command} --help")


def _unexpected(error: Exception) -> int:
    if output.verbosity() >= 2:
        raise error
    output.fail(
        CdcLakeError(
            f"This is a defect in cdc-lake: {type(error).__name__}: {error}",
            why="The error was not foreseen. What was committed to the lake is intact.",
            next="run the same command with -vv and report the traceback",
            code="internal",
        )
    )
    return EXIT_FAILED
