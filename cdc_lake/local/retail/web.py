"""The web shop: orders that are placed, and now and then cancelled, each written with its event in one transaction.

The row in `outbox.events` is deleted by the transaction that wrote it: PostgreSQL's log has it, and the table stays
empty.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from cdc_lake.local.retail.demand import Demand, arrivals
from cdc_lake.local.retail.loader import Connection, connect

TOPIC = "retail.orders"
SOURCE = "/web"
_SCHEMA = Path(__file__).with_name("outbox.sql")


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """What happens to an order, and its event's id and those of the events before it."""

    at: datetime
    id: str
    type: str
    order_id: str
    data: dict[str, Any]
    correlation: str
    cause: str | None = None


@dataclass(slots=True)
class WebShop:
    """Orders of the web. `rate` is how many a second are placed at an average moment."""

    demand: Demand
    rate: float
    customers: Sequence[int] = ()
    _rng: Random = field(init=False)
    _due: list[tuple[datetime, int, OrderEvent]] = field(default_factory=list)
    _number: int = 0

    def __post_init__(self) -> None:
        self._rng = Random(f"{self.demand.seed}:web")

    def between(self, start: datetime, end: datetime) -> Iterator[OrderEvent]:
        """What happens from `start` on and before `end`, in order."""
        minute = start
        while minute < end:
            after = min(minute + timedelta(minutes=1), end)
            seconds = (after - minute).total_seconds()
            level = self.demand.level(minute, online=True)
            for _ in range(arrivals(self._rng, self.rate * seconds * level)):
                self._place(minute + timedelta(seconds=self._rng.random() * seconds))
            while self._due and self._due[0][0] < after:
                yield heapq.heappop(self._due)[2]
            minute = after

    def _place(self, at: datetime) -> None:
        rng, order = self._rng, self._uuid()
        chosen = dict.fromkeys(self.demand.product(rng, at) for _ in range(rng.choice((1, 1, 2, 2, 3, 4))))
        lines = [
            {
                "line_no": number,
                "product_id": product,
                "quantity": rng.choice((1, 1, 1, 2, 3)),
                "unit_price_cents": self.demand.price_cents(product, at),
            }
            for number, product in enumerate(chosen, start=1)
        ]
        data = {
            "order_id": order,
            "store_id": self.demand.store(rng),
            "customer_id": rng.choice(self.customers) if self.customers and rng.random() < 0.8 else None,
            "lines": lines,
            "total_cents": sum(line["quantity"] * line["unit_price_cents"] for line in lines),
            "placed_at": at.astimezone(UTC).isoformat(),
        }
        placed = OrderEvent(at, identity := self._uuid(), "retail.order.placed", order, data, identity)
        self._plan(placed)
        if rng.random() < 0.03:
            later = at + timedelta(minutes=rng.expovariate(1 / 20))
            why = {"order_id": order, "reason": rng.choice(("changed_mind", "ordered_twice", "too_slow"))}
            self._plan(OrderEvent(later, self._uuid(), "retail.order.cancelled", order, why, identity, identity))

    def _plan(self, event: OrderEvent) -> None:
        self._number += 1
        heapq.heappush(self._due, (event.at, self._number, event))

    def _uuid(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))


def create_outbox(dsn: str) -> bool:
    """Make the outbox where there is none; whether it was made."""
    with connect(dsn) as connection:
        if connection.execute("SELECT to_regclass('outbox.events') IS NOT NULL").fetchone() == (True,):
            return False
        connection.execute(_SCHEMA.read_bytes())
        connection.commit()
        return True


def write(connection: Connection, event: OrderEvent, *, topic: str = TOPIC) -> None:
    """The order and its event, committed together."""
    if event.type == "retail.order.placed":
        values = [event.data[name] for name in ("order_id", "store_id", "customer_id", "total_cents")]
        connection.execute(
            """INSERT INTO outbox.web_orders (order_id, store_id, customer_id, total_cents, status, placed_at)
            VALUES (%s, %s, %s, %s, 'placed', %s) ON CONFLICT DO NOTHING""",
            [*values, event.at],
        )
    else:
        connection.execute("UPDATE outbox.web_orders SET status = 'cancelled' WHERE order_id = %s", [event.order_id])
    connection.execute(
        """WITH written AS (INSERT INTO outbox.events
            (id, topic, source, type, subject, time, correlationid, causationid, data)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING 1) SELECT count(*) FROM written""",
        [
            *(event.id, topic, SOURCE, event.type, event.order_id, event.at, event.correlation),
            event.cause or event.id,
            json.dumps(event.data),
        ],
    )
    connection.execute("DELETE FROM outbox.events WHERE id = %s", [event.id])
    connection.commit()
