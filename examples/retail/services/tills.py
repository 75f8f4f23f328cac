"""What the shops' database says of its shelves, as scans: for shops whose tills write to a database and send no events.

It reads the rows of the streaming model `shelf_changes` (streams/shelf_changes.sql). Each change of a shelf is one
scan, which names the row as its cause. Of a shelf that it hears of for the first time it sends what was there before,
too: whoever keeps books begins them with that.
"""

from __future__ import annotations

import sys
from typing import Any

from cdc_lake.service import Context, Event, Service, serve
from examples.retail.services.scans import whole
from examples.retail.services.topics import SCANS, SHELF_CHANGES, shelf_of

TABLES = "CREATE TABLE shelf (shelf TEXT PRIMARY KEY, on_hand INTEGER NOT NULL) WITHOUT ROWID"
# Handed on with each scan: its transaction, and the place in the log where the change is found again.
_ORIGIN = ("transaction", "lsn", "topic", "partition", "offset")


def tills(version: int = 1) -> Service:
    """The tills, and whatever else writes to the shops' database."""
    service = Service("tills", (SHELF_CHANGES,), TABLES, version=version, sends_to=(SCANS,))
    service.on("cdc-lake.stream.shelf_changes")(changed)
    return service


def changed(event: Event, context: Context) -> None:
    """A shelf holds more, or less, than before."""
    store, product, now = (whole(event.data.get(n), n) for n in ("store_id", "product_id", "on_hand"))
    sold = None if event.data.get("sold") is None else whole(event.data["sold"], "sold")
    shelf = shelf_of(store, product)
    known = context.one("SELECT on_hand FROM shelf WHERE shelf = ?", shelf)
    # PostgreSQL names the old row's key only: what was there before a first sale follows from what was sold.
    before = known["on_hand"] if known is not None else now + (sold or 0)
    context.run("INSERT OR REPLACE INTO shelf VALUES (?, ?)", shelf, now)
    common = {"store_id": store, "product_id": product, "scanner_id": "till"}
    if known is None and before:
        opening = {**common, "quantity": before, "change": before, "reason": "found"}
        context.emit(SCANS, "retail.adjustment", opening, subject=shelf)
    if change := now - before:
        type, more = _kind(event, change)
        scan = {**common, "quantity": abs(change), "change": change, **more}
        context.emit(SCANS, type, {**scan, **{n: event.data.get(n) for n in _ORIGIN}}, subject=shelf)


def _kind(event: Event, change: int) -> tuple[str, dict[str, Any]]:
    """The type of a change's event, and what that type has to say."""
    if change > 0:
        return "retail.restock", {"purchase_order_id": None}
    if event.data.get("order_id") is None:
        return "retail.adjustment", {"reason": "stocktake"}
    price = event.data.get("unit_price_cents")
    return "retail.purchase", {"receipt": str(event.data["order_id"]), "unit_price_cents": price}


if __name__ == "__main__":
    sys.exit(serve(tills()))
