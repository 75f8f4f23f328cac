"""Those outside: a payment provider, and suppliers. Made up, and yet they only read and write events.

The provider refuses one order in twenty, always the same ones. Suppliers deliver after one to four days of their own,
and scan the goods onto the shelf.
"""

from __future__ import annotations

import sys
import uuid
from datetime import timedelta
from zlib import crc32

from cdc_lake.service import Context, Event, Service, serve
from examples.retail.services.topics import ORDERS, REORDERS, SCANS

DECLINED = 20


def payments(version: int = 1) -> Service:
    """The payment provider."""
    service = Service("payments", (ORDERS,), version=version)

    @service.on("retail.payment.requested")
    def requested(event: Event, context: Context) -> None:
        data = {"order_id": event.data["order_id"], "amount_cents": event.data["amount_cents"]}
        if crc32(str(event.data["order_id"]).encode()) % DECLINED == 0:
            context.emit(ORDERS, "retail.payment.failed", {**data, "reason": "declined"})
        else:
            payment = str(uuid.uuid5(uuid.NAMESPACE_OID, event.id))
            context.emit(ORDERS, "retail.payment.captured", {**data, "payment_id": payment})

    return service


def suppliers(version: int = 1, *, day: timedelta = timedelta(days=1)) -> Service:
    """The suppliers; `day` is how long a day of theirs takes."""
    service = Service("suppliers", (REORDERS,), version=version, sends_to=(SCANS,))

    @service.on("retail.reorder.requested")
    def requested(event: Event, context: Context) -> None:
        number = event.data["purchase_order_id"]
        days = 1 + crc32(number.encode()) % 4
        context.later(number, event.came_at + days * day, REORDERS, "retail.reorder.due", dict(event.data))

    @service.on("retail.reorder.due")
    def due(event: Event, context: Context) -> None:
        names = ("purchase_order_id", "store_id", "product_id", "quantity")
        data = {name: event.data[name] for name in names}
        context.emit(REORDERS, "retail.reorder.delivered", data)
        scan = {**data, "change": data["quantity"], "scanner_id": "supplier"}
        context.emit(SCANS, "retail.restock", scan)

    return service


if __name__ == "__main__":
    named = {"payments": payments, "suppliers": suppliers}
    if len(sys.argv) < 2 or sys.argv[1] not in named:
        sys.exit(f"which: {' or '.join(named)}")
    sys.exit(serve(named[sys.argv[1]](), arguments=sys.argv[2:]))
