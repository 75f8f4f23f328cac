"""A table of N rows that is captured for the first time, and then changed all over: landed, folded, rebuilt.

Events have the form that the connector gives them as plain JSON, which is checked against a real one; they are produced
by this script, because PostgreSQL and the connector would take hours. Rates are those of the Delta log: what lies
between the times of its commits. Each step is a process of its own, at the product's own settings.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from confluent_kafka import Consumer, Producer

from benchmarks import source
from benchmarks.launch import measured
from benchmarks.report import Report, Table, say
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.local.stack import Stack

TENTHS, CHUNK, EACH = 10, 200_000, 100
NOW = 1_790_000_000_000
_ROW = """json_object('id', i, 'store', i % 400, 'sku', 'SKU-' || lpad((i % 5000)::VARCHAR, 8, '0'),
    'quantity', 1 + i % 7 + {more}, 'price', ((i % 9999) / 100)::DECIMAL(10,2)::VARCHAR,
    'sold_at', strftime(TIMESTAMP '2026-01-01' + to_seconds(i), '%Y-%m-%dT%H:%M:%S.000000Z'),
    'channel', CASE WHEN i % 3 = 0 THEN 'online' ELSE 'pos' END, 'note', md5(i::VARCHAR))"""
_EVENT = """json_object('before', NULL, 'after', {row}, 'source', json_object('version', '3.7.0.Final',
    'connector', 'postgresql', 'name', '{name}', 'ts_ms', {ts}, 'snapshot', '{snapshot}', 'db', '{name}',
    'sequence', '[null,"1"]', 'ts_us', {ts} * 1000, 'ts_ns', {ts} * 1000000, 'schema', 'public', 'table', '{table}',
    'txId', {tx}, 'lsn', {lsn}, 'xmin', NULL, 'origin', NULL, 'origin_lsn', NULL),
    'transaction', {transaction}, 'op', '{op}', 'ts_ms', {ts},
    'ts_us', {ts} * 1000, 'ts_ns', {ts} * 1000000)"""


def run(ends: Any, _stack: Stack, report: Report) -> None:
    rows = report.rows
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-volume-"))
    landed = report.table(
        f"Landing, `sink run` with confluent, {rows:,} rows and as many changes of random ones",
        **{"events": "", "events/s": ",.0f", "first tenth": ",.0f", "slowest tenth": ",.0f", "last tenth": ",.0f"},
    )
    steps = report.table("Each step as a process", **{"step": "", "rows": ",d", "s": ",.0f", "peak MB": ",.0f"})
    with source.captured(ends, 1_100, ("plain",)) as name:
        try:
            topic = f"{name}_plain.public.sales"
            real = _first(ends.bootstrap, topic)
            prefix = f"{name}_volume"
            _check_form(real, prefix)
            config = source.project(ends, folder, ends.dsn.rsplit("/", 1)[0] + f"/{name}", prefix)
            snapshot(ends.bootstrap, prefix, rows)
            _land((landed, steps), config, prefix, "the snapshot", rows)
            steps.add("fold of the first rows", rows, *_command(config, "fold"))
            changes(ends.bootstrap, prefix, rows)
            _land((landed, steps), config, prefix, "the changes", rows)
            steps.add("rebuild of all", 2 * rows, *_command(config, "rebuild", "public.sales"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    report.note(
        "The sink keeps to `memory_mb: 1024`. Of fold and rebuild that is the limit of DuckDB, which puts the rest on "
        "the disk; what Arrow and delta-rs hold comes on top."
    )


def _first(bootstrap: str, topic: str) -> dict[str, Any]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        while (message := consumer.poll(1.0)) is None or (value := message.value()) is None:
            pass
        found: dict[str, Any] = json.loads(value)
        return found
    finally:
        consumer.close()


def _check_form(real: dict[str, Any], name: str) -> None:
    """Our events have the keys of a real one, in its order, all the way down."""
    ours = example(name)

    def keys(value: Any) -> Any:
        return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None

    if keys(json.loads(ours)) != keys(real):
        raise SystemExit(f"the connector's form is {json.dumps(real)}, ours is {ours}")


def example(name: str) -> str:
    """The event of the first row of a snapshot."""
    found = duckdb.execute(f"SELECT {event_sql(name, 'r')} FROM (SELECT 1 AS i, 0 AS n)").fetchall()
    return str(found[0][0])


def event_sql(name: str, op: str, table: str = "sales", *, row: str = "") -> str:
    """SQL of an event of row `i`, the `n`th; `row` is SQL of its image, that of a sale without."""
    transaction = "NULL"
    if op == "u":
        transaction = f"""json_object('id', n // {EACH} || ':' || (n + 1), 'total_order', n % {EACH} + 1,
            'data_collection_order', n % {EACH} + 1)"""
    return _EVENT.format(
        table=table,
        row=row or _ROW.format(more="n % 50" if op == "u" else "0"), name=name, op=op, ts=f"({NOW} + n // 100)",
        snapshot="true" if op == "r" else "false", tx=f"n // {EACH}", lsn="n + 1", transaction=transaction,
    )  # fmt: skip


def snapshot(bootstrap: str, prefix: str, rows: int, table: str = "sales") -> None:
    """Have a topic hold the first snapshot of a table of so many rows."""
    query = f"SELECT json_object('id', i), {event_sql(prefix, 'r', table)} FROM (SELECT n + 1 AS i, n FROM ({{}}))"
    produce(bootstrap, f"{prefix}.public.{table}", rows, query)


def changes(bootstrap: str, prefix: str, rows: int) -> None:
    """Updates of random rows, in transactions of a hundred, and their ENDs."""
    key = f"1 + hash(n) % {rows}"
    query = f"SELECT json_object('id', i), {event_sql(prefix, 'u')} FROM (SELECT ({key})::BIGINT AS i, n FROM ({{}}))"
    produce(bootstrap, f"{prefix}.public.sales", rows, query)
    ended = f"""SELECT json_object('id', n || ':' || (n * {EACH} + {EACH})), json_object('status', 'END',
        'id', n || ':' || (n * {EACH} + {EACH}), 'event_count', {EACH}, 'data_collections',
        [{{'data_collection': 'public.sales', 'event_count': {EACH}}}], 'ts_ms', {NOW} + n) FROM ({{}})"""
    produce(bootstrap, f"{prefix}.transaction", rows // EACH, ended)


def produce(bootstrap: str, topic: str, rows: int, query: str) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 1_000_000, "compression.type": "lz4",
         "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    con = duckdb.connect()
    for low in range(0, rows, CHUNK):
        chunk = f"SELECT n FROM range({low}, {min(low + CHUNK, rows)}) t(n)"
        for key, value in con.execute(query.replace("{}", chunk)).fetchall():
            while True:
                try:
                    producer.produce(topic, value, key, 0)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    if producer.flush(300):
        raise SystemExit(f"{topic}: not all events were taken")
    say(f"{rows:,} events are in {topic}")


def _land(shown: tuple[Table, Table], config: Path, prefix: str, what: str, rows: int) -> None:
    landed, steps = shown
    log = Path(log_path(str(config.parent / "lake"), prefix, TableId("public", "sales")))
    before = len(list(log.glob("_delta_log/*.json")))
    steps.add(f"landing {what}", rows, *_command(config, "sink", "run", "--until-caught-up"))
    commits = list(_commits(log))[before:]
    begun, first = commits[0]
    step = (commits[-1][1] - first) / TENTHS
    tenths = [_rate(commits, first + step * part, first + step * (part + 1)) for part in range(TENTHS)]
    whole = step * TENTHS / max(commits[-1][0] - begun, 1e-3)
    landed.add(what, whole, tenths[0], min(tenths), tenths[-1])


def _commits(log: Path) -> Iterator[tuple[float, int]]:
    """When each commit was, in seconds, and the offset that it came to."""
    offset = 0
    for file in sorted(log.glob("_delta_log/*.json")):
        actions = [json.loads(line) for line in file.read_text().splitlines()]
        offset = max([offset, *(a["txn"]["version"] for a in actions if "txn" in a and "/" in a["txn"]["appId"])])
        if when := next((a["commitInfo"]["timestamp"] for a in actions if "commitInfo" in a), None):
            yield when / 1000, offset


def _rate(commits: list[tuple[float, int]], low: float, high: float) -> float:
    """Events per second between two offsets, the commits being the points of a line."""

    def when(offset: float) -> float:
        for (t0, o0), (t1, o1) in itertools.pairwise(commits):
            if o0 <= offset <= o1 and o1 > o0:
                return t0 + (t1 - t0) * (offset - o0) / (o1 - o0)
        return commits[-1][0]

    return (high - low) / max(when(high) - when(low), 1e-3)


def _command(config: Path, *arguments: str) -> tuple[float, float]:
    """Seconds of a command, and its peak memory in MB."""
    used = measured([sys.executable, "-m", "cdc_lake", "--config", str(config), *arguments])
    return used.seconds, used.peak_mb
