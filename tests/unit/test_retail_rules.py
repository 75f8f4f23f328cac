"""The retailer's rules over tills and scanners together: goods that only one of the two knows of."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cdc_lake.land.batches import Batches
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.run import Watch
from tests.events import Warehouse, binary
from tests.shops import NOW, Shop

RULES = Path(__file__).parents[2] / "examples" / "retail" / "rules"


def scan(warehouse: Warehouse, product: int, at: datetime) -> None:
    """A scanner of store 1 sees two pieces leave; Kafka has it three seconds later."""
    data = {"store_id": 1, "product_id": product, "quantity": 2, "change": -2, "scanner_id": "s7"}
    time = at.isoformat().replace("+00:00", "Z")
    message = binary(f"{product} {at}", data, kind="retail.purchase", time=time)
    warehouse.put(message, at=int((at + timedelta(seconds=3)).timestamp() * 1000))


def after(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_goods_that_only_the_till_or_only_a_scanner_knows_of_are_found(tmp_path: Path) -> None:
    shop, warehouse = Shop.open(tmp_path), Warehouse(tmp_path)
    both, sold, scanned, other, first = sorted(p for s, p in shop.rows["inventory"] if s == 1)[:5]
    shop.sell(1, first, 1, at=after(0))
    scan(warehouse, first, after(1))
    warehouse.land()
    watch = Watch(warehouse.config, load_rules(RULES))
    watch.round()
    shop.sell(1, both, 2, at=after(10))
    shop.sell(1, sold, 2, at=after(11))
    scan(warehouse, both, after(9))
    scan(warehouse, both, after(12))
    scan(warehouse, scanned, after(15))
    warehouse.land()
    shop.sell(1, other, 1, at=after(60))
    watch.round()
    assert warehouse.ask("SELECT count(*) FROM lake.alerts") == [(0,)], (
        "a scanner may have seen it, and not said so yet"
    )
    # Nothing is scanned any more: the sink says so.
    Batches(warehouse.config.lake_uri, "warehouse").beat(after(60))
    watch.round(final=True)
    left = shop.rows["inventory"][1, sold]["on_hand"]
    assert warehouse.ask("SELECT rule, severity, state, title FROM lake.alerts ORDER BY rule") == [
        (
            "booked_not_scanned",
            "warning",
            "open",
            f"Shelf 1/{sold} was booked to {left}, and no scanner saw it",
        ),
        (
            "scanned_not_booked",
            "critical",
            "open",
            f"2 of product {scanned} left store 1 past s7, and nothing was booked",
        ),
    ]
    shop.sell(1, scanned, 2, at=after(70))
    Batches(warehouse.config.lake_uri, "warehouse").beat(after(90))
    shop.sell(1, both, 1, at=after(90))
    watch.round(final=True)
    assert ("scanned_not_booked", "resolved") in warehouse.ask("SELECT rule, state FROM lake.alerts")
