"""`tables`: what has landed."""

from __future__ import annotations

import typer

from cdc_lake.cli import output

_EXAMPLES = "Examples:  cdc-lake tables   ·   cdc-lake tables --json"
_COLUMNS = ("table", "key", "rows_landed", "unfolded", "last_landed", "note")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(tables)


def tables() -> None:
    """List the tables of the lake: key, changes landed, how many of them are not folded yet.

    The note says what no event told of a table: values that ALTER TABLE gave or converted, and that it was made anew.
    """
    from cdc_lake.query.overview import table_rows

    rows = table_rows(output.settings())
    if not rows and not output.as_json():
        output.say("No table has landed yet. Next: cdc-lake sink run")
        return
    shown = [{**r, "key": ", ".join(r["key"] or ())} for r in rows]
    output.result({"tables": rows}, _COLUMNS, shown)
    if not output.as_json():
        for row in rows:
            if row["next"]:
                output.say(f"Next: {row['next']}")
