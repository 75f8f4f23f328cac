"""Analytics agrees with a simple count of the logs: sales, baskets, turnover, and what empty shelves cost."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.service import Event, Rejected, Trial
from cdc_lake.service.run import Runner
from examples.retail.services import scans
from examples.retail.services.analytics import analytics, hour_of
from examples.retail.services.topics import ORDERS, RECEIPTS, SHELVES
from tests.retail_world import Retailer
from tests.service_world import Crashing, Killed, World, rows, settle

AT = datetime(2023, 10, 1, 8, tzinfo=UTC)
LATER = AT + timedelta(days=2)
NEVER = 1 << 30
HOUR = 3600


def scan(number: int, kind: str, change: int, *, hours: float = 0, product: int = 5, **more: Any) -> Event:
    data = {"store_id": 2, "product_id": product, "quantity": abs(change), "change": change, **more}
    at = AT + timedelta(hours=hours)
    return Event(f"e{number}", "/stores/2/scanners/1", f"retail.{kind}", data, subject=f"2/{product}", time=at)


def sold(number: int, pieces: int, receipt: str, cents: int = 200, **more: Any) -> Event:
    return scan(number, "purchase", -pieces, receipt=receipt, unit_price_cents=cents, **more)


# --- by hand


def test_a_sale_and_what_comes_back_are_counted_in_their_hour_at_the_price_that_was_paid() -> None:
    with Trial(analytics()) as trial:
        for event in (
            sold(1, 3, "r1"),
            sold(2, 1, "r1", 900, product=6),
            sold(3, 2, "r2", 250, hours=1),
            sold(1, 3, "r1"),  # sent again
            scan(4, "return", 1, hours=2, receipt="r1"),
        ):
            trial.handle(event, at=LATER)
        assert trial.letters == []
        by_hour = {r["hour"]: (r["pieces"], r["cents"]) for r in trial.ask("/sales", by="hour")}
        assert by_hour == {
            "2023-10-01T08:00:00Z": (4, 1500),
            "2023-10-01T09:00:00Z": (2, 500),
            "2023-10-01T10:00:00Z": (-1, -200),
        }
        assert sum(r["cents"] for r in trial.ask("/sales", since="2023-10-01T09:00:00Z")) == 300
        (found,) = trial.ask("/baskets")
        assert (found["baskets"], found["lines"], found["pieces"], found["cents"]) == (2, 3, 6, 2000)
        assert (found["mean_pieces"], found["mean_cents"]) == (3.0, 1000.0)


@pytest.mark.parametrize(("product", "pieces"), [(6, 1), (5, 4)])
def test_what_was_not_bought_does_not_come_back(product: int, pieces: int) -> None:
    with Trial(analytics()) as trial:
        trial.handle(sold(1, 3, "r1"), at=LATER)
        trial.handle(scan(2, "return", pieces, product=product, receipt="r1"), at=LATER)
        assert [letter["code"] for letter in trial.letters] == ["return_without_purchase"]
        assert [r["pieces"] for r in trial.ask("/sales")] == [3]


def test_an_order_is_a_sale_when_it_is_shipped_and_what_was_refused_is_a_loss() -> None:
    def of_order(number: int, kind: str, data: dict[str, Any], hours: float = 0) -> Event:
        return Event(f"o{number}", "/shop", kind, data, subject="order-1", time=AT + timedelta(hours=hours))

    lines = [{"line_no": n, "product_id": n, "quantity": 2, "unit_price_cents": 100 * n} for n in (1, 2)]
    line = {"order_id": "order-1", "line_no": 2, "store_id": 2, "product_id": 2, "quantity": 2}
    with Trial(analytics(), topic=ORDERS) as trial:
        trial.handle(
            of_order(1, "retail.order.placed", {"order_id": "order-1", "store_id": 2, "lines": lines}), at=LATER
        )
        assert trial.ask("/sales") == []
        trial.handle(of_order(2, "retail.stock.rejected", line), at=LATER)
        trial.handle(of_order(3, "retail.stock.rejected", line), at=LATER)  # the same line, asked for again
        assert trial.ask("/refused") == [{"store_id": 2, "product_id": 2, "lines": 1, "cents": 400}]
        trial.handle(of_order(4, "retail.order.shipped", {"order_id": "order-1"}, hours=5), at=LATER)
        (found,) = trial.ask("/sales", by="channel,hour")
        assert found == {"channel": "online", "hour": "2023-10-01T13:00:00Z", "pieces": 4, "cents": 600}


def test_an_empty_shelf_costs_what_its_filled_hours_would_have_sold_meanwhile() -> None:
    with Trial(analytics(), topic=SHELVES.into) as trial:
        for event in (
            scan(1, "restock", 10),
            sold(2, 4, "r1", hours=5),
            sold(3, 6, "r2", hours=10),
            scan(4, "restock", 10, hours=15),
            sold(5, 1, "r3", hours=20),
        ):
            trial.handle(event, at=LATER)
        (found,) = trial.ask("/stockouts")
        assert (found["empty_times"], found["empty_seconds"], found["empty_now"]) == (1, 5 * HOUR, False)
        # 11 pieces in 15 filled hours, 5 hours without, 2.00 each.
        assert found["lost_cents"] == round(11 / 15 * 5 * 200)
        (turns,) = trial.ask("/turnover", product="5")
        mean = (10 * 5 + 6 * 5 + 0 * 5 + 10 * 5) / 20
        assert turns["mean_stock"] == mean
        assert turns["turns_per_year"] == round(11 / mean * 31_557_600 / (20 * HOUR), 3)
        trial.handle(sold(6, 9, "r4", hours=21), at=LATER)
        assert [r["empty_now"] for r in trial.ask("/stockouts")] == [True]


def test_what_is_known_of_no_shelf_opens_none() -> None:
    with Trial(analytics(), topic=SHELVES.into) as trial:
        trial.handle(sold(1, 1, "r1"), at=LATER)
        assert [letter["code"] for letter in trial.letters] == ["unknown_product"]
        assert trial.ask("/turnover", product="5") == []


# --- against a count of the logs


def believed(world: World, topic: str) -> Iterator[tuple[int, Event]]:
    """The events of each partition; what is dated years ahead is no one's."""
    for number, partition in enumerate(world.partitions_of(topic)):
        yield from ((number, e) for e in partition if e.time is None or e.time.year < 2030)


