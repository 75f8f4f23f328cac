"""Analytics: sales by hour, turnover, what empty shelves cost, what a basket holds.

It reads three topics, each in an order of its own: receipts (all of one receipt together), shelves (all of one shelf)
and orders (all of one order). What it counts adds up whichever comes first, so it needs no order between them.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cdc_lake.service import Context, Event, Service, serve
from examples.retail.services import scans
from examples.retail.services.topics import ORDERS, RECEIPTS, SHELVES

TABLES = """
CREATE TABLE sales (
    store_id INTEGER, product_id INTEGER, hour TEXT, channel TEXT, pieces INTEGER NOT NULL, cents INTEGER NOT NULL,
    PRIMARY KEY (hour, store_id, product_id, channel)
) WITHOUT ROWID;
CREATE TABLE basket (
    basket TEXT PRIMARY KEY, channel TEXT NOT NULL, hour TEXT NOT NULL, lines INTEGER NOT NULL, pieces INTEGER NOT NULL,
    cents INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE bought (
    basket TEXT, product_id INTEGER, store_id INTEGER NOT NULL, price INTEGER NOT NULL, sold INTEGER NOT NULL,
    returned INTEGER NOT NULL DEFAULT 0 CHECK (returned <= sold), PRIMARY KEY (basket, product_id)
) WITHOUT ROWID;
CREATE TABLE shelf (
    shelf TEXT PRIMARY KEY, store_id INTEGER NOT NULL, product_id INTEGER NOT NULL, stock INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, piece_seconds INTEGER NOT NULL DEFAULT 0,
    empty_seconds INTEGER NOT NULL DEFAULT 0, empty_times INTEGER NOT NULL DEFAULT 0, sold INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0, price INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE refused (order_id TEXT, line_no INTEGER, store_id INTEGER, product_id INTEGER, cents INTEGER NOT NULL,
    PRIMARY KEY (order_id, line_no)) WITHOUT ROWID;
"""
Rows = list[dict[str, Any]]


def analytics(version: int = 1) -> Service:
    """The analytics service."""
    service = Service("analytics", (RECEIPTS.into, SHELVES.into, ORDERS), TABLES, version=version)
    service.on(*scans.TYPES)(scanned)
    service.on("retail.stock.withdrawn")(withdrawn)
    service.on("retail.order.placed")(placed)
    service.on("retail.order.shipped")(shipped)
    service.on("retail.stock.rejected")(refused)
    service.get("/sales", combine=_sums(("store_id", "product_id", "hour", "channel"), ("pieces", "cents")))(sales)
    service.get("/baskets", combine=_baskets)(baskets)
    service.get("/turnover")(turnover)
    service.get("/stockouts", combine=_costliest)(stockouts)
    service.get("/refused", combine=_sums(("store_id", "product_id"), ("lines", "cents")))(lost_online)
    return service


def scanned(event: Event, context: Context) -> None:
    """A scan comes twice: in the topic of receipts it is a sale, in that of shelves it is stock."""
    scan = scans.scan_of(event)
    if event.topic == SHELVES.into:
        code = scans.doubt(event, scan, context.one("SELECT sold, returned FROM shelf WHERE shelf = ?", scan.shelf))
        if code:
            context.reject(code, f"{event.type} of {scan.change} on the shelf {scan.shelf}")
        on_the_shelf(event, scan, context)
    elif event.type == "retail.purchase":
        price = scans.whole(event.data.get("unit_price_cents"), "unit_price_cents")
        sell(context, scan, str(event.data["receipt"]), price)
    elif event.type == "retail.return":
        take_back(context, scan, str(event.data["receipt"]))


def on_the_shelf(event: Event, scan: scans.Scan, context: Context) -> None:
    """What a scan does to the stock."""
    bought = event.type == "retail.purchase"
    stock(context, scan, -scan.change if bought else 0, event.data.get("unit_price_cents") if bought else None)
    if event.type == "retail.return":
        context.run("UPDATE shelf SET returned = returned + ? WHERE shelf = ?", scan.change, scan.shelf)


def sell(context: Context, scan: scans.Scan, receipt: str, price: int) -> None:
    """A line of a receipt."""
    pieces, hour = -scan.change, hour_of(scan.time)
    context.run(
        "INSERT INTO bought VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET sold = sold + excluded.sold",
        *(receipt, scan.product_id, scan.store_id, price, pieces),
    )
    _count(context, (scan.store_id, scan.product_id, hour, "store"), pieces, pieces * price)
    context.run(
        "INSERT INTO basket VALUES (?1, 'store', ?2, 1, ?3, ?4) ON CONFLICT DO UPDATE SET"
        " lines = lines + 1, pieces = pieces + ?3, cents = cents + ?4",
        *(receipt, hour, pieces, pieces * price),
    )


def take_back(context: Context, scan: scans.Scan, receipt: str) -> None:
    """Goods come back at the price that was paid for them, if they were bought."""
    row = context.one("SELECT * FROM bought WHERE basket = ? AND product_id = ?", receipt, scan.product_id)
    if row is None or row["returned"] + scan.change > row["sold"]:
        context.reject(
            "return_without_purchase", f"receipt {receipt} has no {scan.change} of product {scan.product_id}"
        )
    context.run(
        "UPDATE bought SET returned = returned + ? WHERE basket = ? AND product_id = ?",
        *(scan.change, receipt, scan.product_id),
    )
    key = (scan.store_id, scan.product_id, hour_of(scan.time), "store")
    _count(context, key, -scan.change, -scan.change * row["price"])


def placed(event: Event, context: Context) -> None:
    """What an online order holds: it is a sale when it has been shipped."""
    for line in event.data["lines"]:
        context.run(
            "INSERT INTO bought VALUES (?1, ?2, ?3, ?4, ?5, 0) ON CONFLICT DO UPDATE SET sold = sold + ?5",
            event.subject,
            *(line["product_id"], event.data["store_id"], line["unit_price_cents"], line["quantity"]),
        )


def shipped(event: Event, context: Context) -> None:
    """An online order is sold."""
    hour = hour_of(scans.happened(event))
    lines = context.all("SELECT * FROM bought WHERE basket = ?", event.subject)
    for line in lines:
        key = (line["store_id"], line["product_id"], hour, "online")
        _count(context, key, line["sold"], line["sold"] * line["price"])
    pieces, cents = sum(line["sold"] for line in lines), sum(line["sold"] * line["price"] for line in lines)
    context.run("INSERT INTO basket VALUES (?, 'online', ?, ?, ?, ?)", event.subject, hour, len(lines), pieces, cents)


def refused(event: Event, context: Context) -> None:
    """A line that could not be had: a sale that was lost for certain."""
    data = event.data
    row = context.one(
        "SELECT price FROM bought WHERE basket = ? AND product_id = ?", event.subject, data.get("product_id")
    )
    context.run(
        "INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?, ?)",
        *(event.subject, data.get("line_no"), data.get("store_id"), data.get("product_id")),
        row["price"] * data["quantity"] if row else 0,
    )


def withdrawn(event: Event, context: Context) -> None:
    """Goods of an online order leave the shelf."""
    store, product, quantity = (scans.whole(event.data.get(n), n) for n in ("store_id", "product_id", "quantity"))
    stock(context, scans.Scan(event.subject, store, product, -quantity, scans.happened(event)), quantity, None)


def stock(context: Context, scan: scans.Scan, sold: int, price: int | None) -> None:
    """Follow a shelf through its time: how much was on it, and how long nothing was."""
    at = int(scan.time.timestamp())
    row = context.one("SELECT * FROM shelf WHERE shelf = ?", scan.shelf)
    if row is None:
        context.run(
            "INSERT INTO shelf (shelf, store_id, product_id, stock, first, last) VALUES (?, ?, ?, 0, ?, ?)",
            *(scan.shelf, scan.store_id, scan.product_id, at, at),
        )
    spent = max(0, at - row["last"]) if row else 0
    before = row["stock"] if row else 0
    after = before + scan.change
    context.run(
        "UPDATE shelf SET stock = ?, last = max(last, ?), piece_seconds = piece_seconds + ?,"
        " empty_seconds = empty_seconds + ?, empty_times = empty_times + ?, sold = sold + ?, price = coalesce(?, price)"
        " WHERE shelf = ?",
        *(after, at, max(0, before) * spent, spent if row and before <= 0 else 0, int(before > 0 >= after)),
        *(sold, price, scan.shelf),
    )


def _count(context: Context, key: tuple[int, int, str, str], pieces: int, cents: int) -> None:
    context.run(
        "INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " pieces = pieces + excluded.pieces, cents = cents + excluded.cents",
        *(*key, pieces, cents),
    )


def hour_of(time: datetime) -> str:
    """The hour of a time, in UTC, as text."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:00:00Z")


_BY = {"store": "store_id", "product": "product_id", "hour": "hour", "channel": "channel"}


def sales(asked: Mapping[str, str], db: sqlite3.Connection) -> Rows:
    """Pieces and cents `by` store, product, hour, channel (several: with commas), `since` an hour."""
    columns = ", ".join(_BY[name] for name in asked.get("by", "store").split(","))
    found = db.execute(
        f"SELECT {columns}, sum(pieces) AS pieces, sum(cents) AS cents FROM sales WHERE hour >= ? GROUP BY {columns}",
        (asked.get("since", ""),),
    )
    return [dict(row) for row in found]


def baskets(asked: Mapping[str, str], db: sqlite3.Connection) -> Rows:
    """Of each channel, how many baskets and what they hold, `since` an hour."""
    found = db.execute(
        "SELECT channel, count(*) AS baskets, sum(lines) AS lines, sum(pieces) AS pieces, sum(cents) AS cents"
        " FROM basket WHERE hour >= ? GROUP BY channel",
        (asked.get("since", ""),),
    )
    return [dict(row) for row in found]


def turnover(asked: Mapping[str, str], db: sqlite3.Connection) -> Rows:
    """How often the stock of a `product` in a store is sold in a year, at the pace so far."""
    found = db.execute("SELECT * FROM shelf WHERE product_id = ?", (int(asked["product"]),))
    return [
        {
            "store_id": row["store_id"],
            "product_id": row["product_id"],
            "mean_stock": round(row["piece_seconds"] / elapsed, 3),
            "turns_per_year": round(row["sold"] / (row["piece_seconds"] / elapsed) * 31_557_600 / elapsed, 3),
        }
        for row in found
        if (elapsed := row["last"] - row["first"]) > 0 and row["piece_seconds"] > 0
    ]


def stockouts(asked: Mapping[str, str], db: sqlite3.Connection) -> Rows:
    """Shelves that were empty, how long, and what that cost: the demand of their filled hours at their price."""
    found = db.execute("SELECT * FROM shelf WHERE empty_times > 0")
    rows = []
    for row in found:
        filled = row["last"] - row["first"] - row["empty_seconds"]
        lost = row["sold"] / filled * row["empty_seconds"] * row["price"] if filled > 0 else 0.0
        names = ("store_id", "product_id", "empty_times", "empty_seconds")
        rows.append({**{n: row[n] for n in names}, "empty_now": row["stock"] <= 0, "lost_cents": round(lost)})
    return rows


def lost_online(asked: Mapping[str, str], db: sqlite3.Connection) -> Rows:
    """Lines of online orders that no shelf had, by store and product."""
    found = db.execute(
        "SELECT store_id, product_id, count(*) AS lines, sum(cents) AS cents FROM refused GROUP BY store_id, product_id"
    )
    return [dict(row) for row in found]


def _sums(keys: Sequence[str], values: Sequence[str]) -> Callable[[Mapping[str, str], Rows], Rows]:
    def combine(asked: Mapping[str, str], rows: Rows) -> Rows:
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in rows:
            key = tuple(row[name] for name in keys if name in row)
            one = found.setdefault(key, {**row, **dict.fromkeys(values, 0)})
            for name in values:
                one[name] += row[name]
        return [found[key] for key in sorted(found)]

    return combine


def _baskets(asked: Mapping[str, str], rows: Rows) -> Rows:
    found = _sums(("channel",), ("baskets", "lines", "pieces", "cents"))(asked, rows)
    return [
        {**row, "mean_pieces": row["pieces"] / row["baskets"], "mean_cents": row["cents"] / row["baskets"]}
        for row in found
    ]


def _costliest(asked: Mapping[str, str], rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: -row["lost_cents"])[: int(asked.get("limit", "100"))]


if __name__ == "__main__":
    sys.exit(serve(analytics(), merges=[RECEIPTS, SHELVES]))
