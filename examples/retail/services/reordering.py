"""Reordering: when what is there and on its way would not last until an order could arrive, more is ordered, once.

The threshold of a shelf is what is sold while an order is on its way, and a safety on top: the mean demand of a day
over the last four weeks, times the days that its orders have taken (three, until one has arrived), plus 1.65 times the
root of that (of Poisson demand, 95 % of deliveries come in time). All of it is from the log alone.
"""

from __future__ import annotations

import math
import sqlite3
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cdc_lake.service import Context, Event, Service, serve
from examples.retail.services import scans
from examples.retail.services.topics import REORDERS, SHELVES, shelf_of

DAYS, LEAST_DAYS = 28, 7
LEAD, COVER = timedelta(days=3), 7
SAFETY = 1.65
LEAST_ORDER, LEAST_THRESHOLD = 6, 2
TABLES = """
CREATE TABLE shelf (
    shelf TEXT PRIMARY KEY, store_id INTEGER NOT NULL, product_id INTEGER NOT NULL,
    stock INTEGER NOT NULL DEFAULT 0, on_order INTEGER NOT NULL DEFAULT 0 CHECK (on_order >= 0),
    sold INTEGER NOT NULL DEFAULT 0, returned INTEGER NOT NULL DEFAULT 0,
    first_day INTEGER NOT NULL, last_day INTEGER NOT NULL,
    lead_seconds INTEGER NOT NULL DEFAULT 0, leads INTEGER NOT NULL DEFAULT 0, reorders INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE demand (shelf TEXT, day INTEGER, pieces INTEGER NOT NULL, PRIMARY KEY (shelf, day)) WITHOUT ROWID;
CREATE TABLE reorder (
    purchase_order_id TEXT PRIMARY KEY, shelf TEXT NOT NULL, quantity INTEGER NOT NULL,
    arrived INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL CHECK (state IN ('requested', 'delivered', 'arrived')),
    threshold INTEGER NOT NULL, asked_at TEXT NOT NULL, caused_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX reorder_open ON reorder (shelf) WHERE state <> 'arrived';
"""


def reordering(version: int = 1) -> Service:
    """The reordering service."""
    service = Service("reordering", (SHELVES.into,), TABLES, version=version, sends_to=(REORDERS,))
    service.on(*scans.TYPES)(scanned)
    service.on("retail.stock.withdrawn")(withdrawn)
    service.on("retail.reorder.delivered")(delivered)
    service.get("/reorders", combine=_newest)(reorders)
    service.get("/thresholds")(thresholds)
    return service


def scanned(event: Event, context: Context) -> None:
    """Goods came or went. What is not believed is refused, not passed over: it may come again later."""
    scan = scans.scan_of(event)
    code = scans.doubt(event, scan, context.one("SELECT sold, returned FROM shelf WHERE shelf = ?", scan.shelf))
    if code:
        context.reject(code, f"{event.type} of {scan.change} on the shelf {scan.shelf}")
    if event.type == "retail.restock" and event.data.get("purchase_order_id") is not None:
        arrive(str(event.data["purchase_order_id"]), scan, context)
    sold = -scan.change if event.type == "retail.purchase" else 0
    change(event, context, scan, sold)


def withdrawn(event: Event, context: Context) -> None:
    """An online order left: that is demand too."""
    store, product, quantity = (scans.whole(event.data.get(n), n) for n in ("store_id", "product_id", "quantity"))
    scan = scans.Scan(shelf_of(store, product), store, product, -quantity, scans.happened(event))
    change(event, context, scan, quantity)


def change(event: Event, context: Context, scan: scans.Scan, sold: int) -> None:
    """Note stock and demand, and order when there is too little."""
    day, back = scan.time.toordinal(), scan.change if event.type == "retail.return" else 0
    context.run(
        "INSERT INTO shelf (shelf, store_id, product_id, stock, first_day, last_day) VALUES (?1, ?2, ?3, ?4, ?5, ?5)"
        " ON CONFLICT DO UPDATE SET stock = stock + ?4, first_day = min(first_day, ?5), last_day = max(last_day, ?5),"
        " sold = sold + ?6, returned = returned + ?7",
        *(scan.shelf, scan.store_id, scan.product_id, scan.change, day, sold, back),
    )
    if sold:
        context.run(
            "INSERT INTO demand VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET pieces = pieces + excluded.pieces",
            *(scan.shelf, day, sold),
        )
    # Also when goods came: what arrived may be too little by now, and of an empty shelf nothing more is sold.
    order_if_needed(event, context, scan.shelf)


