"""What a scan must say, and what must have been before, for it to be believed: the same for all who keep books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdc_lake.service import Event, Rejected
from examples.retail.services.topics import shelf_of

_SIGNS = {"retail.purchase": -1, "retail.restock": 1, "retail.return": 1}
TYPES = (*_SIGNS, "retail.transfer", "retail.adjustment")


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan: what it does to the stock of a shelf."""

    shelf: str
    store_id: int
    product_id: int
    change: int
    time: datetime


def scan_of(event: Event) -> Scan:
    """The scan of an event. Raises Rejected for one that contradicts itself."""
    data = event.data
    store, product, quantity, change = (
        whole(data.get(name), name) for name in ("store_id", "product_id", "quantity", "change")
    )
    sign = _SIGNS.get(event.type, 0)
    if event.type == "retail.transfer":
        sign = {"out": -1, "in": 1}.get(str(data.get("direction")), 0)
        if not sign:
            raise Rejected("bad_scan", f"direction is {data.get('direction')!r}, neither out nor in")
    if quantity <= 0 or abs(change) != quantity or (sign and change * sign < 0):
        raise Rejected("bad_scan", f"quantity {quantity} and change {change} do not fit {event.type}")
    if event.subject != shelf_of(store, product):
        raise Rejected("bad_scan", f"the subject is {event.subject}, the shelf {shelf_of(store, product)}")
    return Scan(event.subject, store, product, change, happened(event))


def doubt(event: Event, scan: Scan, shelf: Mapping[str, Any] | None) -> str:
    """Why a scan is not believed, as a code; empty when it is. `shelf` has what was `sold` and `returned` before.

    A shelf is known from the first goods that are put on it, and no more comes back than was sold.
    """
    if shelf is None:
        opens = event.type == "retail.adjustment" or (scan.change > 0 and event.type != "retail.return")
        return "" if opens else "unknown_product"
    if event.type == "retail.return" and shelf["returned"] + scan.change > shelf["sold"]:
        return "return_without_purchase"
    return ""


def happened(event: Event) -> datetime:
    """When it happened; when the broker took it, where the event does not say."""
    return event.time or event.came_at


def whole(value: object, name: str) -> int:
    """A whole number. Raises Rejected for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 53:
        raise Rejected("bad_scan", f"{name} is {value!r}, not a whole number")
    return value
