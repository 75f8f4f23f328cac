"""The topics, and the two logs that are made of them."""

from __future__ import annotations

from cdc_lake.service import Event, Merge

SCANS, ORDERS, STOCK, REORDERS = "retail.scans", "retail.orders", "retail.stock", "retail.reorders"

# All that happens to a shelf in one order: scans, requests of orders, reorders. Key: <store_id>/<product_id>.
SHELVES = Merge("retail.shelves", (SCANS, STOCK, REORDERS))


def receipt_of(event: Event) -> str | None:
    """The receipt that a scan belongs to; None for what is on none."""
    receipt = event.data.get("receipt")
    return receipt if event.type in ("retail.purchase", "retail.return") and isinstance(receipt, str) else None


# What was bought, and brought back, at the tills, by receipt: what a basket held comes together.
RECEIPTS = Merge("retail.receipts", (SCANS,), key=receipt_of)


def shelf_of(store_id: int, product_id: int) -> str:
    """The key of a shelf."""
    return f"{store_id}/{product_id}"
