"""The two questions of benchmarks/streams.py with Bytewax, as its documentation writes them.

`bytewax_job.py BOOTSTRAP TOPIC QUESTION`, in an environment of its own. Prints what it took as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from confluent_kafka import OFFSET_BEGINNING

BOOTSTRAP, TOPIC, QUESTION = sys.argv[1:]
SEEN = {"events": 0, "rows": 0}
DIMENSION = {store: f"region {store % 7}" for store in range(400)}


class _Counting(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        SEEN["rows"] += len(items)


class _Sink(DynamicSink[Any]):
    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> _Counting:
        return _Counting()


def _decoded(message: Any) -> dict[str, Any] | None:
    event = json.loads(message.value)
    if event["op"] != "u":
        return None
    SEEN["events"] += 1
    after = event["after"]
    return {"store": after["store"], "quantity": after["quantity"], "ts": event["source"]["ts_ms"]}


def _time(row: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(row["ts"] / 1000, UTC)


def _windows(rows: Any) -> Any:
    keyed = op.key_on("store", rows, lambda row: str(row["store"]))
    # Its watermark moves with the system's clock: without patience it would close windows that are still read.
    clock = EventClock(ts_getter=_time, wait_for_system_duration=timedelta(hours=1))
    windower = TumblingWindower(length=timedelta(seconds=1), align_to=datetime(2026, 1, 1, tzinfo=UTC))
    folded = win.fold_window(
        "fold", keyed, clock, windower, lambda: (0, 0), lambda s, row: (s[0] + 1, s[1] + row["quantity"]),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
    )  # fmt: skip
    return folded.down


def main() -> None:
    flow = Dataflow("sales")
    read = kop.input("in", flow, brokers=[BOOTSTRAP], topics=[TOPIC], tail=False, starting_offset=OFFSET_BEGINNING)
    rows = op.filter_map("decode", read.oks, _decoded)
    if QUESTION == "windows":
        found = _windows(rows)
    else:
        large = op.filter("large", rows, lambda row: row["quantity"] >= 40)
        found = op.map("join", large, lambda row: {**row, "region": DIMENSION[row["store"]]})
    op.output("out", found, _Sink())
    begun = time.monotonic()
    run_main(flow)
    print(json.dumps({**SEEN, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
