"""Tills that write to a database and send no events: a sale becomes a row, a scan, and at last a purchase order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from cdc_lake.config import load_config
from cdc_lake.land.layout import stream_path
from cdc_lake.react.stream.modelfile import load_model
from cdc_lake.react.stream.run import Streams
from cdc_lake.service import Event, Trial
from examples.retail.services.reordering import reordering
from examples.retail.services.tills import tills
from tests.shops import NOW, Shop

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "retail" / "streams" / "shelf_changes.sql"
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def row(number: int, on_hand: int, sold: int | None = None) -> Event:
    """A row of the model, as `stream run` sends it."""
    order = {"order_id": 100 + number, "sold": sold, "unit_price_cents": 250} if sold else {}
    origin = {"transaction": f"{800 + number}", "lsn": 9, "topic": "pos.public.inventory", "partition": 0}
    data = {"store_id": 7, "product_id": 42, "on_hand": on_hand, **order, **origin, "offset": number}
    type = "cdc-lake.stream.shelf_changes"
    return Event(f"row-{number}", "/cdc-lake/pos/streams/shelf_changes", type, data, time=AT)


def told(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.type, event.data["change"]) for event in events]


def test_a_sale_is_told_from_what_else_happens_on_a_shelf_by_its_order(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path)
    store, product = next(k for k, r in sorted(shop.rows["inventory"].items()) if r["on_hand"] > 5)
    sold_at = NOW + timedelta(hours=1)

    def move(change: int, at: datetime) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        left = shop.rows["inventory"][store, product]["on_hand"] + change
        return "inventory", (store, product), {"on_hand": left, "updated_at": at}

    order, line = max(shop.rows["orders"])[0] + 1, next(iter(shop.rows["order_lines"].values()))
    placed = {**next(iter(shop.rows["orders"].values())), "order_id": order, "store_id": store, "placed_at": sold_at}
    taken = {**line, "order_id": order, "line_no": 1, "product_id": product, "quantity": 3, "unit_price": 2}
    shop.change(("orders", (order,), placed), ("order_lines", (order, 1), taken), move(-3, sold_at))
    shop.change(move(-1, sold_at + timedelta(minutes=1)))  # somebody has counted
    shop.change(move(24, sold_at + timedelta(minutes=2)))
    config = load_config(shop.config)
    Streams(config, [load_model(MODEL)]).round(final=True)
    found = DeltaTable(stream_path(config.lake_uri, "pos", MODEL.stem)).to_pyarrow_table().to_pylist()
    found.sort(key=lambda r: int(r["__position"]))
    assert [(r["order_id"], r["sold"], r["unit_price_cents"]) for r in found] == [
        (order, 3, 200),
        (None, None, None),
        (None, None, None),
    ]
    assert {(r["store_id"], r["product_id"]) for r in found} == {(store, product)}
    assert [r["transaction"] for r in found] == ["00001", "00002", "00003"]


def test_a_till_sends_one_scan_for_a_change_and_first_what_was_there() -> None:
    with Trial(tills()) as trial:
        first = trial.handle(row(1, 8, sold=2), at=AT)
        assert told(first) == [("retail.adjustment", 10), ("retail.purchase", -2)]
        assert told(trial.handle(row(2, 7), at=AT)) == [("retail.adjustment", -1)]
        assert told(trial.handle(row(3, 31), at=AT)) == [("retail.restock", 24)]
        assert told(trial.handle(row(4, 31), at=AT)) == []
        assert told(trial.handle(row(3, 31), at=AT)) == []  # sent again
        assert trial.letters == []
    purchase = first[-1]
    assert {e.subject for e in first} == {"7/42"}
    assert (purchase.causation_id, purchase.correlation_id) == ("row-1", "row-1")
    assert purchase.data["receipt"] == "101"
    assert purchase.data["offset"] == 1
    assert purchase.data["transaction"] == "801"


def test_a_till_that_hears_of_a_new_shelf_says_what_was_put_there() -> None:
    with Trial(tills()) as trial:
        assert told(trial.handle(row(1, 24), at=AT)) == [("retail.adjustment", 24)]
        assert told(trial.handle(row(2, 20, sold=4), at=AT)) == [("retail.purchase", -4)]


def test_a_sale_of_the_last_pieces_ends_in_one_purchase_order_that_names_its_beginning() -> None:
    with Trial(tills()) as shop, Trial(reordering()) as books:
        scans = shop.handle(row(1, 0, sold=5), at=AT)
        orders = [order for scan in scans for order in books.handle(scan, at=AT)]
        again = [order for scan in scans for order in books.handle(scan, at=AT)]
    assert [order.type for order in orders] == ["retail.reorder.requested"]
    assert again == []
    (order,) = orders
    assert order.data["on_hand"] == 0 < order.data["threshold"]
    assert (order.causation_id, order.correlation_id) == (scans[-1].id, "row-1")


def test_a_row_that_contradicts_itself_is_a_dead_letter() -> None:
    with Trial(tills()) as trial:
        wrong = Event("x", "/s", "cdc-lake.stream.shelf_changes", {"store_id": "7"}, time=AT)
        assert trial.handle(wrong, at=AT) == []
        assert [letter["code"] for letter in trial.letters] == ["bad_scan"]
