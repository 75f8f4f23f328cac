"""`rebuild`: make a read model anew from the log."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import LakeError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Examples:  cdc-lake rebuild public.orders   ·   cdc-lake rebuild orders --memory-mb 512")(
        rebuild
    )


def rebuild(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, or a table of public.")],
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=64, help="Memory for the fold; the rest spills to disk.")
    ] = 1024,
) -> None:
    """Fold a table from the start of its log and swap the result in.

    Readers see the old fold until the new one is whole. It mends a fold that was damaged or changed by hand. A table
    for which there is no memory is cut by key, and its parts are folded one after the other.
    """
    from cdc_lake.cli.fold import find_tables
    from cdc_lake.cli.fold_progress import FoldProgress
    from cdc_lake.cli.witness import witnessed
    from cdc_lake.land.layout import current_path, history_path, patch_path, remove_all
    from cdc_lake.project.fold import rebuild_table
    from cdc_lake.query.session import open_lake

    config = output.settings()
    lake = open_lake(config)
    known = {source: lake.tables(source) for source in lake.sources()}
    (wanted,) = find_tables([table], [t for found in known.values() for t in found]) or set()
    source = next(s for s, found in known.items() if wanted in found)
    for path in (current_path, patch_path, history_path):
        try:
            lake.open(path(lake.root, source, wanted))
        except LakeError:
            # Its Delta log cannot be read, so there is nothing to swap: it is only derived, and made anew from the log.
            remove_all(path(lake.root, source, wanted), lake.options)
    output.say(f"{wanted}: folding from the start of its log")
    progress = FoldProgress()
    with witnessed(config, "rebuild") as witness:
        done = rebuild_table(lake, source, config.captures, wanted, memory_mb=memory_mb, tell=progress)
        witness.folded(lake, source, done)
    progress.end()
    if done.error is not None:
        raise done.error
    output.say(f"{wanted}: {done.rows:,} rows in {done.seconds:.1f} s")
    if output.as_json():
        output.emit({"table": str(wanted), "outcome": done.outcome, "rows": done.rows, "seconds": done.seconds})
