"""`fold`: advance the folded `current` and `history` tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_FAILED, UsageError, suggest

if TYPE_CHECKING:
    from cdc_lake.events import TableId
    from cdc_lake.project.fold import Folded
    from cdc_lake.project.lake import Lake

_EXAMPLES = "Examples:  cdc-lake fold   ·   cdc-lake fold public.orders public.order_lines   ·   cdc-lake fold --json"
_WORDS = {"folded": "folded", "current": "nothing new", "overtaken": "another fold was first", "failed": "failed"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(fold)


def fold(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]…", help="schema.table, or a table of public; all without.")
    ] = None,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=64, help="Memory for the fold; the rest spills to disk.")
    ] = 1024,
) -> None:
    """Fold the change log into `current` and `history`, so that reads have a shorter tail to resolve.

    Only economy: a query sees every landed change whether or not it is folded. Safe to interrupt and to run twice.
    """
    from cdc_lake.cli.fold_progress import FoldProgress
    from cdc_lake.cli.witness import witnessed
    from cdc_lake.project.fold import fold_source
    from cdc_lake.query.session import open_lake

    config = output.settings()
    lake = open_lake(config)
    known = {source: lake.tables(source) for source in lake.sources()}
    wanted = find_tables(tables, [t for found in known.values() for t in found])
    done, progress = [], FoldProgress()
    with witnessed(config, "fold") as witness:
        for source in known:
            for one in fold_source(lake, source, config.captures, wanted, memory_mb=memory_mb, tell=progress):
                progress.end()
                done.append(one)
                _tell(one)
                witness.folded(lake, source, one)
    if output.as_json():
        output.emit({"tables": [_document(one) for one in done]})
    if any(one.outcome == "failed" for one in done):
        raise typer.Exit(EXIT_FAILED)


def find_tables(names: list[str] | None, known: list[TableId]) -> set[TableId] | None:
    """The tables a person named, with or without `public.`; None for all. Raises UsageError for an unknown one."""
    if not names:
        return None
    spelled = {str(t): t for t in known} | {t.name: t for t in known if t.schema == "public"}
    for name in names:
        if name not in spelled:
            hint = suggest(name, spelled) or "It has no change log in this lake."
            raise UsageError(f"There is no table {name}.", why=hint, next="cdc-lake tables", code="no_table")
    return {spelled[name] for name in names}


def find_in_lake(lake: Lake, names: list[str] | None) -> set[TableId] | None:
    """As `find_tables`, among all tables of a lake."""
    return find_tables(names, [t for source in lake.sources() for t in lake.tables(source)])


def _tell(one: Folded) -> None:
    rows = f"{one.rows:,} rows in {one.seconds:.1f} s" if one.outcome == "folded" else _WORDS[one.outcome]
    output.say(f"{one.table}: {rows}")
    if one.error is not None and not output.as_json():
        output.fail(one.error)


def _document(one: Folded) -> dict[str, object]:
    document: dict[str, object] = {
        "table": str(one.table),
        "outcome": one.outcome,
        "rows": one.rows,
        "cut": one.cut,
        "seconds": one.seconds,
    }
    return document | (one.error.as_dict() if one.error is not None else {})
