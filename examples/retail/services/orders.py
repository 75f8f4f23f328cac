"""Online orders: the saga of each, order → reserve → pay → ship; what fails is undone, step by step.

::

    placed ──▶ reserving ──all lines reserved──▶ paying ──captured──▶ shipped
                   │ a line rejected                │ failed
                   │ cancelled, or no answer        │ cancelled, or no answer
                   └──────────────┬─────────────────┘
                                  ▼
                              rejected: what was reserved is released; what was or will be captured goes back

Each step is an event that others answer, whenever they do. What is answered after the order has failed is undone when
it comes. So each order ends shipped or rejected with nothing reserved and nothing owed.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cdc_lake.service import Context, Event, Rejected, Service, serve
from examples.retail.services.scans import whole
from examples.retail.services.topics import ORDERS, STOCK, shelf_of

PATIENCE = timedelta(minutes=30)
TABLES = """
CREATE TABLE orders (
    order_id TEXT PRIMARY KEY, store_id INTEGER NOT NULL, total_cents INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserving', 'paying', 'shipped', 'rejected')),
    reason TEXT, payment_id TEXT, refunded INTEGER NOT NULL DEFAULT 0, placed_at TEXT NOT NULL, changed_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX orders_by_state ON orders (state);
CREATE TABLE lines (
    order_id TEXT, line_no INTEGER, product_id INTEGER NOT NULL, quantity INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asked', 'reserved', 'rejected', 'released', 'withdrawn')),
    PRIMARY KEY (order_id, line_no)
) WITHOUT ROWID;
"""
Row = Mapping[str, Any]


def orders(version: int = 1) -> Service:
    """The service of online orders."""
    service = Service("orders", (ORDERS,), TABLES, version=version, sends_to=(STOCK,))
    service.on("retail.order.placed")(placed)
    service.on("retail.order.cancelled")(cancelled)
    service.on("retail.stock.reserved")(reserved)
    service.on("retail.stock.rejected")(refused)
    service.on("retail.payment.captured")(captured)
    service.on("retail.payment.failed")(unpaid)
    service.on("retail.order.expired")(expired)
    service.get("/orders")(answer)
    service.get("/summary", combine=_summed)(summary)
    return service


def placed(event: Event, context: Context) -> None:
    """Ask the shelf of each line to set the goods aside."""
    order, store, total, lines = checked(event)
    if context.one("SELECT 1 FROM orders WHERE order_id = ?", order):
        context.reject("order_again", f"order {order} was placed before, by another event")
    at = event.came_at.isoformat()
    context.run("INSERT INTO orders VALUES (?, ?, ?, 'reserving', NULL, NULL, 0, ?, ?)", order, store, total, at, at)
    for number, product, quantity in lines:
        context.run("INSERT INTO lines VALUES (?, ?, ?, ?, 'asked')", order, number, product, quantity)
        line = {"line_no": number, "product_id": product, "quantity": quantity}
        _tell_shelf(context, "requested", {"order_id": order, "store_id": store}, line)
    _expect(event, context, order, "reserving")


def checked(event: Event) -> tuple[str, int, int, list[tuple[int, int, int]]]:
    """Number, store, total and lines of an order. Raises Rejected for one that does not add up."""
    data = event.data
    order, lines = data.get("order_id"), data.get("lines")
    if not isinstance(order, str) or order != event.subject:
        raise Rejected("bad_order", f"order_id is {order!r}, the subject {event.subject!r}")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, dict) for line in lines):
        raise Rejected("bad_order", "there are no lines")
    names = ("line_no", "product_id", "quantity", "unit_price_cents")
    found = [tuple(whole(line.get(name), name) for name in names) for line in lines]
    total = whole(data.get("total_cents"), "total_cents")
    if any(q <= 0 or price < 0 for _, _, q, price in found) or len({n for n, *_ in found}) != len(found):
        raise Rejected("bad_order", "a line has no quantity, a price below zero, or the number of another")
    if sum(q * price for _, _, q, price in found) != total:
        raise Rejected("bad_order", f"the lines do not add up to {total}")
    return order, whole(data.get("store_id"), "store_id"), total, [(n, p, q) for n, p, q, _ in found]


def reserved(event: Event, context: Context) -> None:
    """Goods are set aside: when all are, ask for the money; of an order that failed meanwhile, give them back."""
    order = _order(event, context)
    line = _line(event, context, "reserved")
    if line is None:
        return
    if order["state"] != "reserving":
        _release(context, order, line)
        return
    left = context.one("SELECT count(*) AS n FROM lines WHERE order_id = ? AND state = 'asked'", order["order_id"])
    if left is not None and left["n"] == 0:
        _become(event, context, order, "paying")
        known = {"order_id": order["order_id"], "store_id": order["store_id"], "total_cents": order["total_cents"]}
        context.emit(ORDERS, "retail.order.confirmed", known)
        money = {"order_id": order["order_id"], "amount_cents": order["total_cents"]}
        context.emit(ORDERS, "retail.payment.requested", money)
        context.cancel(f"{order['order_id']} reserving")
        _expect(event, context, order["order_id"], "paying")


def refused(event: Event, context: Context) -> None:
    """A shelf does not have it: the order fails."""
    order = _order(event, context)
    if _line(event, context, "rejected") is not None and order["state"] == "reserving":
        _fail(event, context, order, "out_of_stock")


def captured(event: Event, context: Context) -> None:
    """The money is there: ship; when the order failed meanwhile, it goes back."""
    order = _order(event, context)
    payment = str(event.data.get("payment_id"))
    if order["payment_id"] is not None:
        context.reject("paid_again", f"order {order['order_id']} was paid by {order['payment_id']}, now by {payment}")
    context.run("UPDATE orders SET payment_id = ? WHERE order_id = ?", payment, order["order_id"])
    if order["state"] == "rejected":
        _refund(context, order, payment)
        return
    if order["state"] != "paying" or event.data.get("amount_cents") != order["total_cents"]:
        context.reject("bad_payment", f"order {order['order_id']} is {order['state']}, of {order['total_cents']} cents")
    for line in context.all("SELECT * FROM lines WHERE order_id = ? ORDER BY line_no", order["order_id"]):
        _tell_shelf(context, "withdrawn", order, line)
    context.run("UPDATE lines SET state = 'withdrawn' WHERE order_id = ?", order["order_id"])
    _become(event, context, order, "shipped")
    context.cancel(f"{order['order_id']} paying")
    known = {"order_id": order["order_id"], "store_id": order["store_id"]}
    context.emit(ORDERS, "retail.order.shipped", known)


def unpaid(event: Event, context: Context) -> None:
    """No money: the order fails."""
    order = _order(event, context)
    if order["state"] == "paying":
        _fail(event, context, order, "payment_failed")


def cancelled(event: Event, context: Context) -> None:
    """The customer does not want it any more: while it has not left the house, it fails."""
    order = _order(event, context)
    if order["state"] == "shipped":
        context.reject("too_late", f"order {order['order_id']} has been shipped")
    if order["state"] != "rejected":
        _fail(event, context, order, "cancelled")


def expired(event: Event, context: Context) -> None:
    """Somebody did not answer in time: the order fails."""
    order = _order(event, context)
    if order["state"] == event.data.get("state"):
        _fail(event, context, order, "no_answer")


def _fail(event: Event, context: Context, order: Row, reason: str) -> None:
    """Undo what was done: release what is set aside. What is still on its way is undone when it comes."""
    for line in context.all(
        "SELECT * FROM lines WHERE order_id = ? AND state = 'reserved' ORDER BY line_no", order["order_id"]
    ):
        _release(context, order, line)
    _become(event, context, order, "rejected", reason)
    for state in ("reserving", "paying"):
        context.cancel(f"{order['order_id']} {state}")
    context.emit(ORDERS, "retail.order.rejected", {"order_id": order["order_id"], "reason": reason})


def _release(context: Context, order: Row, line: Row) -> None:
    context.run(
        "UPDATE lines SET state = 'released' WHERE order_id = ? AND line_no = ?", order["order_id"], line["line_no"]
    )
    _tell_shelf(context, "released", order, line)


def _refund(context: Context, order: Row, payment: str) -> None:
    context.run("UPDATE orders SET refunded = 1 WHERE order_id = ?", order["order_id"])
    money = {"order_id": order["order_id"], "amount_cents": order["total_cents"], "payment_id": payment}
    context.emit(ORDERS, "retail.payment.refund_requested", money)


def _tell_shelf(context: Context, what: str, order: Row, line: Row) -> None:
    data = {
        "order_id": order["order_id"],
        "store_id": order["store_id"],
        "product_id": line["product_id"],
        "line_no": line["line_no"],
        "quantity": line["quantity"],
    }
    context.emit(STOCK, f"retail.stock.{what}", data, subject=shelf_of(data["store_id"], data["product_id"]))


def _expect(event: Event, context: Context, order: str, state: str) -> None:
    """An order that is still in this state after a while fails."""
    data = {"order_id": order, "state": state}
    context.later(f"{order} {state}", event.came_at + PATIENCE, ORDERS, "retail.order.expired", data, subject=order)


def _order(event: Event, context: Context) -> Row:
    row = context.one("SELECT * FROM orders WHERE order_id = ?", event.data.get("order_id"))
    if row is None:
        context.reject("unknown_order", f"there is no order {event.data.get('order_id')!r}")
    return row


def _line(event: Event, context: Context, state: str) -> Row | None:
    """A line that has waited for this answer; None when it was answered before."""
    order, number = event.data["order_id"], event.data.get("line_no")
    row = context.one("SELECT * FROM lines WHERE order_id = ? AND line_no = ?", order, number)
    if row is None:
        context.reject("unknown_line", f"order {order} has no line {number}")
    if row["state"] != "asked":
        return None
    context.run("UPDATE lines SET state = ? WHERE order_id = ? AND line_no = ?", state, order, number)
    return row


def _become(event: Event, context: Context, order: Row, state: str, reason: str | None = None) -> None:
    context.run(
        "UPDATE orders SET state = ?, reason = ?, changed_at = ? WHERE order_id = ?",
        state,
        reason,
        event.came_at.isoformat(),
        order["order_id"],
    )


def answer(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """One `order`, or those in a `state` (the last hundred), each with its lines."""
    where, value = ("order_id = ?", asked["order"]) if "order" in asked else ("state = ?", asked["state"])
    found = db.execute(f"SELECT * FROM orders WHERE {where} ORDER BY changed_at DESC LIMIT 100", (value,))
    return [{**dict(row), "lines": _lines(db, row["order_id"])} for row in found]


def _lines(db: sqlite3.Connection, order: str) -> list[dict[str, Any]]:
    found = db.execute(
        "SELECT line_no, product_id, quantity, state FROM lines WHERE order_id = ? ORDER BY line_no", (order,)
    )
    return [dict(row) for row in found]


def summary(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """How many orders are in which state."""
    return [dict(row) for row in db.execute(_SUMMARY)]


_SUMMARY = "SELECT state, coalesce(reason, '') AS reason, count(*) AS orders, sum(total_cents) AS total_cents"
_SUMMARY += " FROM orders GROUP BY 1, 2"


def _summed(asked: Mapping[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault((row["state"], row["reason"]), {**row, "orders": 0, "total_cents": 0})
        one["orders"] += row["orders"]
        one["total_cents"] += row["total_cents"]
    return [found[key] for key in sorted(found)]


if __name__ == "__main__":
    sys.exit(serve(orders()))
