"""Promise: who was erased is in no byte of the lake, and neither redelivery nor replay brings them back.

On the real parts, while people trade, a sink lands, and the connector is restarted.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from tests.integration.conftest import wait_for
from tests.projects import Project
from tests.unit.test_erase import holding

pytestmark = pytest.mark.stack

CANARY, PERSON = "CANARY-4711", 990_001
LINKS = {
    "*.*": {},
    "public.orders": {"belongs_to": {"customer_id": "public.customers"}},
    "public.order_lines": {"belongs_to": {"order_id": "public.orders"}},
}
# The row's life: all that it was goes into the log, also what its delete says of it.
LIFE = (
    "ALTER TABLE customers REPLICA IDENTITY FULL",
    f"INSERT INTO customers (customer_id, first_name, last_name, email, city, joined_at) "
    f"VALUES ({PERSON}, 'Jane', 'Doe', '{CANARY}@a', 'X', now())",
    f"UPDATE customers SET email = '{CANARY}@b' WHERE customer_id = {PERSON}",
    f"INSERT INTO orders (order_id, store_id, customer_id, channel, status, total, placed_at, note) "
    f"SELECT {PERSON}, store_id, {PERSON}, channel, status, 1, now(), '{CANARY} at the door' FROM orders LIMIT 1",
    f"DELETE FROM orders WHERE order_id = {PERSON}",
    f"DELETE FROM customers WHERE customer_id = {PERSON}",
)


@pytest.fixture
def shop(project: Project) -> Iterator[Project]:
    """A shop whose sink runs all the time."""
    create_schema(project.dsn)
    load(project.dsn, Size.for_rows(800))
    file = project.folder / "cdc-lake.yaml"
    file.write_text(file.read_text() + yaml.safe_dump({"tables": LINKS}))
    project.register()
    project.ok("sink", "run", "--until-caught-up")
    project.ok("fold")
    sink = project.start("sink", "run")
    try:
        yield project
    finally:
        sink.send_signal(signal.SIGTERM)
        assert sink.wait(60) == 0, project.log()


def execute(project: Project, *statements: str) -> None:
    with psycopg.connect(project.dsn, autocommit=True) as con:
        for statement in statements:
            con.execute(statement.encode())


@contextmanager
def trade(project: Project) -> Iterator[None]:
    """People trade meanwhile."""
    workload, over = Workload(project.dsn, seed=11), threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            workload.perform("sale")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def records(project: Project, *topics: str) -> list[Any]:
    """All that Kafka has of some topics."""
    consumer = KafkaConsumer(bootstrap_servers=project.bootstrap, enable_auto_commit=False)
    try:
        partitions = [
            TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(f"{project.name}.{t}") or ()
        ]
        partitions = [TopicPartition(f"{project.name}.{tp.topic}", tp.partition) for tp in partitions]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends, found = consumer.end_offsets(partitions), []
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            found += [r for part in consumer.poll(timeout_ms=1000).values() for r in part]
        return found
    finally:
        consumer.close()


def deliver_again(project: Project, old: list[Any]) -> None:
    """The connector's records once more, at new offsets, as after a crash that lost its position."""
    producer = KafkaProducer(bootstrap_servers=project.bootstrap)
    for record in old:
        producer.send(record.topic, record.value, key=record.key, headers=record.headers, partition=record.partition)
    producer.flush()
    producer.close()


def landed(project: Project) -> None:
    """Wait until a transaction that is committed now is within the cut."""
    with psycopg.connect(project.dsn, autocommit=True) as con:
        row = con.execute(
            "UPDATE stores SET area_m2 = area_m2 + 1 WHERE store_id = 1 RETURNING pg_current_xact_id()::text"
        ).fetchone()
    assert row is not None
    wanted = f"SELECT count(*)::INT AS n FROM changes.public.stores WHERE __tx_id = '{row[0]}'"
    stalled = "SELECT stalled FROM lake.cut"
    wait_for(
        lambda: project.query(wanted)[0]["n"] == 1 and not project.query(stalled)[0]["stalled"],
        "the change to land",
        seconds=120,
    )


