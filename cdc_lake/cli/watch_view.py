"""The screen of `status --watch`, drawn from a `Moment`: always the same picture for the same moment."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cdc_lake.cli.query import duration
from cdc_lake.cli.watch_state import Moment

_KEYS = "↑↓ choose   Enter look into   p pause   r resume   q leave"
_KEYS_TABLE = "Esc back   q leave"
_COLUMNS = ("table", "rows", "rows/s", "lag", "last commit", "dead letters", "unfolded")
# Lines of the screen that are no table: title, cut and its waits, sinks, head of the table, words and keys below.
_OTHER_LINES = 12


@dataclass(frozen=True, slots=True)
class Looked:
    """A table that is looked into, and its last changes as they are printed."""

    table: str
    lines: Sequence[Text]


def choices(moment: Moment) -> list[tuple[str, str]]:
    """What can be chosen, in the order of the screen: (`connector` or `table`, its name)."""
    return [("connector", n) for n, _ in moment.connectors] + [("table", t["table"]) for t in moment.tables]


def draw(
    moment: Moment | None, chosen: int, height: int, *, looked: Looked | None = None, said: str = ""
) -> RenderableType:
    """The whole screen."""
    if moment is None:
        return Text("Reading the lake…", "dim")
    clock = datetime.fromtimestamp(moment.at, UTC).strftime("%H:%M:%S")
    title = Text.assemble(("cdc-lake", "bold"), f"   {clock} UTC")
    if looked is not None:
        head = Text.assemble("the last changes of ", (looked.table, "bold"))
        body: list[RenderableType] = [head, Text(), *looked.lines[-max(1, height - 6) :]]
        return Group(title, Text(), *body, Text(), Text(_KEYS_TABLE, "dim"))
    below = [Text(said, "yellow")] if said else []
    below += [Text(trouble, "red") for trouble in moment.troubles[:3]]
    return Group(title, *_sinks(moment), *_cuts(moment), _things(moment, chosen, height), *below, Text(_KEYS, "dim"))


def _sinks(moment: Moment) -> list[Text]:
    if not moment.sinks:
        return [Text("no sink of this project runs on this machine   next: cdc-lake sink run", "yellow")]
    return [
        Text(f"sink {s.pid}   memory {s.memory_bytes / 1e6:,.0f} MB   for {duration(max(0.0, moment.at - s.since))}")
        for s in moment.sinks
    ]


def _cuts(moment: Moment) -> list[Text]:
    lines = []
    for source, cut in moment.cuts.items():
        age = cut["age_seconds"]
        if cut["tx_id"] is None:
            lines.append(Text(f"{source}: readers see nothing of the stream yet"))
        else:
            words = f", committed {duration(age)} ago" if age is not None else ""
            lines.append(Text(f"{source}: readers see up to transaction {cut['tx_id']}{words}"))
        lines += [
            Text(
                f"  the cut waits for transaction {w['tx_id']}: {w['missing']} of {w['expected']} of {w['table']}",
                "yellow",
            )
            for w in cut["waits_for"][:3]
        ]
    return lines


def _things(moment: Moment, chosen: int, height: int) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, header_style="bold", expand=False)
    for i, column in enumerate(_COLUMNS):
        grid.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    rows = [(f"connector {n}", [state, "", "", "", "", ""], _state_style(state)) for n, state in moment.connectors]
    rows += [(t["table"], _cells(moment, t), _table_style(t)) for t in moment.tables]
    room = max(3, height - _OTHER_LINES)
    first = min(max(0, chosen - room + 1), max(0, len(rows) - room))
    for i, (name, cells, style) in list(enumerate(rows))[first : first + room]:
        mark = "▸ " if i == chosen else "  "
        grid.add_row(Text(mark + name), *(Text(c) for c in cells), style="reverse" if i == chosen else style)
    return grid


def _cells(moment: Moment, table: dict[str, Any]) -> list[str]:
    rate, lag = moment.rates.get(table["table"]), table["lag_records"]
    landed = table["last_landed"]
    age = moment.at - datetime.fromisoformat(landed).timestamp() if landed else None
    return [
        f"{table['rows_landed']:,}",
        "" if rate is None else f"{rate:,.0f}",
        "?" if lag is None else f"{lag:,}",
        "" if age is None else f"{duration(max(0.0, age))} ago",
        f"{table['dead_letters']:,}" if table["dead_letters"] else "",
        f"{table['rows_unfolded']:,}",
    ]


def _state_style(state: str) -> str:
    return {"RUNNING": "green", "FAILED": "red"}.get(state, "yellow")


def _table_style(table: dict[str, Any]) -> str:
    return "red" if table["dead_letters"] else ""


def as_ansi(picture: RenderableType, width: int, height: int) -> str:
    """The picture as a terminal takes it, never higher than the screen; without colours where NO_COLOR is set."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=True,
        color_system="256",
        no_color=bool(os.environ.get("NO_COLOR")),
        width=width,
        highlight=False,
        legacy_windows=False,
    )
    console.print(picture, overflow="ellipsis", no_wrap=True, crop=True)
    lines = stream.getvalue().rstrip("\n").split("\n")
    return "\n".join(lines if len(lines) <= height else [*lines[: height - 1], lines[-1]])