def sales_in(world: World) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]], Counter[str]]:
    """Pieces and cents by (store, product, hour, channel), and baskets by channel, as a person would add them up."""
    pieces, cents = Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()
    bought = dict[tuple[int, str, int], list[int]]()  # price, sold, returned
    seen, receipts = set[tuple[int, str, str]](), set[str]()

    def add(key: tuple[Any, ...], many: int, price: int) -> None:
        pieces[key] += many
        cents[key] += many * price

    for at, event in believed(world, RECEIPTS.into):
        try:
            found = scans.scan_of(event)
        except Rejected:
            continue
        if (at, event.source, event.id) in seen:
            continue
        of = (at, event.data["receipt"], found.product_id)
        key = (found.store_id, found.product_id, hour_of(found.time), "store")
        if event.type == "retail.purchase":
            price = event.data["unit_price_cents"]
            bought.setdefault(of, [price, 0, 0])[1] -= found.change
            add(key, -found.change, price)
            receipts.add(event.data["receipt"])
        elif of in bought and bought[of][2] + found.change <= bought[of][1]:
            bought[of][2] += found.change
            add(key, -found.change, bought[of][0])
        else:
            continue
        seen.add((at, event.source, event.id))
    orders = online(world, add)
    return pieces, cents, Counter({"store": len(receipts), "online": orders})


def online(world: World, add: Any) -> int:
    lines, shipped, seen = defaultdict[str, list[Any]](list), 0, set[tuple[int, str, str]]()
    for at, event in believed(world, ORDERS):
        if (at, event.source, event.id) in seen:
            continue
        seen.add((at, event.source, event.id))
        if event.type == "retail.order.placed":
            lines[event.subject] += [(event.data["store_id"], line) for line in event.data["lines"]]
        elif event.type == "retail.order.shipped":
            shipped += 1
            hour = hour_of(scans.happened(event))
            for store, line in lines[event.subject]:
                add((store, line["product_id"], hour, "online"), line["quantity"], line["unit_price_cents"])
    return shipped


def summed(found: list[dict[str, Any]], names: tuple[str, ...], value: str) -> Counter[tuple[Any, ...]]:
    total = Counter[tuple[Any, ...]]()
    for row in found:
        total[tuple(row[n] for n in names)] += row[value]
    return total


@pytest.mark.parametrize("seed", range(3))
def test_a_service_that_comes_later_counts_all_that_was_before_whatever_dies(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    retailer = Retailer.open(World(tmp_path), chance)
    retailer.trade(160)
    retailer.finish()
    world = retailer.world

    def begin(slot: int) -> Runner:
        return world.instance(analytics(), slot, wall=lambda: retailer.wall)

    running, merging = [begin(0), begin(1)], world.merging(RECEIPTS)
    for _ in range(60):
        slot = chance.randrange(2)
        with Crashing(chance.randint(1, 60) if chance.random() < 0.3 else NEVER):
            try:
                merging.step(0)
                running[slot].step(0)
            except Killed:
                world.kill(running[slot])
                running[slot] = begin(slot)
                world.kill(merging)
                merging = world.merging(RECEIPTS)
    settle([merging, *running])
    names = ("store_id", "product_id", "hour", "channel")
    found = [row for one in running for row in rows(one, "/sales", by="store,product,hour,channel")]
    pieces, cents, baskets = sales_in(world)
    assert {k for k in pieces if k[3] == "online"}, "nothing was sold online"
    assert summed(found, names, "pieces") == pieces
    assert summed(found, names, "cents") == cents
    counted = [row for one in running for row in rows(one, "/baskets")]
    assert summed(counted, ("channel",), "baskets") == Counter({(k,): n for k, n in baskets.items() if n})
