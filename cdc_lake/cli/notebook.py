"""`notebook`: the explorations that come with cdc_lake, opened on the project's own lake."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import UsageError

_EXAMPLES = (
    "Examples:  cdc-lake notebook   ·   cdc-lake notebook shrinkage   ·   cdc-lake notebook prices --run   ·   "
    "cdc-lake notebook last-night --findings"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(notebook)


def notebook(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which one; without, they are listed.")] = None,
    *,
    run: Annotated[bool, typer.Option("--run", help="As a page, without its code.")] = False,
    findings: Annotated[bool, typer.Option("--findings", help="No browser: print what is found, and end.")] = False,
) -> None:
    """Open an exploration of a retailer's lake in the browser, on the lake of this project.

    It is copied into the project's folder `notebooks`, where it is yours to change; one that is there is opened as it
    is. Needs the extra `notebooks`, and the tables of the retailer of `demo` and `init --template retail`.
    """
    from cdc_lake.init.notebooks import NOTEBOOKS, find_notebook, place

    config = output.settings()
    if name is None:
        rows = [{"notebook": n, "asks": one.asks, "file": one.file} for n, one in NOTEBOOKS.items()]
        output.result({"notebooks": rows}, ["notebook", "asks", "file"], rows)
        return
    chosen = find_notebook(name)
    if (run or findings) and chosen.tool != "marimo":
        raise UsageError(
            f"{chosen.file} is for Jupyter, which opens it with its code.", next=f"cdc-lake notebook {name}"
        )
    _need(chosen.tool)
    file = place(chosen, config.root / "notebooks")
    output.say(f"{file} on the lake {config.lake_uri}")
    modes = ["run" if run else "edit"] if chosen.tool == "marimo" else []
    raise typer.Exit(_start([str(file)] if findings else ["-m", chosen.tool, *modes, str(file)]))


def _need(tool: str) -> None:
    from cdc_lake.extras import is_there

    if not is_there(tool):
        raise ModuleNotFoundError(f"No module named {tool!r}", name=tool)


def _start(words: list[str]) -> int:
    """Run Python with `words` until it ends, with the configuration's place in its environment; its exit code."""
    import os
    import subprocess
    import sys

    environment = {**os.environ, "CDC_LAKE_CONFIG": str(output.config_file())}
    with subprocess.Popen([sys.executable, *words], env=environment) as running:
        while True:
            try:
                return running.wait()
            except KeyboardInterrupt:
                # It hears of Ctrl-C too, and asks whether to end.
                continue
