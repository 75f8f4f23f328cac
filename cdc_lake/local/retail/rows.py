"""The rows of a made-up retailer, computed from a seed: equal seeds, sizes and days give equal rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from cdc_lake.local.retail import names
from cdc_lake.local.retail.zipf import Zipf, by_popularity

LINES_PER_ORDER = 2.5
LONG_DESCRIPTION_EVERY = 20
STORE_COLUMNS = ("store_id", "name", "street", "city", "postcode", "region", "opened_on", "area_m2", "attributes")
PRODUCT_COLUMNS = (
    *("product_id", "sku", "name", "category", "price", "cost"),
    *("description", "tags", "attributes", "launched_on", "updated_at"),
)
CUSTOMER_COLUMNS = (
    *("customer_id", "first_name", "last_name", "email", "city"),
    *("born_on", "joined_at", "loyalty_points", "preferences"),
)
INVENTORY_COLUMNS = ("store_id", "product_id", "on_hand", "reorder_point", "updated_at")
ORDER_COLUMNS = ("order_id", "store_id", "customer_id", "channel", "status", "total", "placed_at", "note")
LINE_COLUMNS = ("order_id", "line_no", "product_id", "product_name", "quantity", "unit_price")
PAYMENT_COLUMNS = ("payment_id", "order_id", "method", "amount", "reference", "paid_at")

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows of each table to load; lines are about `LINES_PER_ORDER` times the orders."""

    stores: int
    products: int
    customers: int
    inventory: int
    orders: int

    @classmethod
    def for_rows(cls, rows: int) -> Size:
        """A retailer with about `rows` rows in all tables together (at least some 200)."""
        stores = min(max(rows // 120, 4), 400)
        products = min(max(rows // 40, 24), 12_000)
        customers = max(rows // 12, 20)
        inventory = min(stores * products, max(rows * 2 // 5, stores * 8))
        rest = rows - stores - products - customers - inventory
        return cls(stores, products, customers, inventory, max(int(rest / (2 + LINES_PER_ORDER)), 10))


@dataclass(frozen=True, slots=True)
class Product:
    """What an order line needs to know of a product."""

    product_id: int
    name: str
    price: Decimal


def generate(size: Size, *, seed: int, now: datetime) -> Iterator[tuple[str, tuple[str, ...], Iterable[Row]]]:
    """Every table's name, columns and rows, parents first. Equal arguments give equal rows."""
    today = now.date()
    products = list(_products(Random(f"{seed}:products"), size.products, now))
    yield "stores", STORE_COLUMNS, _stores(Random(f"{seed}:stores"), size.stores, today)
    yield "products", PRODUCT_COLUMNS, products
    yield "customers", CUSTOMER_COLUMNS, _customers(Random(f"{seed}:customers"), size.customers, now)
    yield "inventory", INVENTORY_COLUMNS, _inventory(Random(f"{seed}:inventory"), size, seed, now)
    shop = {row[0]: Product(row[0], row[2], row[4]) for row in products}
    orders: list[Row] = []
    lines: list[Row] = []
    payments: list[Row] = []
    for order in _orders(Random(f"{seed}:orders"), size, shop, seed, now):
        orders.append(order[0])
        lines.extend(order[1])
        payments.append(order[2])
    yield "orders", ORDER_COLUMNS, orders
    yield "order_lines", LINE_COLUMNS, lines
    yield "payments", PAYMENT_COLUMNS, payments


def _stores(rng: Random, count: int, today: date) -> Iterator[Row]:
    for number, (city, street) in enumerate(names.places(rng, count), 1):
        services = rng.sample(
            ["bakery", "cafe", "click and collect", "parking", "pharmacy", "post office"], rng.randint(0, 3)
        )
        yield (
            number,
            f"{city}, {street}",
            f"{rng.randint(1, 199)} {street}",
            city,
            f"{city[:2].upper()}{rng.randint(1, 29)} {rng.randint(1, 9)}{rng.choice('ABDEFGH')}{rng.choice('JLNPQRS')}",
            rng.choice(names.REGIONS),
            today - timedelta(days=rng.randint(90, 12_000)),
            rng.randint(12, 480) * 10,
            json.dumps({"services": services, "tills": rng.randint(2, 24)}),
        )


def _products(rng: Random, count: int, now: datetime) -> Iterator[Row]:
    for number, article in enumerate(names.articles(rng, count), 1):
        yield product_row(rng, number, article, now - timedelta(days=rng.randint(1, 1_500)))


def product_row(rng: Random, number: int, article: names.Article, launched: datetime) -> Row:
    """A product's row in the order of the table; every so often a long description."""
    price = Decimal(rng.randint(*article.cents)) / 100
    long = number % LONG_DESCRIPTION_EVERY == 0
    return (
        number,
        f"{article.category[:3].upper()}-{number:06d}",
        article.name,
        article.category,
        price,
        (price * rng.randint(45, 80) / 100).quantize(Decimal("0.01")),
        names.description(rng, rng.randint(3_000, 9_000) if long else rng.randint(60, 240)),
        rng.sample(["local", "new", "offer", "seasonal", "vegan"], rng.randint(0, 2)),
        json.dumps(
            {
                "weight_g": rng.randint(2, 400) * 10,
                "supplier": {"no": rng.randint(1, 90), "lead_days": rng.randint(1, 14)},
            }
        ),
        launched.date(),
        launched,
    )


def _customers(rng: Random, count: int, now: datetime) -> Iterator[Row]:
    for number in range(1, count + 1):
        yield customer_row(rng, number, now - timedelta(minutes=rng.randint(60, 2_000_000)))


def customer_row(rng: Random, number: int, joined: datetime) -> Row:
    """A customer's row in the order of the table."""
    first, last = names.person(rng)
    return (
        number,
        first,
        last,
        names.email(first, last, number),
        names.town(rng),
        date(rng.randint(1945, 2007), rng.randint(1, 12), rng.randint(1, 28)) if rng.random() < 0.7 else None,
        joined,
        rng.randint(0, 900),
        json.dumps({"newsletter": rng.random() < 0.4, "receipt": rng.choice(["paper", "mail"])}),
    )


def _inventory(rng: Random, size: Size, seed: int, now: datetime) -> Iterator[Row]:
    popular = by_popularity(range(1, size.products + 1), seed)
    each, more = divmod(size.inventory, size.stores)
    for store in range(1, size.stores + 1):
        wanted = min(each + (store <= more), size.products)
        # Every store has the best sellers; the rest of its shelves is its own choice.
        core = popular[: wanted // 3]
        shelves = core + rng.sample(popular[len(core) :], wanted - len(core))
        for item in sorted(shelves):
            reorder = rng.randint(4, 16)
            yield (
                store,
                item,
                reorder + rng.randint(-reorder, 60),
                reorder,
                now - timedelta(minutes=rng.randint(1, 5_000)),
            )


def _orders(
    rng: Random, size: Size, shop: Mapping[int, Product], seed: int, now: datetime
) -> Iterator[tuple[Row, list[Row], Row]]:
    stores = Zipf(by_popularity(range(1, size.stores + 1), seed))
    products = Zipf(by_popularity(range(1, size.products + 1), seed))
    customers = Zipf(by_popularity(range(1, size.customers + 1), seed), 0.6)
    span = timedelta(days=30)
    for number in range(1, size.orders + 1):
        placed = now - span + span * number / (size.orders + 1)
        online = rng.random() < 0.3
        lines: list[Row] = []
        for line, item in enumerate(products.pick_some(rng, lines_of_an_order(rng)), 1):
            product = shop[item]
            lines.append((number, line, item, product.name, rng.choice((1, 1, 1, 2, 2, 3, 6)), product.price))
        total = sum((row[4] * row[5] for row in lines), Decimal())
        order = (
            number,
            stores.pick(rng),
            customers.pick(rng) if online or rng.random() < 0.4 else None,
            "online" if online else "pos",
            rng.choice(("shipped", "shipped", "paid")) if online else "completed",
            total,
            placed,
            "Leave it with a neighbour, please." if online and rng.random() < 0.1 else None,
        )
        yield (
            order,
            lines,
            (number, number, payment_method(rng, online), total, UUID(int=rng.getrandbits(128), version=4), placed),
        )


def lines_of_an_order(rng: Random) -> int:
    """How many lines an order has: mostly one to four, `LINES_PER_ORDER` on average."""
    return rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 5))


def payment_method(rng: Random, online: bool) -> str:
    """How an order is paid."""
    return rng.choice(
        ("card", "card", "card", "invoice", "voucher") if online else ("card", "card", "cash", "cash", "voucher")
    )
