"""Inventory: what is on each shelf, what of it is promised to online orders, and what can still be sold.

`free` can be sold in the store or promised; `reserved` is set aside for an order. Neither is ever below zero: a till
that sold what the books do not have leaves a `shortfall`, which the next goods that come make good. So the books do not
depend on whether a late scanner's restock or the sale comes first, and a promise is kept once it is given.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from typing import Any

from cdc_lake.service import Context, Event, Service, serve
from examples.retail.services import scans
from examples.retail.services.topics import ORDERS, SHELVES, shelf_of

TABLES = """
CREATE TABLE shelf (
    shelf TEXT PRIMARY KEY, store_id INTEGER NOT NULL, product_id INTEGER NOT NULL,
    free INTEGER NOT NULL DEFAULT 0 CHECK (free >= 0), reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    shortfall INTEGER NOT NULL DEFAULT 0 CHECK (shortfall >= 0 AND (shortfall = 0 OR free = 0)),
    sold_in_store INTEGER NOT NULL DEFAULT 0, sold_online INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0 CHECK (returned <= sold_in_store + sold_online)
) WITHOUT ROWID;
CREATE INDEX shelf_of_product ON shelf (product_id);
CREATE TABLE reservation (
    order_id TEXT, line_no INTEGER, shelf TEXT NOT NULL, quantity INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'rejected', 'released', 'withdrawn')),
    PRIMARY KEY (order_id, line_no)
) WITHOUT ROWID;
"""
_WHY = {
    "unknown_product": "nothing was ever put there",
    "return_without_purchase": "more would have come back than was sold there",
}


def inventory(version: int = 1) -> Service:
    """The inventory service."""
    service = Service("inventory", (SHELVES.into,), TABLES, version=version, sends_to=(ORDERS,))
    service.on(*scans.TYPES)(scanned)
    service.on("retail.stock.requested")(requested)
    service.on("retail.stock.released")(released)
    service.on("retail.stock.withdrawn")(withdrawn)
    service.get("/stock", combine=_in_order)(stock)
    service.get("/availability", combine=_of_product)(availability)
    service.get("/discrepancies", combine=_in_order)(discrepancies)
    service.get("/reservations")(reservations)
    return service


def scanned(event: Event, context: Context) -> None:
    """Goods came or went."""
    scan = scans.scan_of(event)
    shelf = context.one("SELECT sold_in_store + sold_online AS sold, returned FROM shelf WHERE shelf = ?", scan.shelf)
    code = scans.doubt(event, scan, shelf)
    if code:
        context.reject(code, f"{event.type} of {scan.change} on the shelf {scan.shelf}: {_WHY[code]}")
    if shelf is None:
        names = (scan.shelf, scan.store_id, scan.product_id)
        context.run("INSERT INTO shelf (shelf, store_id, product_id) VALUES (?, ?, ?)", *names)
    if event.type == "retail.return":
        context.run("UPDATE shelf SET returned = returned + ? WHERE shelf = ?", scan.change, scan.shelf)
    elif event.type == "retail.purchase":
        context.run("UPDATE shelf SET sold_in_store = sold_in_store - ? WHERE shelf = ?", scan.change, scan.shelf)
    move(context, scan.shelf, scan.change)


def move(context: Context, shelf: str, change: int) -> None:
    """Change what is free; below zero it is a shortfall, which what comes makes good first."""
    context.run(
        "UPDATE shelf SET free = max(0, free - shortfall + ?1), shortfall = max(0, shortfall - free - ?1)"
        " WHERE shelf = ?2",
        change,
        shelf,
    )


def requested(event: Event, context: Context) -> None:
    """An order asks for goods: they are set aside, or refused. A line gets one answer, however often it asks."""
    order, line, shelf, quantity = wanted(event, context)
    before = context.one("SELECT state FROM reservation WHERE order_id = ? AND line_no = ?", order, line)
    row = context.one("SELECT free, reserved FROM shelf WHERE shelf = ?", shelf)
    free = row["free"] if row else 0
    if before is not None:
        held = before["state"] in ("held", "withdrawn")
    else:
        held = free >= quantity
        state = "held" if held else "rejected"
        context.run("INSERT INTO reservation VALUES (?, ?, ?, ?, ?)", order, line, shelf, quantity, state)
        if held:
            context.run("UPDATE shelf SET free = free - ?1, reserved = reserved + ?1 WHERE shelf = ?2", quantity, shelf)
    answer = {name: event.data[name] for name in ("order_id", "store_id", "product_id", "line_no", "quantity")}
    if held:
        context.emit(ORDERS, "retail.stock.reserved", answer, subject=order)
    else:
        reason = "out_of_stock" if row else "unknown_product"
        context.emit(ORDERS, "retail.stock.rejected", {**answer, "available": free, "reason": reason}, subject=order)


def released(event: Event, context: Context) -> None:
    """A reservation is given back. One that is given back before it was asked for is never made."""
    order, line, shelf, quantity = wanted(event, context)
    row = _turn(context, order, line, "released")
    if row is None:
        context.run("INSERT OR IGNORE INTO reservation VALUES (?, ?, ?, ?, 'released')", order, line, shelf, quantity)
    else:
        context.run("UPDATE shelf SET reserved = reserved - ? WHERE shelf = ?", row["quantity"], row["shelf"])
        move(context, row["shelf"], row["quantity"])


def withdrawn(event: Event, context: Context) -> None:
    """Reserved goods left the house."""
    order, line, shelf, _ = wanted(event, context)
    row = _turn(context, order, line, "withdrawn")
    if row is None:
        context.reject("not_reserved", f"nothing is set aside on {shelf} for line {line} of order {order}")
    context.run(
        "UPDATE shelf SET reserved = reserved - ?1, sold_online = sold_online + ?1 WHERE shelf = ?2",
        row["quantity"],
        row["shelf"],
    )


def _turn(context: Context, order: str, line: int, state: str) -> Mapping[str, Any] | None:
    """End a reservation that is held; None when it is not."""
    row = context.one(
        "SELECT shelf, quantity FROM reservation WHERE order_id = ? AND line_no = ? AND state = 'held'", order, line
    )
    if row is not None:
        context.run("UPDATE reservation SET state = ? WHERE order_id = ? AND line_no = ?", state, order, line)
    return row


def wanted(event: Event, context: Context) -> tuple[str, int, str, int]:
    """Order, line, shelf and quantity of a request."""
    order, line = event.data.get("order_id"), scans.whole(event.data.get("line_no"), "line_no")
    quantity = scans.whole(event.data.get("quantity"), "quantity")
    shelf = shelf_of(event.data.get("store_id", 0), event.data.get("product_id", 0))
    if not isinstance(order, str) or not order or quantity <= 0 or shelf != event.subject:
        context.reject("bad_request", f"order {order!r}, quantity {quantity}, shelf {shelf}, subject {event.subject}")
    return order, line, shelf, quantity


_STOCK = "SELECT store_id, product_id, free + reserved AS on_hand, reserved, free AS available, shortfall,"
_STOCK += " sold_in_store, sold_online, returned FROM shelf"


def stock(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Shelves of a `store`, of a `product`, of both, or all: at most `limit`, a thousand where none is named."""
    wanted = {"store_id": asked.get("store"), "product_id": asked.get("product")}
    given = {name: int(value) for name, value in wanted.items() if value is not None}
    where = " AND ".join(f"{name} = ?" for name in given) or "true"
    limit = int(asked.get("limit", "1000"))
    found = db.execute(f"{_STOCK} WHERE {where} ORDER BY 1, 2 LIMIT ?", (*given.values(), limit))
    return [dict(row) for row in found]


def availability(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Where a `product` can be had now."""
    found = db.execute(
        "SELECT product_id, store_id, free AS available FROM shelf WHERE product_id = ? AND free > 0",
        (int(asked["product"]),),
    )
    return [dict(row) for row in found]


def _of_product(asked: Mapping[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row: how much can be had online (from any store), and in which stores."""
    stores = sorted(rows, key=lambda row: -row["available"])
    return [
        {
            "product_id": int(asked["product"]),
            "online": sum(row["available"] for row in rows),
            "stores": [{"store_id": row["store_id"], "available": row["available"]} for row in stores],
        }
    ]


def discrepancies(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Shelves of which more was sold than the books had."""
    return [dict(row) for row in db.execute(f"{_STOCK} WHERE shortfall > 0")]


def reservations(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """What is set aside for an `order`."""
    found = db.execute("SELECT * FROM reservation WHERE order_id = ? ORDER BY line_no", (asked["order"],))
    return [dict(row) for row in found]


def _in_order(asked: Mapping[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["store_id"], row["product_id"]))[: int(asked.get("limit", "1000"))]


if __name__ == "__main__":
    sys.exit(serve(inventory(), merges=[SHELVES]))
