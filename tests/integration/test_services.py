"""The retailer's services on a real Kafka: killed, three at once, upgraded, rebuilt, and one of them away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaConsumer, TopicPartition

from cdc_lake.service import Event
from cdc_lake.service.event import decode, encode
from cdc_lake.service.outlet import KafkaOutlet
from tests.integration.conftest import RunningStack, wait_for

pytestmark = pytest.mark.stack

POINTS = (
    "service:before-commit",
    "service:after-commit",
    "service:after-send",
    "service:after-forget",
    "service:after-mark",
    "merge:after-send",
    "merge:after-mark",
)

ROOT = Path(__file__).parents[2]
PRODUCTS = 8
_RUN = "import sys; from cdc_lake.service import serve; "
_RUN += "from examples.retail.services.{module} import {module} as s{more}; "
_RUN += "sys.exit(serve(s({version}), merges={merges}))"


@dataclass
class Process:
    """An instance, and where it answers."""

    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> dict[str, Any]:
        """What it answers."""
        found: dict[str, Any] = httpx.get(f"{self.url}{path}", timeout=10).json()
        return found

    def stop(self) -> None:
        """End it as an operator does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()


@dataclass
class Shop:
    """A retailer with topics of its own on the stack's Kafka."""

    bootstrap: str
    folder: Path
    topics: str
    outlet: KafkaOutlet
    processes: list[Process] = field(default_factory=list)
    number: int = 0

    def start(self, module: str, *arguments: str, version: int = 1, crash: str = "") -> Process:
        """A service as a process."""
        own = module in ("inventory", "reordering")
        more = "; from examples.retail.services.topics import SHELVES" if own else ""
        code = _RUN.format(module=module, version=version, more=more, merges="[SHELVES]" if own else "[]")
        if module == "payments":
            code = code.replace("services.payments", "services.partners")
        command = [sys.executable, "-c", code, "--bootstrap", self.bootstrap, "--state", str(self.folder / "state")]
        environment = {**os.environ, "RETAIL_TOPICS": self.topics, "CDC_LAKE_CRASH_AT": crash, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*command, "--partitions", "3", *arguments],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{module} ended with {process.wait()}"
        self.processes.append(Process(process, json.loads(line)["url"]))
        return self.processes[-1]

    def ends(self, *arguments: str, version: int = 1) -> subprocess.CompletedProcess[str]:
        """The inventory as a process that ends by itself."""
        code = _RUN.format(module="inventory", version=version, more="", merges="[]")
        return subprocess.run(
            [sys.executable, "-c", code, "--bootstrap", self.bootstrap, *arguments],
            env={**os.environ, "RETAIL_TOPICS": self.topics, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def replay(self, *arguments: str) -> dict[str, int]:
        """Send the inventory's dead letters again."""
        done = self.ends("--replay", *arguments)
        assert done.returncode == 0, done.stderr
        sent: dict[str, int] = json.loads(done.stdout)["replayed"]
        return sent

    def send(self, topic: str, *events: Event) -> None:
        """Send events to a topic of this retailer."""
        self.outlet.send([encode(f"{self.topics}.{topic}", event) for event in events])

    def scan(self, type: str, product: int, change: int) -> Event:
        """A scan in store 1."""
        self.number += 1
        data = {"store_id": 1, "product_id": product, "quantity": abs(change), "change": change, "receipt": "r"}
        data |= {"unit_price_cents": 100, "purchase_order_id": None}
        return Event(
            f"s{self.number}", "/scanner", f"retail.{type}", data, subject=f"1/{product}", time=datetime.now(UTC)
        )

    def order(self, name: str, product: int, quantity: int) -> Event:
        """An order of one line."""
        line = {"line_no": 1, "product_id": product, "quantity": quantity, "unit_price_cents": 100}
        data = {"order_id": name, "store_id": 1, "customer_id": None, "lines": [line], "total_cents": quantity * 100}
        return Event(name, "/outbox", "retail.order.placed", data, subject=name, time=datetime.now(UTC))

    def events(self, topic: str) -> list[Event]:
        """All that is in a topic."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        try:
            name = f"{self.topics}.{topic}"
            places = [TopicPartition(name, n) for n in range(3)]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            found: list[Event] = []
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(timeout_ms=500).values():
                    for r in records:
                        found.append(decode(json.dumps({k: v.decode() for k, v in r.headers}), r.value))
            return found
        finally:
            consumer.close()


@pytest.fixture
def shop(stack: RunningStack, tmp_path: Path) -> Iterator[Shop]:
    name = f"shop{uuid.uuid4().hex[:8]}"
    with contextlib.closing(KafkaOutlet(stack.bootstrap)) as outlet:
        outlet.ensure([f"{name}.{topic}" for topic in ("scans", "orders", "stock", "reorders", "shelves")], 3)
        made = Shop(stack.bootstrap, tmp_path, name, outlet)
        try:
            yield made
        finally:
            for process in made.processes:
                if process.process.poll() is None:
                    process.kill()


def stock_of(process: Process) -> dict[int, int] | None:
    """What an instance says is free of each product; None while it does not answer for all partitions."""
    answer = process.get("/stock")
    return None if answer["stale"] else {row["product_id"]: row["available"] for row in answer["rows"]}


def states(process: Process) -> Counter[str]:
    """How many orders are in which state."""
    return Counter({row["state"]: row["orders"] for row in process.get("/summary")["rows"]})


def test_three_instances_that_are_killed_lose_nothing_and_the_rebuilt_one_sends_nothing_again(shop: Shop) -> None:
    """Orders and sales while instances die; then the state is deleted and comes back from the log."""
    expected = dict.fromkeys(range(PRODUCTS), 40)
    shop.send("scans", *(shop.scan("restock", product, 40) for product in range(PRODUCTS)))
    first = shop.start("inventory", crash="service:after-send:2")
    second = shop.start("inventory", "--peer", first.url)
    shop.start("orders")
    shop.start("payments")
    for n in range(24):
        product = n % PRODUCTS
        shop.send("scans", shop.scan("purchase", product, -1))
        sold = shop.scan("purchase", product, -1)
        shop.send("scans", sold, sold)
        shop.send("orders", shop.order(f"o{n}", product, 2))
        expected[product] -= 4
        if n == 6:
            first.kill()  # unless it came to send a second time, and died there
        if n == 12:
            second.kill()
            second = shop.start("inventory", "--peer", first.url)
    third = shop.start("inventory", "--peer", second.url)
    fourth = shop.start("inventory", "--peer", second.url, "--peer", third.url)
    saga = shop.processes[2]
    wait_for(lambda: states(saga)["shipped"] + states(saga)["rejected"] == 24, "all orders to end", seconds=180)
    declined = states(saga)["rejected"]
    for row in saga.get("/orders?state=rejected")["rows"]:
        assert row["reason"] == "payment_failed"
        expected[row["lines"][0]["product_id"]] += 2
    assert first.process.poll() == -signal.SIGKILL
    wait_for(lambda: stock_of(fourth) == expected, "three instances to agree with the model", seconds=120)
    reserved = shop.events("orders")
    distinct = {(e.source, e.id): e.type for e in reserved}
    assert Counter(distinct.values())["retail.stock.reserved"] == 24
    assert Counter(distinct.values())["retail.order.shipped"] == 24 - declined
    for process in (second, third, fourth):
        process.stop()
    count = len(shop.events("orders"))
    shutil.rmtree(shop.folder / "state" / "inventory-v1")
    anew = shop.start("inventory")
    wait_for(lambda: stock_of(anew) == expected, "the rebuilt inventory to agree", seconds=120)
    anew.stop()
    assert len(shop.events("orders")) == count


def test_a_new_version_takes_over_and_while_the_inventory_is_away_the_others_answer(shop: Shop) -> None:
    """Version 2 fills itself beside version 1, refuses to send while that runs, and goes on where it stopped."""
    shop.send("scans", *(shop.scan("restock", product, 40) for product in range(PRODUCTS)))
    old, saga = shop.start("inventory"), shop.start("orders")
    shop.start("payments")
    shop.send("orders", *(shop.order(f"a{n}", n % PRODUCTS, 1) for n in range(8)))
    wait_for(
        lambda: states(saga).total() == states(saga)["shipped"] + states(saga)["rejected"] == 8, "the first orders"
    )
    new = shop.start("inventory", "--no-send", version=2)
    wait_for(lambda: new.get("/readyz")["ready"] and stock_of(new) == stock_of(old), "version 2 to be filled")
    refused = shop.ends("--state", str(shop.folder / "other"), version=2)
    assert refused.returncode == 1
    assert "inventory-v1 still runs" in refused.stderr
    old.stop()
    new.stop()
    shop.send("orders", *(shop.order(f"b{n}", n % PRODUCTS, 1) for n in range(8)))
    wait_for(lambda: states(saga)["reserving"] == 8, "the others to answer while the inventory is away")
    assert saga.get("/summary")["stale"] is False
    new = shop.start("inventory", version=2)

    def ended() -> bool:
        now = states(saga)
        return now.total() == now["shipped"] + now["rejected"] == 16

    wait_for(ended, "all orders to end", seconds=120)
    assert states(saga)["shipped"]
    answers = Counter((e.data["order_id"], e.type) for e in shop.events("orders") if e.type == "retail.stock.reserved")
    assert answers == {(f"{letter}{n}", "retail.stock.reserved"): 1 for letter in "ab" for n in range(8)}


def test_a_process_that_is_killed_at_any_step_is_mended_by_the_next_start(shop: Shop) -> None:
    """Requests are answered once, and goods counted once, though each process dies at another step."""
    shop.send("scans", shop.scan("restock", 0, 100))
    for n, crash in enumerate(POINTS):
        data = {"order_id": f"o{n}", "store_id": 1, "product_id": 0, "line_no": 1, "quantity": 1}
        request = Event(f"r{n}", "/services/orders", "retail.stock.requested", data, subject="1/0")
        shop.send("stock", request)
        killed = shop.start("inventory", crash=crash)
        assert killed.process.wait(60) == -signal.SIGKILL, crash
    last = shop.start("inventory")

    def handled() -> bool:
        answer, readiness = last.get("/stock"), last.get("/readyz")
        assert stock_of(last) == {0: 100 - len(POINTS)}, f"{answer} {readiness}"
        return True

    wait_for(handled, "all requests to be handled")
    last.stop()
    answers = {(e.source, e.id): e.data["order_id"] for e in shop.events("orders")}
    assert sorted(answers.values()) == [f"o{n}" for n in range(len(POINTS))]


def test_dead_letters_are_sent_again_once_by_the_command_of_their_service(shop: Shop) -> None:
    inventory = shop.start("inventory")
    shop.send("scans", Event("s0", "/scanner", "retail.restock", {"nothing": 1}, subject="1/0", time=datetime.now(UTC)))

    def letters() -> int:
        return len(inventory.get("/dead-letters")["rows"])

    wait_for(lambda: letters() == 1, "the dead letter")
    there = {f"{shop.topics}.shelves": 1}
    assert shop.replay("--dry-run") == there
    assert shop.replay() == there
    wait_for(lambda: letters() == 2, "it to fail again")
    assert shop.replay("--dry-run") == there
    inventory.stop()
