"""`init`: a new project, ready to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES, UsageError, suggest

if TYPE_CHECKING:
    from cdc_lake.init.address import Address
    from cdc_lake.init.files import Outline
    from cdc_lake.init.look import Found

_EXAMPLES = (
    "Examples:  cdc-lake init shop --template retail   ·   cdc-lake init   ·   "
    "cdc-lake init pos-lake --dsn '${POS_DSN}'   ·   "
    "cdc-lake init pos-lake --dsn 'host=db.internal dbname=pos user=cdc_admin' --dry-run"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; made when it is not there.")] = Path(),
    *,
    template: Annotated[
        str, typer.Option("--template", metavar="blank|retail", help="retail: with a made-up retailer to play with.")
    ] = "blank",
    dsn: Annotated[
        str | None,
        typer.Option("--dsn", metavar="DSN", help="An existing PostgreSQL to look at: an address, or ${VARIABLE}."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The source's name [default: pos, or the database's].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files that are there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
) -> None:
    """Write a project: cdc-lake.yaml, a connector file, a first notebook, .gitignore.

    With --dsn the source is looked at and nothing in it is changed: the files fit it, and the SQL that it still needs
    is written beside the connector. The address's password is in none of them. Ends with 3 when something in the
    source stands in the way of capture.
    """
    from cdc_lake.cli import init_show
    from cdc_lake.init import files

    _check(template, dsn)
    outline, address, found = _outline(folder, template, dsn, name)
    made = files.render(outline)
    if not force:
        files.refuse_to_overwrite(folder, made, _again(folder, template, dsn, name))
    if not dry_run:
        files.write(folder, made)
    steps = init_show.steps(folder, outline, address, found)
    if output.as_json():
        output.emit(init_show.document(folder, outline, made, found, steps, dry_run=dry_run))
    else:
        init_show.show(folder, made, found, steps, dry_run=dry_run)
    if found is not None and not found.ok:
        raise typer.Exit(EXIT_DIFFERENCES)


def _check(template: str, dsn: str | None) -> None:
    from cdc_lake.init.files import TEMPLATES

    if template not in TEMPLATES:
        raise UsageError(
            f"There is no template {template}.",
            why=suggest(template, TEMPLATES) or f"There are: {', '.join(TEMPLATES)}.",
            next="cdc-lake init --help",
        )
    if template == "retail" and dsn is not None:
        raise UsageError(
            "The template retail brings a database of its own, so it goes with no --dsn.",
            next="leave out one of the two",
        )


def _outline(
    folder: Path, template: str, dsn: str | None, name: str | None
) -> tuple[Outline, Address | None, Found | None]:
    from cdc_lake.init.files import Outline, connector_of, source_name

    if name is not None and source_name(name) != name:
        raise UsageError(
            f"{name} cannot be a source's name.",
            why="It becomes part of topics, a slot, a role and folders: small letters, digits and underscores.",
            next=f"--name {source_name(name)}",
        )
    if dsn is None:
        return Outline(name or "pos", template), None, None
    from cdc_lake.init.address import read_address
    from cdc_lake.init.look import inspect, schemas_of
    from cdc_lake.init.setup import setup_sql

    address = read_address(dsn, name, folder, os.environ)
    chosen = name or source_name(address.database)
    schemas = schemas_of(address)
    outline = Outline(chosen, template, address.written, schemas)
    found = inspect(address, connector_of(chosen, schemas), outline.connector, folder)
    setup = setup_sql(found, outline.setup_file)
    return Outline(chosen, template, address.written, schemas, setup), address, found


def _again(folder: Path, template: str, dsn: str | None, name: str | None) -> str:
    """The command as it was typed, but for an address that may hold a password."""
    import shlex

    words = ["cdc-lake", "init", *([str(folder)] if folder != Path() else [])]
    words += ["--template", template] if template != "blank" else []
    words += ["--name", name] if name else []
    return " ".join(map(shlex.quote, words)) + (" --dsn …" if dsn else "")
