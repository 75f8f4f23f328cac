"""Throughput of `sink run --until-caught-up` on real Debezium events, beside what users would write, in one run.

For plain JSON and for JSON with inline schema it prints, in events per second: raw consumption without decoding with
both clients, the naive loop (kafka-python, json.loads, write_deltalake per 10,000), and the sink with both clients,
with its peak resident memory. The events are a table's initial snapshot and a tenth of it updated, by the real
connector. All of it is on one machine: read the ratios, not the rates.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo
import pyarrow as pa
from confluent_kafka import Consumer
from deltalake import write_deltalake
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from benchmarks.report import say, wait
from cdc_lake.capture.connect import ConnectClient
from cdc_lake.consume.confluent import FETCH
from cdc_lake.local.stack import Stack

ROOT = Path(__file__).parents[1]
TABLE = """CREATE TABLE sales (id bigint PRIMARY KEY, store int NOT NULL, sku text NOT NULL, quantity int NOT NULL,
    price numeric(10,2) NOT NULL, sold_at timestamptz NOT NULL, channel text NOT NULL, note text)"""
FILL = """INSERT INTO sales SELECT i, i %% 400, 'SKU-' || lpad((i %% 5000)::text, 8, '0'), 1 + i %% 7,
    (i %% 9999) / 100.0, '2026-01-01'::timestamptz + i * interval '1 second', CASE WHEN i %% 3 = 0 THEN 'online' ELSE
    'pos' END, md5(i::text) FROM generate_series(1, %s) i"""
Row = dict[str, Any]


def run(ends: Any, _stack: Stack, rows: int) -> None:
    name = f"bench{uuid.uuid4().hex[:8]}"
    try:
        results = measure(ends, name, rows)
    finally:
        remove(ends, name)
    show(results)


def measure(ends: Any, name: str, rows: int) -> list[Row]:
    dsn = database(ends.dsn, name, rows)
    results: list[Row] = []
    for form in ("plain", "inline"):
        prefix = f"{name}_{form}"
        capture(ends, dsn, prefix, inline=form == "inline", rows=rows)
        topic = f"{prefix}.public.sales"
        events = end_offset(ends.bootstrap, topic)
        results.append(row(form, "raw consume", "confluent", *raw(raw_confluent, ends.bootstrap, topic, events)))
        results.append(row(form, "raw consume", "kafka-python", *raw(raw_kafka_python, ends.bootstrap, topic, events)))
        results.append(
            row(form, "naive loop", "kafka-python", *raw(naive, ends.bootstrap, topic, min(events, 300_000)))
        )
        for client in ("confluent", "kafka-python"):
            seconds, cpu, rss = sink(ends, prefix, client)
            more = {"peak_rss_mb": rss, "cpu_us": cpu / events * 1e6}
            results.append({**row(form, "sink run", client, events, seconds), **more})
    return results


def database(dsn: str, name: str, rows: int) -> str:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    own = dsn.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(own, autocommit=True) as con:
        con.execute(TABLE)
        con.execute(FILL, (rows * 10 // 11,))
        con.execute("CREATE PUBLICATION bench FOR TABLE sales")
    return own


def capture(ends: Any, dsn: str, prefix: str, *, inline: bool, rows: int) -> None:
    """Have the connector write snapshot and updates; wait until all are in the topic."""
    topic = f"{prefix}.public.sales"
    with ConnectClient(ends.connect_url) as client:
        client.put_config(prefix, settings(dsn, prefix, inline=inline))
        snapshot = rows * 10 // 11
        wait(lambda: end_offset(ends.bootstrap, topic) >= snapshot, f"{form_name(inline)}: snapshot")
        with psycopg.connect(dsn, autocommit=True) as con:
            con.execute("UPDATE sales SET quantity = quantity + 1 WHERE id % 10 = 0")
        wait(lambda: end_offset(ends.bootstrap, topic) >= snapshot + snapshot // 10, f"{form_name(inline)}: updates")
        client.delete(prefix)


def settings(dsn: str, prefix: str, *, inline: bool) -> dict[str, str]:
    """The shipped connector's settings for the table of the benchmark."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    config = json.loads((ROOT / "connectors" / "pos.json").read_text())["config"]
    own = ("signal", "heartbeat", "database.sslmode")
    return {k: v for k, v in config.items() if not k.startswith(own)} | {
        "topic.prefix": prefix,
        "slot.name": prefix,
        "publication.name": "bench",
        "table.include.list": "public.sales",
        "database.hostname": parts["host"],
        "database.port": str(parts["port"]),
        "database.dbname": parts["dbname"],
        "database.user": parts["user"],
        "database.password": parts["password"],
        "value.converter.schemas.enable": str(inline).lower(),
        "key.converter.schemas.enable": str(inline).lower(),
    }


def form_name(inline: bool) -> str:
    return "inline" if inline else "plain"


def end_offset(bootstrap: str, topic: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, allow_auto_create_topics=False)
    try:
        if topic not in consumer.topics():
            return 0
        tp = TopicPartition(topic, 0)
        return int(consumer.end_offsets([tp])[tp])
    finally:
        consumer.close()


