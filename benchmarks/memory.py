"""Does `memory_mb` hold: one hot partition, rows of a megabyte, 200 tables, a slow store, and three limits.

The peak is that of the resident set of the whole `sink run --until-caught-up`, with the interpreter and libraries.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from kafka.admin import KafkaAdminClient

from benchmarks import volume
from benchmarks.report import Report
from benchmarks.throughput import sink
from cdc_lake.local.stack import Stack
from tests.object_store import BUCKET, object_store

LIMITS = (448, 512, 1024)
LARGE, LARGE_ROWS, TABLES = 1_000_000, 500, 200
_DELAY = 0.1


def run(ends: Any, _stack: Stack, report: Report) -> None:
    name = f"memory{uuid.uuid4().hex[:8]}"
    table = report.table("Peak of the sink's memory, MB", **{"": ""} | {f"memory_mb: {m}": ",.0f" for m in LIMITS})
    try:
        volume.snapshot(ends.bootstrap, f"{name}_hot", report.rows)
        _large(ends.bootstrap, f"{name}_large.public.sales")
        for number in range(TABLES):
            volume.snapshot(ends.bootstrap, f"{name}_many", report.rows // TABLES, f"sales_{number}")
        for what, prefix in (
            (f"{report.rows:,} rows in one partition", "hot"),
            (f"{LARGE_ROWS} rows of 1 MB", "large"),
            (f"{report.rows:,} rows in {TABLES} tables", "many"),
        ):
            full = f"{name}_{prefix}"
            table.add(what, *(_peak(ends, full, limit) for limit in LIMITS))
        with tempfile.TemporaryDirectory() as folder, object_store(Path(folder)) as gate:
            gate.set(delay=_DELAY)
            peaks = []
            for limit in LIMITS:
                lake = {"uri": f"s3://{BUCKET}/at{limit}", "options": gate.options()}
                peaks.append(_peak(ends, f"{name}_hot", limit, f"lake: {json.dumps(lake)}\n"))
            table.add(f"the first again, a store that takes {_DELAY * 1000:.0f} ms more for each request", *peaks)
    finally:
        admin = KafkaAdminClient(bootstrap_servers=ends.bootstrap)
        admin.delete_topics([t for t in admin.list_topics() if t.startswith(name)])
        admin.close()


def _peak(ends: Any, prefix: str, limit: int, more: str = "") -> float:
    return sink(ends, prefix, "confluent", more=f"sink: {{memory_mb: {limit}}}\n{more}")[2]


def _large(bootstrap: str, topic: str) -> None:
    """Rows whose text does not compress to nothing."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 2 * LARGE, "linger.ms": 5})
    event = volume.example("large")
    for number in range(LARGE_ROWS):
        text = os.urandom(LARGE // 2).hex()
        value = event.replace('"note":"c4ca4238a0b923820dcc509a6f75849b"', f'"note":"{text}"').encode()
        producer.produce(topic, value, b'{"id":%d}' % number, 0)
        producer.poll(0)
    if producer.flush(300):
        raise SystemExit(f"{topic}: not all events were taken")
