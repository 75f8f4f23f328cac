"""From COMMIT in PostgreSQL to the end of the first query that sees the order, at 500 transactions per second.

The workload, the stack, the sink and the asking reader share the machine. `flush_seconds` is 1. The reader opens a
session and asks each time that something has landed.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from deltalake import DeltaTable

import cdc_lake
from benchmarks.report import Report, wait
from cdc_lake.cli.sink_runner import build_sink
from cdc_lake.config import load_config
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.local.retail.freshness import Watch
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from cdc_lake.local.stack import Stack
from cdc_lake.query.news import News

ROOT = Path(__file__).parents[1]
RATE = 500
SECONDS = 30


def run(ends: Any, _stack: Stack, report: Report) -> None:
    with trading(ends) as (config, dsn, _):
        _measure(config, dsn, report)


@contextmanager
def trading(ends: Any) -> Iterator[tuple[Path, str, subprocess.Popen[bytes]]]:
    """A shop that is captured, landed and folded, and its sink: the configuration, the source's DSN, the process."""
    name = f"fresh{uuid.uuid4().hex[:8]}"
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-fresh-"))
    with psycopg.connect(ends.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    dsn = ends.dsn.rsplit("/", 1)[0] + f"/{name}"
    create_schema(dsn)
    load(dsn, Size.for_rows(20_000))
    config = _project(folder, name, dsn, ends)
    command = [sys.executable, "-m", "cdc_lake", "--config", str(config)]
    subprocess.run([*command, "-q", "connector", "register", f"connectors/{name}.json"], cwd=folder, check=True)
    build_sink(load_config(config), load_config(config).all_sources[0]).run(until_caught_up=True)
    subprocess.run([*command, "-q", "fold"], check=True)
    sink = subprocess.Popen([*command, "-q", "sink", "run"])
    try:
        yield config, dsn, sink
    finally:
        sink.send_signal(signal.SIGTERM)
        sink.wait()
        subprocess.run([*command, "-q", "connector", "delete", name, "--drop-slot"], check=True)
        with psycopg.connect(ends.dsn, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        shutil.rmtree(folder, ignore_errors=True)


def _project(folder: Path, name: str, dsn: str, ends: Any) -> Path:
    connector = json.loads((ROOT / "connectors" / "pos.json").read_text())
    connector["name"] = name
    connector["config"] |= {"topic.prefix": name, "slot.name": name, "publication.name": name}
    (folder / "connectors").mkdir()
    (folder / "connectors" / f"{name}.json").write_text(json.dumps(connector))
    file = folder / "cdc-lake.yaml"
    file.write_text(
        f"source: {{name: {name}, connector: connectors/{name}.json, dsn: '{dsn}'}}\n"
        f"kafka: {{bootstrap: '{ends.bootstrap}'}}\nconnect: {{url: '{ends.connect_url}'}}\n"
        "sink: {flush_seconds: 1}\n"
    )
    return file


def _measure(config: Path, dsn: str, report: Report) -> None:
    # Readers are other programs than tills: in one process they would wait for each other's interpreter.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as reader:
        watch = Watch(
            lambda orders: reader.submit(visible, config, list(orders)).result(),
            news=News(load_config(config)).arrived,
        )
        reader.submit(visible, config, [0]).result()
        _watch(watch, config, dsn, report)


def visible(config: Path, orders: Collection[int]) -> list[int]:
    """Those of the orders that a new session sees."""
    con = cdc_lake.connect(config, tables=["orders"])
    try:
        listed = ", ".join(str(o) for o in orders)
        return [r[0] for r in con.execute(f"SELECT order_id FROM orders WHERE order_id IN ({listed})").fetchall()]
    finally:
        con.close()


def _watch(watch: Watch, config: Path, dsn: str, report: Report) -> None:
    workload = Workload(dsn, rate=RATE, workers=4, on_commit=watch.committed)
    workload.start()
    try:
        wait(lambda: workload.stats().transactions > RATE, "the workload trades", 60)
        wait(lambda: "OPTIMIZE" in _operations(config), "the sink keeps the lake in shape", 300)
        found = watch.observe(SECONDS)
    finally:
        stats = workload.stop()
    table = report.table(
        f"The retail workload, asked for {RATE} transactions/s, `flush_seconds` 1",
        **{"transactions/s": ",.0f", "p50, s": ".2f", "p95, s": ".2f", "worst, s": ".2f", "orders": ",d"},
    )
    table.add(stats.transactions / stats.seconds, found.p50, found.p95, found.worst, found.samples)
    report.note("To the end of the reader's query, the opening of its session included.")
    if found.missing:
        report.note(f"{found.missing} orders were not seen before the end.")


def _operations(config: Path) -> list[str]:
    """What the commits of the orders' change log did. A reader's cost settles once the sink has maintained the lake."""
    settings = load_config(config)
    table = DeltaTable(log_path(settings.lake_uri, settings.all_sources[0].name, TableId("public", "orders")))
    return [str(entry["operation"]) for entry in table.history()]
