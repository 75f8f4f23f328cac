"""A retailer's day on a Kafka in memory: shelves, tills, online orders, and every fault that a seed thinks of."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_lake.service import Event, Service
from cdc_lake.service.merge import Merging
from cdc_lake.service.run import Runner
from examples.retail.services.inventory import inventory
from examples.retail.services.orders import orders
from examples.retail.services.partners import payments, suppliers
from examples.retail.services.reordering import reordering
from examples.retail.services.topics import ORDERS, REORDERS, SCANS, SHELVES, STOCK
from tests.service_world import Crashing, Killed, World, settle

START = datetime(2023, 10, 1, 8, tzinfo=UTC)
SHELF_COUNT, STORES = 6, 2
HOURS = 40 * 24


@dataclass
class Member:
    """An instance that may be killed, and how it begins again."""

    service: Service | None
    slot: int
    running: Runner | Merging | None = None


@dataclass
class Retailer:
    """The world, its members, and what was put in."""

    world: World
    chance: random.Random
    members: list[Member]
    wall: float = 1_700_000_000.0
    sent: list[tuple[str, Event]] = field(default_factory=list)
    receipts: list[tuple[str, str, int]] = field(default_factory=list)
    number: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, world: World, chance: random.Random) -> Retailer:
        """All services, the inventory three times, reordering and orders twice."""
        world.topics(SCANS, ORDERS, STOCK, REORDERS, SHELVES.into)
        shop, saga, more = inventory(), orders(), reordering()
        wanted = [shop, shop, shop, saga, saga, more, more, payments(), suppliers(day=timedelta(minutes=1)), None, None]
        made = cls(world, chance, [Member(service, slot) for slot, service in enumerate(wanted)])
        for member in made.members:
            made.begin(member)
        return made

    def begin(self, member: Member) -> None:
        """Start an instance."""
        if member.service is None:
            member.running = self.world.merging(SHELVES)
        else:
            member.running = self.world.instance(
                member.service, member.slot, wall=lambda: self.wall, snapshot_events=25
            )

    def running(self, name: str) -> list[Runner]:
        """The instances of a service."""
        found = [m.running for m in self.members if m.service is not None and m.service.name == name]
        return [r for r in found if isinstance(r, Runner)]

    def put(self, topic: str, event: Event) -> None:
        """Send an event, sometimes twice, sometimes one of the last ones again."""
        self.sent.append((topic, event))
        self.world.put(topic, event)
        if self.chance.random() < 0.15:
            self.world.put(*self.chance.choice(self.sent[-12:]))

    def happen(self, hour: float) -> None:
        """One thing that happens in a store or in the web shop."""
        kind = self.chance.choices(
            ("purchase", "restock", "return", "adjustment", "transfer", "order", "cancel", "bad"),
            (45, 8, 4, 3, 4, 22, 5, 3),
        )[0]
        time = START + timedelta(hours=hour - (self.chance.random() < 0.1) * 30)
        getattr(self, f"_{kind}")(time)

    def _id(self) -> str:
        self.number += 1
        return f"e{self.number}"

    def _shelf(self) -> tuple[int, int]:
        return self.chance.randint(1, STORES), self.chance.randint(1, SHELF_COUNT // STORES)

    def scan(self, type: str, shelf: tuple[int, int], change: int, time: datetime, **more: Any) -> Event:
        """A scan of a shelf."""
        store, product = shelf
        data = {"store_id": store, "product_id": product, "quantity": abs(change), "change": change, **more}
        source = f"/stores/{store}/scanners/{self.chance.randint(1, 2)}"
        return Event(self._id(), source, f"retail.{type}", data, subject=f"{store}/{product}", time=time)

    def stock_up(self) -> None:
        """The first goods of every shelf."""
        for store in range(1, STORES + 1):
            for product in range(1, SHELF_COUNT // STORES + 1):
                event = self.scan("restock", (store, product), 14, START, purchase_order_id=None)
                self.put(SCANS, event)

    def _purchase(self, time: datetime) -> None:
        shelf, quantity, receipt = self._shelf(), self.chance.choice((1, 1, 2, 3)), f"r{self.number}"
        self.receipts.append((receipt, f"{shelf[0]}/{shelf[1]}", quantity))
        self.put(SCANS, self.scan("purchase", shelf, -quantity, time, receipt=receipt, unit_price_cents=250))

    def _restock(self, time: datetime) -> None:
        self.put(SCANS, self.scan("restock", self._shelf(), self.chance.randint(5, 12), time, purchase_order_id=None))

    def _return(self, time: datetime) -> None:
        receipt = self.chance.choice(self.receipts)[0] if self.receipts else "none"
        self.put(SCANS, self.scan("return", self._shelf(), self.chance.randint(1, 2), time, receipt=receipt))

    def _adjustment(self, time: datetime) -> None:
        change = self.chance.choice((-3, -2, -1, 1, 2))
        self.put(SCANS, self.scan("adjustment", self._shelf(), change, time, reason="stocktake"))

    def _transfer(self, time: datetime) -> None:
        product, quantity = self._shelf()[1], self.chance.randint(1, 4)
        for store, sign, direction in ((1, -1, "out"), (2, 1, "in")):
            more = {"transfer_id": f"t{self.number}", "direction": direction, "other_store_id": 3 - store}
            self.put(SCANS, self.scan("transfer", (store, product), sign * quantity, time, **more))

    def _order(self, time: datetime) -> None:
        store, order = self.chance.randint(1, STORES), f"order-{self.number}"
        products = self.chance.sample(range(1, SHELF_COUNT // STORES + 2), self.chance.randint(1, 3))
        lines = [
            {"line_no": n, "product_id": p, "quantity": self.chance.randint(1, 6), "unit_price_cents": 300}
            for n, p in enumerate(products, 1)
        ]
        total = sum(line["quantity"] * line["unit_price_cents"] for line in lines)
        data = {"order_id": order, "store_id": store, "customer_id": None, "lines": lines, "total_cents": total}
        placed = {**data, "placed_at": time.isoformat()}
        self.put(ORDERS, Event(self._id(), "/shop/outbox", "retail.order.placed", placed, subject=order, time=time))

    def _cancel(self, time: datetime) -> None:
        placed = [e.subject for _, e in self.sent if e.type == "retail.order.placed"]
        order = self.chance.choice(placed[-4:]) if placed else "order-none"
        data = {"order_id": order, "reason": "changed my mind"}
        self.put(ORDERS, Event(self._id(), "/shop/outbox", "retail.order.cancelled", data, subject=order, time=time))

    def _bad(self, time: datetime) -> None:
        kind = self.chance.randrange(5)
        if kind == 0:
            self.put(SCANS, self.scan("purchase", (9, 99), -1, time, receipt="r", unit_price_cents=1))
        elif kind == 1:
            self.put(SCANS, self.scan("purchase", self._shelf(), 5, time, receipt="r", unit_price_cents=1))
        elif kind == 2:
            event = self.scan("purchase", self._shelf(), -1, START + timedelta(days=4000), receipt="r")
            self.put(SCANS, event)
        elif kind == 3:
            self.world.kafka.produce(SCANS, 0, b"1/1", b'{"half": ', headers=[("ce_id", b"x")])
        else:
            _, before = self.chance.choice(self.sent)
            again = self.scan("purchase", self._shelf(), -1, time, receipt="r", unit_price_cents=1)
            self.world.put(SCANS, Event(before.id, before.source, again.type, again.data, again.subject, time))

    def trade(self, events: int) -> None:
        """Things happen, members step, die and begin again, partitions move, the broker goes away and comes back."""
        self.stock_up()
        for n in range(events):
            self.happen(n / events * HOURS)
            member = self.chance.choice(self.members)
            with Crashing(self.chance.randint(1, 80) if self.chance.random() < 0.3 else 1 << 30):
                try:
                    for _ in range(self.chance.randint(0, 3)):
                        self._running(member).step(0)
                except Killed:
                    self.world.kill(self._running(member))
                    self.begin(member)
            if self.chance.random() < 0.03:
                self.world.kafka.rebalance(self.chance.choice(self.members[:9]).service.group)  # type: ignore[union-attr]
            self.world.kafka.outage = "unplugged" if self.chance.random() < 0.02 else None
            self.world.now += self.chance.random()
            self.wall += self.chance.random() * 40

    def finish(self) -> None:
        """All members go on until nothing is left to do, and every timer has rung."""
        self.world.kafka.outage = None
        for _ in range(12):
            self.world.now += 100
            self.wall += 3600
            for member in self.members:
                if isinstance(member.running, Merging):
                    member.running._again_at = 0.0
            settle([self._running(m) for m in self.members])

    @staticmethod
    def _running(member: Member) -> Runner | Merging:
        assert member.running is not None
        return member.running


def counted(events: list[Event]) -> Counter[str]:
    """How many of each type."""
    return Counter(e.type for e in events)