def raw_confluent(bootstrap: str, topic: str, events: int) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **FETCH,  # with librdkafka's own defaults a full queue waits for a second: a fifth of the rate
        }
    )
    consumer.subscribe([topic])
    seen = 0
    while seen < events:
        seen += sum(len(m.value() or b"") > 0 for m in consumer.consume(10_000, timeout=1.0))
    consumer.close()


def kafka_python(bootstrap: str, topic: str) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
        max_poll_records=10_000,
    )
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    return consumer


def raw_kafka_python(bootstrap: str, topic: str, events: int) -> None:
    consumer = kafka_python(bootstrap, topic)
    seen = 0
    while seen < events:
        seen += sum(len(records) for records in consumer.poll(timeout_ms=1000).values())
    consumer.close()


def naive(bootstrap: str, topic: str, events: int) -> None:
    """What one writes on the first afternoon."""
    folder = tempfile.mkdtemp(prefix="cdc-lake-naive-")
    consumer = kafka_python(bootstrap, topic)
    batch: list[Row] = []
    seen = 0
    while seen < events:
        for records in consumer.poll(timeout_ms=1000).values():
            for record in records:
                value = json.loads(record.value)
                payload = value.get("payload", value)
                image = payload["after"] or {}
                batch.append({"op": payload["op"], "lsn": payload["source"]["lsn"], "offset": record.offset, **image})
                seen += 1
                if len(batch) == 10_000:
                    write_deltalake(f"{folder}/t", pa.Table.from_pylist(batch), mode="append")
                    batch.clear()
    if batch:
        write_deltalake(f"{folder}/t", pa.Table.from_pylist(batch), mode="append")
    consumer.close()
    shutil.rmtree(folder)


def sink(ends: Any, prefix: str, client: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak RSS (MB) of a whole `cdc-lake sink run --until-caught-up` process."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-sink-"))
    (folder / "c.json").write_text(
        json.dumps(
            {
                "name": prefix,
                "config": {
                    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
                    "topic.prefix": prefix,
                    "provide.transaction.metadata": "true",
                },
            }
        )
    )
    (folder / "cdc-lake.yaml").write_text(
        f"source: {{name: {prefix}{client.replace('-', '')}, connector: c.json, dsn: '{ends.dsn}'}}\n"
        f"kafka: {{bootstrap: '{ends.bootstrap}', client: {client}}}\nconnect: {{url: '{ends.connect_url}'}}\n"
    )
    before = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "cdc_lake", "-q", "sink", "run", "--until-caught-up"], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - before
    shutil.rmtree(folder)
    if status:
        raise SystemExit(f"the sink ended with status {status}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def raw(work: Callable[[str, str, int], None], bootstrap: str, topic: str, events: int) -> tuple[int, float]:
    before = time.monotonic()
    work(bootstrap, topic, events)
    return events, time.monotonic() - before


def row(form: str, what: str, client: str, events: int, seconds: float) -> Row:
    say(f"{form} · {what} · {client}: {events / seconds:,.0f}/s")
    return {"form": form, "what": what, "client": client, "events": events, "per_second": events / seconds}


def remove(ends: Any, name: str, forms: Sequence[str] = ("plain", "inline")) -> None:
    """Take away connectors, slots, database and topics that begin with `name`."""
    with psycopg.connect(ends.dsn, autocommit=True) as admin:
        for form in forms:
            with ConnectClient(ends.connect_url) as client:
                if client.find_status(f"{name}_{form}") is not None:
                    client.delete(f"{name}_{form}")
            wait(lambda form=form: drop_slot(admin, f"{name}_{form}"), f"the slot of {form}'s removal", 60)
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    admin_client = KafkaAdminClient(bootstrap_servers=ends.bootstrap)
    topics = [t for t in admin_client.list_topics() if t.startswith(name)]
    if topics:
        admin_client.delete_topics(topics)
    admin_client.close()


def drop_slot(admin: psycopg.Connection[Any], slot: str) -> bool:
    found = admin.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
    if found is None:
        return True
    if not found[0]:
        admin.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        return True
    return False


def show(results: list[Row]) -> None:
    for form in ("plain", "inline"):
        mine = [r for r in results if r["form"] == form]
        rates = {(r["what"], r["client"]): r["per_second"] for r in mine}
        print(f"\n{form} JSON")
        for r in mine:
            of_raw = r["per_second"] / rates["raw consume", r["client"]]
            of_naive = r["per_second"] / rates["naive loop", "kafka-python"]
            memory = f"  peak RSS {r['peak_rss_mb']:,.0f} MB, {r['cpu_us']:.1f} µs CPU each" if "cpu_us" in r else ""
            print(
                f"  {r['what']:12} {r['client']:13} {r['per_second']:>10,.0f}/s  {of_raw:5.2f} x raw  "
                f"{of_naive:5.1f} x naive{memory}"
            )
