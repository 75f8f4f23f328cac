"""The retailer's services agree with a simple model of the log, whatever dies: stock, sagas, reorders."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.events import RecordBatch
from cdc_lake.service import Context, Event, Service, Trial, evaluated
from cdc_lake.service.answers import Answering
from cdc_lake.service.event import Malformed, decode
from cdc_lake.service.past import before
from cdc_lake.service.run import Runner
from cdc_lake.service.shard import records
from examples.retail.services.inventory import inventory
from examples.retail.services.reordering import reordering
from examples.retail.services.topics import ORDERS, REORDERS, SHELVES
from tests.retail_world import Member, Retailer
from tests.service_world import World, rows, settle

SEEDS = int(os.environ.get("SEEDS", "0")) // 200 or 4


class Model:
    """The books of a shop as a person would keep them: one event after the other, in dictionaries."""

    def __init__(self) -> None:
        self.book: dict[str, int] = {}
        self.sold: Counter[str] = Counter()
        self.returned: Counter[str] = Counter()
        self.held: dict[tuple[str, int], tuple[str, int]] = {}
        self.answered: dict[tuple[str, int], bool] = {}
        self.seen: set[tuple[str, str]] = set()

    def see(self, event: Event) -> None:
        """Count an event once; one that was refused may come again."""
        if (event.source, event.id) not in self.seen and self._take(event):
            self.seen.add((event.source, event.id))

    def _take(self, event: Event) -> bool:
        """Whether it was believed."""
        data, shelf = event.data, event.subject
        name = event.type.removeprefix("retail.")
        if name in ("purchase", "restock", "return", "adjustment", "transfer"):
            return self._scan(name, shelf, data)
        if name == "stock.requested":
            key = (data["order_id"], data["line_no"])
            if key not in self.answered:
                self.answered[key] = self.book.get(shelf, 0) >= data["quantity"]
                if self.answered[key]:
                    self.held[key] = (shelf, data["quantity"])
                    self.book[shelf] -= data["quantity"]
        elif name == "stock.released":
            if (key := (data["order_id"], data["line_no"])) in self.held:
                at, quantity = self.held.pop(key)
                self.book[at] += quantity
            self.answered.setdefault(key, False)
        elif name == "stock.withdrawn":
            at, quantity = self.held.pop((data["order_id"], data["line_no"]))
            self.sold[at] += quantity
        return True

    def _scan(self, name: str, shelf: str, data: Any) -> bool:
        change = data["change"]
        if name in ("purchase", "restock", "return") and (change < 0) != (name == "purchase"):
            return False
        if shelf not in self.book and (name == "return" or (change < 0 and name != "adjustment")):
            return False
        if name == "return":
            if self.returned[shelf] + change > self.sold[shelf]:
                return False
            self.returned[shelf] += change
        if name == "purchase":
            self.sold[shelf] -= change
        self.book[shelf] = self.book.get(shelf, 0) + change
        return True


def in_order(world: World, topic: str) -> list[Event]:
    """Each event of a topic once: as a reader counts them, who drops what is too far ahead."""
    seen: dict[tuple[str, str], Event] = {}
    for event in world.events_of(topic):
        if event.time is None or event.time.year < 2030:
            seen.setdefault((event.source, event.id), event)
    return list(seen.values())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_services_keep_their_books_whatever_dies(seed: int, tmp_path: Path) -> None:
    retailer = Retailer.open(World(tmp_path), random.Random(seed))
    retailer.trade(260)
    retailer.finish()
    check_stock(retailer)
    check_sagas(retailer)
    check_agreement(retailer)
    check_reorders(retailer)


def check_stock(retailer: Retailer) -> None:
    """What the inventory says is what the log says; nothing is promised any more, and nothing is below zero."""
    model = Model()
    for partition in retailer.world.partitions_of(SHELVES.into):
        model.seen.clear()  # one identity in two partitions is two events: each shelf knows its own
        for event in partition:
            if event.time is None or event.time.year < 2030:
                model.see(event)
    found = [row for one in retailer.running("inventory") for row in rows(one, "/stock")]
    assert {f"{r['store_id']}/{r['product_id']}": r["on_hand"] - r["shortfall"] for r in found} == model.book
    assert model.held == {}
    for row in found:
        assert row["on_hand"] >= 0
        assert row["reserved"] == 0
        assert row["shortfall"] == 0 or row["available"] == 0


def check_sagas(retailer: Retailer) -> None:
    """Each order ended once, shipped or rejected; money that was taken for nothing went back."""
    events = in_order(retailer.world, ORDERS)
    placed = {e.subject for e in events if e.type == "retail.order.placed"}
    ended: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event.type in ("retail.order.shipped", "retail.order.rejected"):
            ended[event.subject].append(event.type)
    assert {order: len(how) for order, how in ended.items()} == dict.fromkeys(placed, 1)
    by = {t: {e.subject for e in events if e.type == f"retail.{t}"} for t in
          ("order.shipped", "order.rejected", "payment.captured", "payment.refund_requested")}  # fmt: skip
    assert by["order.shipped"] <= by["payment.captured"]
    assert by["payment.captured"] - by["order.shipped"] == by["payment.refund_requested"]
    assert by["order.shipped"]
    assert by["order.rejected"]
    roots = {e.id for e in events if e.type in ("retail.order.placed", "retail.order.cancelled")}
    assert {e.correlation for e in events} <= roots


def check_agreement(retailer: Retailer) -> None:
    """Those who fold the same log have the same books."""
    found = [row for one in retailer.running("inventory") for row in rows(one, "/stock")]
    for one in retailer.running("reordering"):
        for held in one.held.values():
            theirs = dict(held.shard.db.execute("SELECT shelf, stock FROM shelf").fetchall())
            ours = {f"{r['store_id']}/{r['product_id']}": r["available"] - r["shortfall"] for r in found}
            assert theirs == {shelf: ours[shelf] for shelf in theirs}


def check_reorders(retailer: Retailer) -> None:
    """The reorders are those of one undisturbed reader of the log: none is lost, none is doubled."""
    asked = [e for e in in_order(retailer.world, REORDERS) if e.type == "retail.reorder.requested"]
    numbers = Counter(e.data["purchase_order_id"] for e in asked)
    assert set(numbers.values()) <= {1}
    expected: list[Event] = []
    for partition in retailer.world.logs(SHELVES.into):
        with Trial(reordering()) as trial:
            expected += trial.follow(partition)
    assert {e.id: e.data for e in asked} == {e.id: e.data for e in expected}
    for events in retailer.world.partitions_of(SHELVES.into):
        check_one_at_a_time(events)
    for one in retailer.running("reordering"):
        for held in one.held.values():
            empty = held.shard.db.execute("SELECT shelf FROM shelf WHERE stock < 2 AND on_order = 0").fetchall()
            assert [shelf for (shelf,) in empty] == []


def check_one_at_a_time(log: list[Event]) -> None:
    """An order of a shelf is caused by what came after the goods of the one before had arrived."""
    places: dict[str, int] = {}
    arrived: dict[str, int] = {}
    for place, event in enumerate(log):
        places.setdefault(event.id, place)
        if event.type == "retail.restock" and event.data.get("purchase_order_id"):
            arrived.setdefault(event.data["purchase_order_id"], place)
    for event in log:
        if event.type == "retail.reorder.requested":
            shelf, number = event.data["purchase_order_id"].rsplit("-", 1)
            if number != "1":
                assert arrived[f"{shelf}-{int(number) - 1}"] <= places[event.causation_id]


def test_stock_at_any_past_moment_is_what_the_inventory_said_then(tmp_path: Path) -> None:
    """Asked while it trades, and of the log afterwards: by position, by time, and by adding the log up."""
    retailer = Retailer.open(World(tmp_path), random.Random(5))
    shop = retailer.running("inventory")[0]
    for other in retailer.running("inventory")[1:]:
        other.close()
    retailer.members = [m for m in retailer.members if m.running is shop or m.service is None or m.slot > 2]
    retailer.stock_up()
    said: list[tuple[dict[str, int], dict[str, int], datetime]] = []
    for n in range(40):
        retailer.happen(n / 4)
        settle([m.running for m in retailer.members if m.running is not None])
        answer = Answering(shop).ask(shop.service.routes["/stock"], {}, alone=False)
        offsets = {tp: place["offset"] for tp, place in answer["as_of"].items()}
        said.append((on_hand(answer["rows"]), offsets, retailer.world.last_time(SHELVES.into)))
    log = retailer.world.logs(SHELVES.into)
    for stock, offsets, moment in said[::9]:
        for places, at in ((None, moment), (offsets, None)):
            found: dict[str, int] = {}
            for batch in log:
                upto = places[str(batch.tp)] if places else None
                copies = shop.folder if upto else None
                with evaluated(inventory(), batch.tp, [batch], upto=upto, at=at, copies=copies) as db:
                    found |= on_hand(answered(db))
            assert found == stock
        model = Model()
        for batch in log:
            model.seen.clear()
            for event in events_in(before(batch, offsets[str(batch.tp)], None)):
                if event.time is None or event.time.year < 2030:
                    model.see(event)
        held = Counter[str]()
        for shelf, quantity in model.held.values():
            held[shelf] += quantity
        assert {shelf: max(0, book) + held[shelf] for shelf, book in model.book.items()} == stock


@pytest.mark.parametrize("seed", range(2))
def test_a_read_model_that_is_added_later_has_all_of_the_past_and_joins_without_gap_or_double(
    seed: int, tmp_path: Path
) -> None:
    """It begins in the middle of trading, is killed while it fills itself, and ends with each scan counted once."""
    chance = random.Random(seed)
    retailer = Retailer.open(World(tmp_path), chance)
    retailer.trade(120)
    late = Service(
        "popularity", (SHELVES.into,), "CREATE TABLE sold (shelf TEXT PRIMARY KEY, times INTEGER, pieces INTEGER)"
    )

    @late.on("retail.purchase")
    def sold(event: Event, context: Context) -> None:
        context.run(
            "INSERT INTO sold VALUES (?1, 1, ?2) ON CONFLICT DO UPDATE SET times = times + 1, pieces = pieces + ?2",
            *(event.subject, event.data["quantity"]),
        )

    members = [Member(late, slot) for slot in (20, 21)]
    for member in members:
        retailer.begin(member)
    retailer.members += members
    retailer.trade(60)
    retailer.finish()
    found: Counter[str] = Counter()
    for member in members:
        assert isinstance(member.running, Runner)
        for held in member.running.held.values():
            found.update(dict(held.shard.db.execute("SELECT shelf, times FROM sold").fetchall()))
    expected: Counter[str] = Counter()
    for partition in retailer.world.partitions_of(SHELVES.into):
        bought = [e for e in partition if e.type == "retail.purchase" and e.time and e.time.year < 2030]
        expected.update(e.subject for e in {(e.source, e.id): e for e in reversed(bought)}.values())
    assert found == expected


def on_hand(found: list[dict[str, Any]]) -> dict[str, int]:
    """What is on each shelf."""
    return {f"{row['store_id']}/{row['product_id']}": row["on_hand"] for row in found}


def answered(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """The answer of an inventory's tables."""
    return inventory().routes["/stock"].answer({}, db)


def events_in(batch: RecordBatch) -> list[Event]:
    """The events of a batch."""
    found = []
    for record in records(batch):
        with contextlib.suppress(Malformed):
            found.append(decode(record.headers, record.value))
    return found
