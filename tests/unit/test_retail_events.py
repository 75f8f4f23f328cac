"""The made-up retailer's events: the same from the same seed, shaped like trade, and as bad as scanners are."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from cdc_lake.consume.columns import header_json, record_batch
from cdc_lake.decode.cloudevents import EventDecoder
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.local.retail.demand import Demand
from cdc_lake.local.retail.scans import Message, Scanners
from cdc_lake.local.retail.web import WebShop

TUESDAY = datetime(2026, 6, 2, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def demand() -> Demand:
    return Demand(7, range(1, 11), range(1, 201))


@pytest.fixture(scope="module")
def week(demand: Demand) -> list[Message]:
    return list(Scanners(demand, rate=0.02).between(TUESDAY, TUESDAY + WEEK))


def attributes(message: Message) -> dict[str, str]:
    return {name.removeprefix("ce_"): value.decode() for name, value in message.headers}


def whole(messages: list[Message]) -> list[tuple[dict[str, str], dict[str, object]]]:
    """Those that can be read: attributes and data."""
    found = []
    for message in messages:
        own = attributes(message)
        if "source" in own and message.value.endswith(b"}"):
            found.append((own, json.loads(message.value)))
    return found


def test_a_seed_is_one_world_however_it_is_cut(demand: Demand, week: list[Message]) -> None:
    assert list(Scanners(demand, rate=0.02).between(TUESDAY, TUESDAY + WEEK)) == week
    assert [m.sent for m in week] == sorted(m.sent for m in week)
    other = Demand(8, range(1, 11), range(1, 201))
    assert list(Scanners(other, rate=0.02).between(TUESDAY, TUESDAY + timedelta(hours=12))) != week[:100]


def test_trade_follows_hour_weekday_season_and_promotions(demand: Demand) -> None:
    night, noon = TUESDAY.replace(hour=3), TUESDAY.replace(hour=12)
    saturday, advent = noon + timedelta(days=4), datetime(2026, 12, 15, 12, tzinfo=UTC)
    assert demand.level(night) == 0 < demand.level(night, online=True)
    assert demand.level(saturday) > 1.5 * demand.level(noon)
    assert demand.level(advent) > 1.5 * demand.level(noon)
    hours = [TUESDAY + timedelta(hours=h) for h in range(24 * 364)]
    for online in (False, True):
        assert sum(demand.level(h, online=online) for h in hours) / len(hours) == pytest.approx(1, abs=0.15)
    (promotion, *_) = demand.promotions(TUESDAY.date())
    inside = datetime.combine(promotion.first, noon.timetz())
    assert demand.price_cents(promotion.product, inside) == promotion.price_cents
    assert demand.price_cents(promotion.product, inside - WEEK * 3) > promotion.price_cents


def test_stock_adds_up_and_never_falls_below_nothing(demand: Demand) -> None:
    scanners = Scanners(demand, rate=0.02)
    messages = list(scanners.between(TUESDAY, TUESDAY + WEEK))
    changes: dict[tuple[int, int], int] = defaultdict(int)
    fresh = Scanners(demand, rate=0.02)
    for own, data in {own["id"]: (own, data) for own, data in whole(messages)}.values():
        assert own["subject"] == f"{data['store_id']}/{data['product_id']}"
        assert abs(int(str(data["change"]))) == data["quantity"]
        changes[int(str(data["store_id"])), int(str(data["product_id"]))] += int(str(data["change"]))
    waiting = {
        json.loads(m.value)["receipt"] for _, _, m in scanners._out if b"receipt" in m.value and m.value[-1:] == b"}"
    }
    for shelf, change in changes.items():
        now = scanners.on_hand(*shelf)
        assert now >= 0
        if not waiting and not scanners._out:
            assert fresh.on_hand(*shelf) + change == now


def test_scanners_are_as_bad_as_scanners_are(week: list[Message]) -> None:
    read = whole(week)
    assert len(read) < len(week), "some are broken"
    ids = Counter(own["id"] for own, _ in read)
    assert max(ids.values()) > 1, "some come twice"
    late = [m.sent - datetime.fromisoformat(attributes(m)["time"]) for m in week if "time" in attributes(m)]
    assert max(late) > timedelta(hours=1)
    assert min(late) < -timedelta(minutes=30) or all(x > -timedelta(minutes=30) for x in late)
    sequences = Counter((own["source"], own["sequence"]) for own, _ in {o["id"]: (o, d) for o, d in read}.values())
    kinds = Counter(own["type"] for own, _ in read)
    assert set(kinds) == {f"retail.{k}" for k in ("purchase", "restock", "return", "transfer", "adjustment")}
    assert max(sequences.values()) > 1, "counters begin again"
    causes = {own["id"] for own, _ in read}
    returns = [own for own, _ in read if own["type"] == "retail.return"]
    assert any(own.get("causationid") in causes for own in returns)
    assert any("causationid" not in own for own in returns), "some are returns of nothing"
    pairs = Counter(own["correlationid"] for own, _ in read if own["type"] == "retail.transfer")
    assert max(pairs.values()) >= 2


def test_the_sink_reads_them_all_but_the_broken_ones(week: list[Message]) -> None:
    count = len(week)
    batch = record_batch(
        TopicPartition("retail.scans", 0),
        0,
        count,
        offsets=range(count),
        timestamps=[int(m.sent.timestamp() * 1000) for m in week],
        keys=[m.key for m in week],
        values=[m.value for m in week],
        headers=[header_json(m.headers) for m in week],
    )
    decoded = EventDecoder({"retail.scans": TableId("events", "scans")}, threads=1).decode([batch])
    (part,) = decoded.tables
    ops = Counter(part.rows["__op"].to_pylist())
    read = whole(week)
    assert ops["c"] == len({own["id"] for own, _ in read})
    assert ops["c"] + ops["a"] == len(read)
    assert len(decoded.dead) == count - len(read)


def test_orders_have_lines_that_add_up_and_some_are_called_off(demand: Demand) -> None:
    orders = list(WebShop(demand, rate=0.02, customers=[1, 2, 3]).between(TUESDAY, TUESDAY + timedelta(days=1)))
    placed = {o.order_id: o for o in orders if o.type == "retail.order.placed"}
    assert len(placed) > 500
    for order in placed.values():
        assert order.data["total_cents"] == sum(x["quantity"] * x["unit_price_cents"] for x in order.data["lines"])
        assert order.correlation == order.id
    cancelled = [o for o in orders if o.type == "retail.order.cancelled"]
    assert cancelled
    assert all(o.cause == placed[o.order_id].id and o.at > placed[o.order_id].at for o in cancelled)
