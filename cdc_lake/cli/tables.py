"""`tables`: what has landed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import CdcLakeError

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.events import TableId

_EXAMPLES = "Examples:  cdc-lake tables   ·   cdc-lake tables --json"
_PATIENCE = 2  # seconds that a source may take to answer
_COLUMNS = ("table", "key", "rows_landed", "unfolded", "last_landed", "files", "bytes", "due", "note")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(tables)


def tables() -> None:
    """List the tables of the lake: key, changes landed, how many of them are not folded yet, files, and their bytes.

    `due` is what `maintain` does next; with --json also why, the share of small files, and the oldest version that can
    be read.
    The note says what no event told of a table: values that ALTER TABLE gave or converted, that it was made anew, or
    that the source has it no longer.
    """
    from cdc_lake.query.overview import table_rows

    config = output.settings()
    rows = table_rows(config, partial(_numbers, config))
    if not rows and not output.as_json():
        output.say("No table has landed yet. Next: cdc-lake sink run")
        return
    shown = [_shown(r) for r in rows]
    output.result({"tables": rows}, _COLUMNS, shown)
    if not output.as_json():
        for row in rows:
            if row["next"]:
                output.say(f"Next: {row['next']}")
        gone = [r["table"] for r in rows if r["gone"]]
        if gone:
            output.say(f'Next: when that is meant, in cdc-lake.yaml: tables: {{"{gone[0]}": {{exclude: true}}}}')


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    from cdc_lake.maintain.plan import size

    due = row["next_due"]["action"] if row["next_due"] else None
    used = size(row["bytes"]) if row["bytes"] is not None else None
    return {**row, "key": ", ".join(row["key"] or ()), "bytes": used, "due": due}


def _numbers(config: Config, source: str, tables: Sequence[TableId]) -> Mapping[TableId, int] | None:
    """Which of the tables the source has; None, after a short while, when it cannot be asked."""
    from cdc_lake.capture.columns import read_oids

    try:
        found = next((s for s in config.databases if s.name == source), None)
        return read_oids(config.dsn(found), tables, seconds=_PATIENCE) if found is not None else None
    except CdcLakeError:
        return None
