"""`sql`: an interactive shell over the lake."""

from __future__ import annotations

import sys

import typer

from cdc_lake.cli import output

_EXAMPLES = "Examples:  cdc-lake sql   ·   cat questions.sql | cdc-lake sql"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(sql)


def sql() -> None:
    """Ask the lake interactively: history, completion, several lines until `;`, and `\\?` for help.

    From a file or a pipe the statements run one after the other, and the first error ends it.
    """
    from contextlib import closing

    from cdc_lake.cli.shell import Shell
    from cdc_lake.cli.witness import witnessed

    config = output.settings()
    with witnessed(config) as witness, closing(Shell(config, witness)) as shell:
        if sys.stdin.isatty() and sys.stdout.isatty():
            shell.interact()
        else:
            shell.run_script(sys.stdin.read())
