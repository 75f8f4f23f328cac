"""Throughput of `sink run --until-caught-up` on real Debezium events, beside what users would write, in one run.

The events are a table's initial snapshot and a tenth of it updated, by the real connector, as plain JSON and as JSON
with inline schema. A sink's time is that of its whole process; Spark's is of the second run in one session.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import peers, source
from benchmarks.launch import Used, measured
from benchmarks.report import Report, Table, say
from cdc_lake.local.stack import Stack

FORMS = ("plain", "inline")
_FEW, _MERGED = 300_000, 100_000  # what the slow ones are given


def run(ends: Any, _stack: Stack, report: Report) -> None:
    """Rates for both forms; with Spark's in a full report."""
    with source.captured(ends, report.rows, FORMS) as name:
        for form in FORMS:
            _form(ends, report, form, f"{name}_{form}.public.sales")
    report.note("× raw: of the rate at which the same client only counts the records of the topic.")
    report.note(
        f"The naive loops were given the first {_FEW:,} and {_MERGED:,} events: a merge slows as its table grows."
    )


def _form(ends: Any, report: Report, form: str, topic: str) -> None:
    events = source.end_offset(ends.bootstrap, topic)
    names = {"events/s": ",.0f", "× raw": ".2f", "× naive": ".1f", "CPU µs each": ".1f", "peak MB": ",.0f"}
    table = report.table(f"{events:,} events, {form} JSON", what="", **names)
    raw = {
        "confluent": _rate(peers.raw_confluent, ends.bootstrap, topic, events),
        "kafka-python": _rate(peers.raw_kafka_python, ends.bootstrap, topic, events),
    }
    naive = _rate(peers.naive, ends.bootstrap, topic, min(events, _FEW))
    for client, rate in raw.items():
        table.add(f"raw consumption, {client}", rate, 1.0, rate / naive, None, None)
    table.add("naive loop, append", naive, naive / raw["kafka-python"], 1.0, None, None)
    merged = _rate(peers.naive_merge, ends.bootstrap, topic, min(events, _MERGED))
    table.add("naive loop, merge", merged, merged / raw["kafka-python"], merged / naive, None, None)
    if report.full:
        _spark(table, ends, topic, events, naive, inline=form == "inline")
    for client, possible in raw.items():
        seconds, cpu, rss = sink(ends, topic.partition(".")[0], client)
        rate = events / seconds
        table.add(f"`sink run`, {client}", rate, rate / possible, rate / naive, cpu / events * 1e6, rss)


def _spark(table: Table, ends: Any, topic: str, events: int, naive: float, *, inline: bool) -> None:
    seconds = peers.spark(ends.bootstrap, topic, events, inline=inline)
    if seconds is not None:
        table.add("Spark structured streaming, warm", events / seconds, None, events / seconds / naive, None, None)


def _rate(work: Callable[[str, str, int], None], bootstrap: str, topic: str, events: int) -> float:
    begun = time.monotonic()
    work(bootstrap, topic, events)
    rate = events / (time.monotonic() - begun)
    say(f"{work.__name__}: {rate:,.0f}/s")
    return rate


def sink(ends: Any, prefix: str, client: str, *, more: str = "") -> Used:
    """What it takes to run a whole `cdc-lake sink run --until-caught-up` process.

    `more` is added to its configuration."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-sink-"))
    own = prefix + client.replace("-", "")
    source.project(ends, folder, ends.dsn, prefix, name=own, client=client, more=more)
    used = measured([sys.executable, "-m", "cdc_lake", "-q", "sink", "run", "--until-caught-up"], cwd=folder)
    shutil.rmtree(folder)
    return used
