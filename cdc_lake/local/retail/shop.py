"""What the tills know while they trade: stores, shelves, customers, recent orders. Shared by the workload's threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from cdc_lake.local.retail.loader import Connection
from cdc_lake.local.retail.zipf import Zipf, by_popularity

RECENT_ORDERS = 5_000


class Refused(Exception):
    """The shop declines for a good reason (not enough stock, nothing to cancel); the transaction is rolled back."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one transaction changed.

    `rows` counts the changed rows by table and operation (`insert`, `update`, `delete`), foreign keys' consequences
    included; `key` is the order, product, customer or store that it was about.
    """

    kind: str
    rows: Mapping[tuple[str, str], int]
    key: int
    open_order: bool = False


class Shop:
    """The state from which transactions choose. Choices are guesses: the database refuses what has gone meanwhile.

    Threads share it without a lock: every change is one atomic step on a list, a dict or a deque.
    """

    def __init__(self, connection: Connection, seed: int) -> None:
        shelves: dict[int, list[int]] = {}
        for store, item in connection.execute("SELECT store_id, product_id FROM inventory ORDER BY 1, 2"):
            shelves.setdefault(store, []).append(item)
        ids = [row[0] for row in connection.execute("SELECT product_id FROM products ORDER BY 1")]
        self.products = by_popularity(ids, seed)
        rank = {item: place for place, item in enumerate(self.products)}
        self.shelves = {store: Zipf(sorted(items, key=rank.__getitem__)) for store, items in shelves.items()}
        self.stores = Zipf(by_popularity(list(shelves), seed))
        self.customers = [row[0] for row in connection.execute("SELECT customer_id FROM customers ORDER BY 1")]
        latest = "FROM orders WHERE {} ORDER BY order_id DESC LIMIT 5000"
        self.recent = self._orders(connection, latest.format("status IN ('completed', 'shipped')"))
        self.open = self._orders(connection, latest.format("status = 'paid'"))
        connection.rollback()

    @staticmethod
    def _orders(connection: Connection, tail: str) -> deque[int]:
        rows = connection.execute(f"SELECT order_id {tail}".encode()).fetchall()
        return deque((row[0] for row in reversed(rows)), maxlen=RECENT_ORDERS)

    def store(self, rng: Random) -> int:
        """A store, busy ones more often."""
        return self.stores.pick(rng)

    def basket(self, rng: Random, store: int, lines: int) -> list[int]:
        """Products from a store's shelves."""
        return self.shelves[store].pick_some(rng, lines)

    def customer(self, rng: Random) -> int:
        """A customer who was there at the last look. Refused when there are none."""
        return self._any(rng, self.customers)

    def product(self, rng: Random, *, slow: bool = False) -> int:
        """A product, popular ones more often; `slow` takes one from the end of the list. Refused when none is left."""
        count = len(self.products)
        place = count - 1 - rng.randrange(max(count // 4, 1)) if slow else int(count * rng.random() ** 4)
        try:
            return self.products[place]
        except IndexError:
            raise Refused("no products") from None

    def order(self, rng: Random) -> int:
        """An order of late that was handed over."""
        return self._any(rng, self.recent)

    def take_open_order(self) -> int:
        """The oldest online order that has not left yet; it is not offered again."""
        try:
            return self.open.popleft()
        except IndexError:
            raise Refused("no open order") from None

    def committed(self, effect: Effect) -> None:
        """Remember what a transaction did, once it is committed."""
        if effect.kind == "sale":
            (self.open if effect.open_order else self.recent).append(effect.key)
        elif effect.kind == "ship":
            self.recent.append(effect.key)
        elif effect.kind == "signup":
            self.customers.append(effect.key)
        elif effect.kind == "launch":
            self.products.append(effect.key)
        elif effect.kind in {"erase", "delist"}:
            with suppress(ValueError):  # another thread was first
                (self.customers if effect.kind == "erase" else self.products).remove(effect.key)

    @staticmethod
    def _any(rng: Random, known: list[int] | deque[int]) -> int:
        try:
            return known[rng.randrange(len(known))]
        except (IndexError, ValueError):
            raise Refused("nothing to choose from") from None