def check(project: Project) -> None:
    """The lake equals the source."""
    report = project.verify()
    assert report["ok"], [t["examples"] for t in report["tables"] if t["missing"] or t["extra"] or t["different"]]


def erase(project: Project, key: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.ok("--json", "erase", "customers", str(key), "--now"))
    return found


def test_an_erased_person_is_in_no_byte_and_is_not_brought_back(shop: Project) -> None:
    execute(shop, *LIFE)
    topic = f"{shop.name}.public.customers"
    producer = KafkaProducer(bootstrap_servers=shop.bootstrap)
    broken = f'{{"op": "c", "after": {{"customer_id": {PERSON}, "email": "{CANARY}'.encode()
    producer.send(topic, broken, key=f'{{"customer_id":{PERSON}}}'.encode()).get(timeout=30)
    producer.close()
    landed(shop)
    assert holding(shop.folder, CANARY)
    sent = records(shop, "public.customers", "public.orders", "transaction")
    # No connector sends rows of a snapshot once more behind what followed it.
    old = [r for r in sent if r.value is None or b'"op":"r"' not in r.value]
    with trade(shop):
        report = erase(shop, PERSON)
    assert {t["table"] for t in report["tables"]} == {"public.customers", "public.orders"}
    assert (len(report["dead_letters"]), report["in_source"]) == (1, False)
    assert holding(shop.folder, CANARY) == []
    assert shop.query(report["proof"]) == [{"current": 0, "history": 0, "changes": 0}]

    check(shop)
    shop.ok("connector", "restart", shop.name)
    deliver_again(shop, old)
    landed(shop)
    # The broken record is the last of its topic that was delivered again.
    wait_for(lambda: json.loads(shop.ok("--json", "dlq", "list"))["dead_letters"], "the broken record to land")
    assert shop.run("dlq", "replay", "--all").returncode != 0
    assert [h for h in holding(shop.folder, CANARY) if "dead_letters" not in h] == []
    erase(shop, PERSON)
    assert holding(shop.folder, CANARY) == []
    for table in ("customers", "orders"):
        shop.ok("rebuild", f"public.{table}")
    check(shop)
    assert holding(shop.folder, CANARY) == []


def test_verify_tells_an_erased_row_from_a_missing_one_and_a_new_row_lands(shop: Project) -> None:
    landed(shop)
    with psycopg.connect(shop.dsn) as con:
        without = "SELECT customer_id FROM customers c WHERE NOT EXISTS ({}) ORDER BY 1 LIMIT 2"
        orders = "SELECT 1 FROM orders o WHERE o.customer_id = c.customer_id"
        (first,), (second,) = con.execute(without.format(orders).encode()).fetchall()
    assert erase(shop, first)["in_source"] is True
    for _ in range(2):
        report = shop.verify()
        table = next(t for t in report["tables"] if t["table"] == "public.customers")
        assert (report["ok"], table["missing"], table["erased"]) == (True, 0, 1), table
        assert shop.run("verify", "--repair", "public.customers").returncode == 0
    execute(shop, f"UPDATE customers SET city = 'elsewhere' WHERE customer_id = {first}")
    landed(shop)
    assert erase(shop, first)["in_source"] is True
    execute(shop, f"DELETE FROM customers WHERE customer_id IN ({first}, {second})")
    columns = "customer_id, first_name, last_name, email, city, joined_at"
    execute(shop, f"INSERT INTO customers ({columns}) VALUES ({first}, 'New', 'Row', 'new@row', 'X', now())")
    landed(shop)
    shop.ok("fold")
    found = shop.query(f"SELECT first_name FROM customers WHERE customer_id = {first}")
    assert found == [{"first_name": "New"}]
    report = shop.verify()
    table = next(t for t in report["tables"] if t["table"] == "public.customers")
    assert (report["ok"], table["erased"]) == (True, 0), table
