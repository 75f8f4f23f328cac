"""Events on the real parts: scanners to Kafka, orders through an outbox and Debezium, beside captured tables."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.formats.json import JSONFormat
from kafka import KafkaConsumer, TopicPartition

from cdc_lake.consume.send import KafkaSender
from cdc_lake.local.retail.demand import Demand
from cdc_lake.local.retail.loader import connect
from cdc_lake.local.retail.scans import Faults, Scanners
from cdc_lake.local.retail.web import WebShop, create_outbox, write
from tests.events import binary
from tests.integration.conftest import Database, RunningStack, wait_for
from tests.projects import ROOT, Project, make_project

pytestmark = pytest.mark.stack

SHELVES = """CREATE TABLE inventory (store_id int, product_id int, on_hand int, reorder_point int,
    PRIMARY KEY (store_id, product_id))"""
NOON = datetime(2026, 6, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def demand() -> Demand:
    return Demand(5, range(1, 6), range(1, 41))


@pytest.fixture
def project(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    """A captured table, an outbox whose connector is registered, and a topic that scanners write to."""
    database.execute("CREATE TABLE goods (id int PRIMARY KEY, name text)")
    database.execute(SHELVES)
    create_outbox(database.dsn)
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as made:
        name = f"{made.name}-outbox"
        connector = json.loads((ROOT / "examples/retail/connectors/outbox.json").read_text())
        own = f"o{uuid.uuid4().hex[:10]}"
        connector["name"] = name
        connector["config"] |= {"topic.prefix": own, "slot.name": own, "publication.name": own}
        connector["config"]["predicates.isOutbox.pattern"] = rf"{own}\.outbox\.events"
        (made.folder / "connectors" / "outbox.json").write_text(json.dumps(connector))
        settings = yaml.safe_load((made.folder / "cdc-lake.yaml").read_text())
        settings["sources"] = [
            settings.pop("source"),
            {
                "name": "orders",
                "connector": "connectors/outbox.json",
                "dsn": made.dsn,
                "events": {"orders": f"{made.name}-orders"},
            },
            {"name": "warehouse", "events": {"scans": f"{made.name}-scans"}, "idle_seconds": 1},
        ]
        (made.folder / "cdc-lake.yaml").write_text(yaml.safe_dump(settings))
        made.register()
        made.ok("connector", "register", "connectors/outbox.json")
        yield made
        made.ok("connector", "delete", name, "--drop-slot")


def test_orders_of_an_outbox_and_scans_land_beside_the_tables(
    project: Project, database: Database, demand: Demand
) -> None:
    shop = list(WebShop(demand, 0.02).between(NOON, NOON + timedelta(hours=2)))
    with connect(database.dsn) as connection:
        for event in shop:
            write(connection, event, topic=f"{project.name}-orders")
    database.execute("INSERT INTO goods SELECT n, 'x' FROM generate_series(1, 40) n")
    scanners = Scanners(demand, 0.05, Faults(twice=0.05, broken=0.01))
    messages = list(scanners.between(NOON, NOON + timedelta(hours=3)))
    sender = KafkaSender(project.bootstrap, f"{project.name}-scans", {}, partitions=3)
    for message in messages:
        sender.send(message.key, message.value, message.headers)
    sender.flush()
    sender.close()
    wait_for(lambda: len(records(project, f"{project.name}-orders")) == len(shop), "the outbox to be routed")
    kill_and_finish(project)

    orders = project.query("SELECT id, type, partitionkey, correlationid, causationid FROM events.orders")
    assert {o["id"] for o in orders} == {e.id for e in shop}
    by_id = {e.id: e for e in shop}
    for order in orders:
        event = by_id[order["id"]]
        assert (order["type"], order["partitionkey"]) == (event.type, event.order_id)
        assert (order["correlationid"], order["causationid"]) == (event.correlation, event.cause or event.id)
    (total,) = project.query(
        "SELECT sum(total_cents)::BIGINT AS cents, any_value(lines->0->>'product_id') AS p FROM events.orders"
    )
    assert total["cents"] == sum(e.data.get("total_cents", 0) for e in shop)

    broken = scanners.made["broken"]
    assert broken > 0
    assert len(json.loads(project.ok("--json", "dlq", "list"))["dead_letters"]) == broken
    (scans,) = project.query(
        """SELECT (SELECT count(*) FROM events.scans) AS events, count(*) AS messages,
        count(*) FILTER (__op = 'a') AS again FROM changes.events.scans"""
    )
    sent = len([m for m in messages if m.sent < NOON + timedelta(hours=3)])
    assert scans["messages"] == sent - broken
    assert scans["events"] == scans["messages"] - scans["again"]
    assert scans["again"] > 0
    report = project.verify()
    assert report["ok"], report
    status = json.loads(project.ok("--json", "status"))
    assert all(not cut["waits_for"] for cut in status["cut"].values())
    assert {t["table"]: t["lag_records"] for t in status["tables"]}["events.orders"] == 0
    followed(project, scans["events"])
    examined(project)


def scan(project: Project, product: int) -> None:
    """A scanner sees goods leave."""
    data = {"store_id": 1, "product_id": product, "quantity": 2, "change": -2, "scanner_id": "s7"}
    time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    value, headers = binary(uuid.uuid4().hex, data, kind="retail.purchase", time=time)
    sender = KafkaSender(project.bootstrap, f"{project.name}-scans", {}, partitions=3)
    sender.send(f"1/{product}".encode(), value, headers)
    sender.flush()
    sender.close()


def test_goods_that_only_the_till_or_only_a_scanner_knows_of_raise_one_alert_each(
    project: Project, database: Database
) -> None:
    (project.folder / "rules").mkdir()
    for file in (ROOT / "examples" / "retail" / "rules").glob("*.yaml"):
        text = file.read_text()
        for long, short in (("20 minutes", "6 seconds"), ("15 MINUTE", "2 SECOND"), ("30 minutes", "4 seconds")):
            assert long in text
            text = text.replace(long, short)
        (project.folder / "rules" / file.name).write_text(text)
    database.execute("INSERT INTO inventory SELECT 1, n, 9, 3 FROM generate_series(1, 4) n")
    scan(project, 4)
    sink, rules = project.start("sink", "run"), None
    try:
        wait_for(lambda: project.query("SELECT 1 FROM events.scans, inventory LIMIT 1"), "both to land", seconds=180)
        rules = project.start("rules", "run", log_file="rules.log")
        wait_for(lambda: begun(project), "the rules to begin", seconds=180)
        database.execute("UPDATE inventory SET on_hand = 7 WHERE product_id IN (1, 2)")
        scan(project, 1)
        scan(project, 3)
        wait_for(lambda: alerted(project, database), "a first alert", seconds=180)
        rules.send_signal(signal.SIGKILL)
        rules.wait(30)
        rules = project.start("rules", "run", log_file="rules.log")
        wait_for(lambda: len(alerted(project, database)) == 2, "both alerts", seconds=180)
    finally:
        for process in (sink, *([rules] if rules is not None else [])):
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    project.ok("rules", "run", "--until-caught-up")
    assert alerted(project, database) == [("booked_not_scanned", 2), ("scanned_not_booked", 3)]
    listed = json.loads(project.ok("--json", "rules", "list"))["rules"]
    assert all({p["source"] for p in r["positions"]} == {project.name, "warehouse"} for r in listed)


def begun(project: Project) -> bool:
    listed = json.loads(project.ok("--json", "rules", "list"))["rules"]
    return all(r["positions"] for r in listed)


def alerted(project: Project, database: Database) -> list[tuple[str, int]]:
    """The rules and products of all openings of alerts, while a till goes on selling other things."""
    database.execute("INSERT INTO goods SELECT coalesce(max(id), 0) + 1, 'x' FROM goods")
    found = project.query("SELECT rule, key FROM lake.alerts ORDER BY rule, key")
    return [(r["rule"], json.loads(r["key"])["product_id"]) for r in found]


def followed(project: Project, events: int) -> None:
    """A model joins the scans with the captured table."""
    (project.folder / "streams").mkdir()
    (project.folder / "streams" / "named.sql").write_text(
        "SELECT e.id, g.name FROM events.scans e LEFT JOIN current.goods g ON g.id = e.product_id"
    )
    project.ok("stream", "run", "--until-caught-up")
    assert project.query("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM streams.named") == [
        {"n": events, "ids": events}
    ]
    project.ok("stream", "replay", "named", "--dry-run")


def examined(project: Project) -> None:
    """`doctor` finds the topics of events, and nothing wrong but the letters that wait."""
    found = json.loads(project.run("--json", "doctor").stdout)["checks"]
    mine = {c["name"]: c["status"] for c in found if c.get("source") == "warehouse"}
    assert mine["topics.exist"] == "OK", found
    assert mine["topics.expired"] == "OK"
    assert not [c for c in found if c["status"] == "FAIL" and c.get("source") in ("warehouse", "orders")], found


def kill_and_finish(project: Project) -> None:
    """Run the sink, kill it while it lands, and let another one finish."""
    first = project.start("sink", "run")
    try:
        wait_for(lambda: list((project.folder / "lake").glob("*/log/events/*/_delta_log/*.json")), "a first commit")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(30)
    project.ok("sink", "run", "--until-caught-up")


def records(project: Project, topic: str) -> list[BaseCloudEvent]:
    """What is in a topic, as the CNCF's SDK reads it."""
    consumer = KafkaConsumer(bootstrap_servers=project.bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found = []
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for batch in consumer.poll(timeout_ms=1000).values():
                found += batch
        return [sdk.from_kafka(sdk.KafkaMessage(dict(r.headers), r.key, r.value), JSONFormat()) for r in found]
    finally:
        consumer.close()