def order_if_needed(event: Event, context: Context, shelf: str) -> None:
    """One order at a time, for what lasts until it has arrived and a week longer."""
    row = context.one("SELECT * FROM shelf WHERE shelf = ?", shelf)
    if row is None:
        return
    per_day, lead = pace(context, row), days_of(row)
    threshold = threshold_of(per_day, lead)
    if row["on_order"] or row["stock"] >= threshold:
        return
    quantity = max(LEAST_ORDER, threshold + math.ceil(per_day * COVER) - row["stock"])
    number = f"PO-{row['store_id']}-{row['product_id']}-{row['reorders'] + 1}"
    context.run("UPDATE shelf SET on_order = on_order + ?, reorders = reorders + 1 WHERE shelf = ?", quantity, shelf)
    asked_at = scans.happened(event).isoformat()
    context.run(
        "INSERT INTO reorder VALUES (?, ?, ?, 0, 'requested', ?, ?, ?)",
        number,
        shelf,
        quantity,
        threshold,
        asked_at,
        event.id,
    )
    data = {"purchase_order_id": number, "store_id": row["store_id"], "product_id": row["product_id"]}
    levels = {"quantity": quantity, "on_hand": max(0, row["stock"]), "threshold": threshold}
    context.emit(REORDERS, "retail.reorder.requested", {**data, **levels}, subject=shelf)


def arrive(number: str, scan: scans.Scan, context: Context) -> None:
    """The goods of an order are on the shelf: it is learnt how long that took. Goods of no order are just goods."""
    row = context.one("SELECT * FROM reorder WHERE purchase_order_id = ? AND shelf = ?", number, scan.shelf)
    if row is None or row["state"] == "arrived":
        return
    arrived = row["arrived"] + scan.change
    whole = arrived >= row["quantity"]
    context.run(
        "UPDATE reorder SET arrived = ?, state = ? WHERE purchase_order_id = ?",
        arrived,
        "arrived" if whole else row["state"],
        number,
    )
    context.run(
        "UPDATE shelf SET on_order = on_order - ? WHERE shelf = ?",
        min(scan.change, row["quantity"] - row["arrived"]),
        scan.shelf,
    )
    took = int((scan.time - datetime.fromisoformat(row["asked_at"])).total_seconds())
    if whole and took > 0:
        context.run(
            "UPDATE shelf SET lead_seconds = lead_seconds + ?, leads = leads + 1 WHERE shelf = ?", took, scan.shelf
        )


def delivered(event: Event, context: Context) -> None:
    """The supplier says that it is on the way."""
    context.run(
        "UPDATE reorder SET state = 'delivered' WHERE purchase_order_id = ? AND state = 'requested'",
        event.data.get("purchase_order_id"),
    )


def pace(context: Context, shelf: Mapping[str, Any]) -> float:
    """Pieces a day, over the last four weeks or since the first day, a week at least. Older days are dropped."""
    since = shelf["last_day"] - DAYS
    context.run("DELETE FROM demand WHERE shelf = ? AND day <= ?", shelf["shelf"], since)
    row = context.one("SELECT coalesce(sum(pieces), 0) AS pieces FROM demand WHERE shelf = ?", shelf["shelf"])
    days = min(DAYS, max(LEAST_DAYS, shelf["last_day"] - shelf["first_day"] + 1))
    return float(row["pieces"] / days) if row else 0.0


def days_of(shelf: Mapping[str, Any]) -> float:
    """How long its orders take."""
    return float(shelf["lead_seconds"] / shelf["leads"] / 86_400) if shelf["leads"] else LEAD.days


def threshold_of(per_day: float, days: float) -> int:
    """What there must be for an order to come in time."""
    on_the_way = per_day * days
    return max(LEAST_THRESHOLD, math.ceil(on_the_way + SAFETY * math.sqrt(on_the_way)))


def reorders(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Orders, of a `shelf`, or `open=1` those that have not arrived; the last hundred."""
    where, values = ("shelf = ?", [asked["shelf"]]) if "shelf" in asked else ("true", [])
    where += " AND state <> 'arrived'" if asked.get("open") else ""
    found = db.execute(f"SELECT * FROM reorder WHERE {where} ORDER BY asked_at DESC LIMIT 100", values)
    return [dict(row) for row in found]


def _newest(asked: Mapping[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["asked_at"], reverse=True)[:100]


def thresholds(asked: Mapping[str, str], db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Of a `shelf`: its stock, demand, lead time and threshold."""
    row = db.execute("SELECT * FROM shelf WHERE shelf = ?", (asked["shelf"],)).fetchone()
    if row is None:
        return []
    pieces = db.execute(
        "SELECT coalesce(sum(pieces), 0) FROM demand WHERE shelf = ? AND day > ?",
        (asked["shelf"], row["last_day"] - DAYS),
    ).fetchone()[0]
    per_day = pieces / min(DAYS, max(LEAST_DAYS, row["last_day"] - row["first_day"] + 1))
    found = {name: row[name] for name in ("shelf", "store_id", "product_id", "stock", "on_order")}
    lead = days_of(row)
    return [{**found, "per_day": per_day, "lead_days": lead, "threshold": threshold_of(per_day, lead)}]


if __name__ == "__main__":
    sys.exit(serve(reordering(), merges=[SHELVES]))
