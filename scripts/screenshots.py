"""Draw docs/how-to/watch.svg: the screen of `cdc-lake status --watch` over a lake with trading going on.

The lake is a real one, landed by the real sink from an in-memory Kafka, and the picture is what the command draws. Only
the clock, the sink's process and the connector's state are set, so that the picture changes when the program does and
not with the hour. Run: python scripts/screenshots.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402

from cdc_lake.cli.watch_state import Moment, SinkProcess  # noqa: E402
from cdc_lake.cli.watch_view import draw  # noqa: E402
from cdc_lake.config import load_config  # noqa: E402
from cdc_lake.consume.memory import MemoryKafka  # noqa: E402
from cdc_lake.query.overview import overview  # noqa: E402
from tests.lakes import end, event, make_sink  # noqa: E402

_NOW = datetime(2026, 11, 26, 18, 30, 12, tzinfo=UTC).timestamp()
_TABLES = {"orders": 1_200, "order_lines": 3_480, "payments": 1_190, "inventory": 2_210, "products": 160, "stores": 12}
_WIDTH, _HEIGHT = 104, 22


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


def picture() -> str:
    """The SVG."""
    with tempfile.TemporaryDirectory() as folder:
        shown = draw(moment(Path(folder)), 2, _HEIGHT)
    console = Console(record=True, file=io.StringIO(), width=_WIDTH, height=_HEIGHT, highlight=False, no_color=False)
    console.print(shown, no_wrap=True)
    return console.export_svg(title="cdc-lake status --watch", unique_id="cdc-lake-watch")


if __name__ == "__main__":
    (ROOT / "docs" / "how-to" / "watch.svg").write_text(picture(), encoding="utf-8")
