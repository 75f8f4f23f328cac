"""`changes`: the events of one table, like `tail -f`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from cdc_lake.query.events import Event

_EXAMPLES = (
    "Examples:  cdc-lake changes orders   ·   cdc-lake changes public.products --limit 100   ·   "
    "cdc-lake changes orders --follow   ·   cdc-lake changes orders --follow --json"
)
_POLL_SECONDS = 0.5
_WORDS = {"c": "create", "u": "update", "d": "delete", "r": "read", "t": "truncate", "a": "again"}
_STYLES = {"c": "green", "u": "yellow", "d": "red", "r": "dim", "t": "red", "a": "dim"}
_LONGEST = 40


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(changes)


def changes(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, or a table of public.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what lands, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="How many of the last changes.")] = 20,
) -> None:
    """Show the last changes of a table in the order in which they landed, the newest last.

    Of an update, the columns that it changed. A change is shown as soon as it has landed; whether its transaction is
    complete, and so visible in queries, is told by `cdc-lake status`.
    """
    from cdc_lake.query.events import EventReader

    reader = EventReader(output.settings(), table)
    try:
        _print(reader.last(limit))
        while follow:
            time.sleep(_POLL_SECONDS)
            _print(reader.new())
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        reader.close()


def _print(events: Iterable[Event]) -> None:
    if output.as_json():
        from cdc_lake.query.values import dumps

        for event in events:
            print(dumps({**event.own, **event.row, "__changed": event.changed}), flush=True)
        return
    console = output.console()
    for event in events:
        console.print(line_of(event), soft_wrap=True)


def line_of(event: Event) -> Text:
    """One change as a line: when, what, which row, what it changed, in which transaction."""
    from rich.text import Text

    own, key = event.own, _names(event.own["__key"])
    if event.changed is not None:
        shown = {c: event.row[c] for c in event.changed}
    else:
        shown = {c: v for c, v in event.row.items() if c not in key}
    place = [f"tx {own['__tx_id']}"] if own["__tx_id"] is not None else []
    if own["__lsn"] is not None:
        place.append(f"lsn {own['__lsn'] >> 32:X}/{own['__lsn'] & 0xFFFFFFFF:X}")
    parts = [
        (str(own["__source_ts"]), "dim"),
        (f"{_WORDS[own['__op']]:<8}", _STYLES[own["__op"]]),
        (",".join(f"{n}={v}" for n, v in key.items()), ""),
        ("  ".join(f"{c}={_value(v)}" for c, v in shown.items()), ""),
        ("  ".join(place), "dim"),
    ]
    return Text("  ").join(Text(text, style) for text, style in parts if text)


def _names(key: str | None) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(key) if key is not None else {}
    return found


def _value(value: Any) -> str:
    from cdc_lake.query.values import as_text

    text = "null" if value is None else as_text(value).replace("\n", "\\n")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
