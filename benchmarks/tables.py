"""The same number of events in one table, in ten and in two hundred: what tables cost a sink.

Events are those of `benchmarks/volume.py`, in one partition for each table. The sink is a process of its own, and its
time that of the whole process.
"""

from __future__ import annotations

import uuid
from typing import Any

from kafka.admin import KafkaAdminClient

from benchmarks import volume
from benchmarks.report import Report
from benchmarks.throughput import sink
from cdc_lake.local.stack import Stack

COUNTS = (1, 10, 200)


def run(ends: Any, _stack: Stack, report: Report) -> None:
    names = {"tables": "d", "events/s": ",.0f", "CPU µs each": ".2f", "× of one": ".2f", "peak MB": ",.0f"}
    table = report.table(f"{report.rows:,} events, plain JSON, confluent", **names)
    name, first = f"tables{uuid.uuid4().hex[:8]}", 0.0
    try:
        for count in COUNTS:
            prefix = f"{name}_{count}"
            for number in range(count):
                volume.snapshot(ends.bootstrap, prefix, report.rows // count, f"sales_{number}")
            seconds, cpu, rss = sink(ends, prefix, "confluent")
            first = first or cpu
            table.add(count, report.rows / seconds, cpu / report.rows * 1e6, cpu / first, rss)
    finally:
        admin = KafkaAdminClient(bootstrap_servers=ends.bootstrap)
        admin.delete_topics([t for t in admin.list_topics() if t.startswith(name)])
        admin.close()
    report.note("× of one: of the CPU time that the events take in one table.")
