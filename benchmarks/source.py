"""A table of sales in PostgreSQL and its events in Kafka, by the real connector, for the benchmarks that need them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from benchmarks.report import wait
from cdc_lake.capture.connect import ConnectClient

ROOT = Path(__file__).parents[1]
TABLE = """CREATE TABLE sales (id bigint PRIMARY KEY, store int NOT NULL, sku text NOT NULL, quantity int NOT NULL,
    price numeric(10,2) NOT NULL, sold_at timestamptz NOT NULL, channel text NOT NULL, note text)"""
FILL = """INSERT INTO sales SELECT i, i %% 400, 'SKU-' || lpad((i %% 5000)::text, 8, '0'), 1 + i %% 7,
    (i %% 9999) / 100.0, '2026-01-01'::timestamptz + i * interval '1 second', CASE WHEN i %% 3 = 0 THEN 'online' ELSE
    'pos' END, md5(i::text) FROM generate_series(1, %s) i"""


@contextmanager
def captured(ends: Any, rows: int, forms: Sequence[str]) -> Iterator[str]:
    """A name that the topics `<name>_<form>.public.sales` begin with: `rows` events in each, removed afterwards."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    try:
        dsn = database(ends.dsn, name, rows)
        for form in forms:
            capture(ends, dsn, f"{name}_{form}", inline=form == "inline", rows=rows)
        yield name
    finally:
        remove(ends, name, forms)


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
        wait(lambda: end_offset(ends.bootstrap, topic) >= snapshot, f"{prefix}: snapshot")
        with psycopg.connect(dsn, autocommit=True) as con:
            con.execute("UPDATE sales SET quantity = quantity + 1 WHERE id % 10 = 0")
        wait(lambda: end_offset(ends.bootstrap, topic) >= snapshot + snapshot // 10, f"{prefix}: updates")
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


def project(
    ends: Any,
    folder: Path,
    dsn: str,
    prefix: str,
    *,
    name: str | None = None,
    metadata: bool = True,
    client: str = "confluent",
    more: str = "",
) -> Path:
    """Write the project of a sink of the topics that begin with `prefix`, without a connector of its own; its
    configuration, to which `more` YAML is added. `name` is that of the source: the prefix, if none is given."""
    folder.mkdir(exist_ok=True)
    connector = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "topic.prefix": prefix,
        "provide.transaction.metadata": str(metadata).lower(),
    }
    (folder / "c.json").write_text(json.dumps({"name": prefix, "config": connector}))
    file = folder / "cdc-lake.yaml"
    file.write_text(
        f"source: {{name: {name or prefix}, connector: c.json, dsn: '{dsn}'}}\n"
        f"kafka: {{bootstrap: '{ends.bootstrap}', client: {client}}}\nconnect: {{url: '{ends.connect_url}'}}\n{more}"
    )
    return file


def end_offset(bootstrap: str, topic: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, allow_auto_create_topics=False)
    try:
        if topic not in consumer.topics():
            return 0
        tp = TopicPartition(topic, 0)
        return int(consumer.end_offsets([tp])[tp])
    finally:
        consumer.close()


def remove(ends: Any, name: str, forms: Sequence[str]) -> None:
    """Take away connectors, slots, database and topics that begin with `name`."""
    with psycopg.connect(ends.dsn, autocommit=True) as admin:
        for form in forms:
            with ConnectClient(ends.connect_url) as client:
                if client.find_status(f"{name}_{form}") is not None:
                    client.delete(f"{name}_{form}")
            wait(partial(drop_slot, admin, f"{name}_{form}"), f"the slot of {form}'s removal", 60)
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
