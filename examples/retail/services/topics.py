"""The topics, and the two logs that are made of them."""

from __future__ import annotations

import os

from cdc_lake.service import Event, Merge

# Two retailers may share a Kafka: RETAIL_TOPICS is what the names of the topics of one begin with.
_RETAILER = os.environ.get("RETAIL_TOPICS", "retail")
SCANS, ORDERS, STOCK, REORDERS = (f"{_RETAILER}.{name}" for name in ("scans", "orders", "stock", "reorders"))
SHELF_CHANGES = f"{_RETAILER}.shelf_changes"

# All that happens to a shelf in one order: scans, requests of orders, reorders. Key: <store_id>/<product_id>.
SHELVES = Merge(f"{_RETAILER}.shelves", (SCANS, STOCK, REORDERS))


def receipt_of(event: Event) -> str | None:
    """The receipt that a scan belongs to; None for what is on none."""
    receipt = event.data.get("receipt")
    return receipt if event.type in ("retail.purchase", "retail.return") and isinstance(receipt, str) else None


# What was bought, and brought back, at the tills, by receipt: what a basket held comes together.
RECEIPTS = Merge(f"{_RETAILER}.receipts", (SCANS,), key=receipt_of)


def shelf_of(store_id: int, product_id: int) -> str:
    """The key of a shelf."""
    return f"{store_id}/{product_id}"
