"""Draw the terminals of docs/how-to: `status --watch` over a lake with trading going on, and a session of `sql`.

The lakes are real ones, that of `watch.svg` landed by the real sink from an in-memory Kafka, and the pictures are what
the program draws; `sql.svg` is what a terminal shows while its lines are typed. Only the clock, the sink's process and
the connector's state are set, so that a picture changes when the program does and not with the hour.
Run: python scripts/screenshots.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pyte  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.style import Style  # noqa: E402
from rich.text import Text  # noqa: E402

from cdc_lake.cli.watch_state import Moment, SinkProcess  # noqa: E402
from cdc_lake.cli.watch_view import draw  # noqa: E402
from cdc_lake.config import load_config  # noqa: E402
from cdc_lake.consume.memory import MemoryKafka  # noqa: E402
from cdc_lake.query.overview import overview  # noqa: E402
from tests.lakes import end, event, make_sink  # noqa: E402
from tests.shops import Shop  # noqa: E402
from tests.terminals import terminal  # noqa: E402

_NOW = datetime(2026, 11, 26, 18, 30, 12, tzinfo=UTC).timestamp()
_TABLES = {"orders": 1_200, "order_lines": 3_480, "payments": 1_190, "inventory": 2_210, "products": 160, "stores": 12}
_WIDTH, _HEIGHT, _SQL_HEIGHT = 104, 22, 48
_PROMPT = "lake>"
# What is typed, and what its answer has and the line has not.
_TYPED = (
    ("SELECT region, count(*) AS stores FROM stores GROUP BY region ORDER BY region;", "─"),
    ("SELECT * FROM ordrs;", "next:"),
    ("\\plot SELECT category, count(*) AS products FROM products GROUP BY category ORDER BY products", "█"),
)


def moment(folder: Path) -> Moment:
    """A lake of a shop in the middle of a transaction."""
    kafka = MemoryKafka()
    topics = {f"pos.public.{name}" for name in _TABLES}
    for topic in (*sorted(topics), "pos.transaction"):
        kafka.create_topic(topic)
    place = 0
    for name, rows in _TABLES.items():
        for i in range(rows):
            place += 1
            kafka.produce(f"pos.public.{name}", 0, *event(name, {"id": i}, tx=("48211", place)))
    kafka.produce("pos.public.payments", 0, b"{}", b"no json")
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 10**6}, tx=("48212", 1)))
    kafka.produce("pos.transaction", 0, *end("48211", {f"public.{n}": rows for n, rows in _TABLES.items()}))
    kafka.produce("pos.transaction", 0, *end("48212", {"public.orders": 1, "public.order_lines": 3}))
    make_sink(kafka, folder).run(until_caught_up=True)
    (folder / "cdc-lake.yaml").write_text("source: {name: pos}\n")
    ends = {(f"pos.public.{n}", 0): rows + 1 + (n == "order_lines") * 40 for n, rows in _TABLES.items()}
    document = overview(load_config(folder / "cdc-lake.yaml"), ends)
    landed = datetime.fromtimestamp(_NOW - 2, UTC).isoformat()
    tables = [{**t, "last_landed": landed} for t in document["tables"]]
    rates = {t["table"]: t["rows_landed"] / 60 for t in tables}
    cuts = {"pos": {**document["cut"], "age_seconds": 3.4}}
    sinks = [SinkProcess(4711, 312_000_000, _NOW - 3 * 3600)]
    return replace(Moment(_NOW), tables=tables, rates=rates, cuts=cuts, connectors=[("pos", "RUNNING")], sinks=sinks)


def watch() -> str:
    """The SVG of `status --watch`."""
    with tempfile.TemporaryDirectory() as folder:
        shown = draw(moment(Path(folder)), 2, _HEIGHT)
    return _svg(shown, "cdc-lake status --watch", "watch", _HEIGHT)


def sql() -> str:
    """The SVG of a session of `sql`: each line is typed when the answer to the one before is there."""
    screen = pyte.Screen(_WIDTH, 1_000)  # nothing scrolls away
    stream = pyte.Stream(screen)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shop"
        folder.mkdir()
        shop = Shop.open(folder)
        for number in range(24):
            shop.sell(1 + number % 3, 1 + number % 5, 1)
        with terminal(folder, "sql", size=(_SQL_HEIGHT, _WIDTH)) as shell:
            shell.until(_PROMPT)
            for line, answer in _TYPED:
                place = len(shell.text)
                shell.type(f"{line}\r")
                shell.until(answer, after=place + len(line))
                shell.until(_PROMPT, after=shell.text.index(answer, place + len(line)))
            stream.feed(shell.text)
    lines = [_line(screen.buffer[y]) for y in range(screen.cursor.y)]
    return _svg(Text("\n").join(lines), "cdc-lake sql", "sql", len(lines))


def _line(cells: dict[int, pyte.screens.Char]) -> Text:
    found = Text()
    for x in range(_WIDTH):
        cell = cells[x]
        found.append(cell.data, Style(color=_colour(cell.fg), bold=cell.bold, underline=cell.underscore))
    return found


def _colour(name: str) -> str | None:
    return None if name == "default" else name if name.isalpha() else f"#{name}"


def _svg(shown: Any, title: str, name: str, height: int) -> str:
    console = Console(record=True, file=io.StringIO(), width=_WIDTH, height=height, highlight=False, no_color=False)
    console.print(shown, no_wrap=True)
    return console.export_svg(title=title, unique_id=f"cdc-lake-{name}")


if __name__ == "__main__":
    for name, made in (("watch", watch()), ("sql", sql())):
        (ROOT / "docs" / "how-to" / f"{name}.svg").write_text(made, encoding="utf-8")
