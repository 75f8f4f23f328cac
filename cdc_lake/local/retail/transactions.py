"""The business of the shop: each function is one transaction over several tables, committed by the caller.

Locks are taken in one order everywhere (customer, order, inventory by store and product, product, lines), so that
concurrent transactions wait for each other and never deadlock. Every transaction keeps, for each order,
`sum(line_total) = total = sum(payments.amount)`, and never lets stock fall below zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from psycopg.rows import namedtuple_row

from cdc_lake.local.retail import names, rows
from cdc_lake.local.retail.loader import Connection
from cdc_lake.local.retail.shop import Effect, Refused, Shop

Transaction = Callable[[Connection, Shop, Random], Effect]


def sale(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """Sell a basket: stock down, order, lines and payment in. Refused when a shelf holds too little."""
    changed: Counter[tuple[str, str]] = Counter()
    online = rng.random() < 0.3
    store = shop.store(rng)
    customer = _collect_points(connection, shop, rng, changed) if online or rng.random() < 0.4 else None
    wanted = {item: rng.choice((1, 1, 1, 2, 2, 3)) for item in shop.basket(rng, store, rows.lines_of_an_order(rng))}
    return _sell(connection, rng, store, wanted, changed, customer=customer, online=online)


def sell_out(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A customer takes the last pieces from a shelf that nobody has touched for long, four to twelve where one has so
    few."""
    found = _query(
        connection,
        "SELECT store_id, product_id, on_hand FROM inventory WHERE on_hand > 0"
        " ORDER BY on_hand BETWEEN 4 AND 12 DESC, on_hand < 4, updated_at, store_id, product_id"
        " LIMIT 1 FOR UPDATE SKIP LOCKED",
        (),
    )
    if not found:
        raise Refused("all shelves are empty")
    (shelf,) = found
    return _sell(connection, rng, shelf.store_id, {shelf.product_id: shelf.on_hand}, Counter())


def _sell(
    connection: Connection,
    rng: Random,
    store: int,
    wanted: dict[int, int],
    changed: Counter[tuple[str, str]],
    *,
    customer: int | None = None,
    online: bool = False,
) -> Effect:
    shelf = _query(
        connection,
        "SELECT i.product_id, i.on_hand, p.name, p.price FROM inventory i JOIN products p USING (product_id)"
        " WHERE i.store_id = %s AND i.product_id = ANY(%s) ORDER BY i.product_id FOR UPDATE OF i",
        (store, list(wanted)),
    )
    if not shelf or any(item.on_hand < wanted[item.product_id] for item in shelf):
        raise Refused("not enough in stock")
    total = sum((item.price * wanted[item.product_id] for item in shelf), Decimal())
    (order,) = _query(
        connection,
        "INSERT INTO orders (store_id, customer_id, channel, status, total, placed_at)"
        " VALUES (%s, %s, %s, %s, %s, now()) RETURNING order_id",
        (store, customer, *(("online", "paid") if online else ("pos", "completed")), total),
    )
    _hand_over(connection, store, order.order_id, shelf, wanted)
    _pay(connection, rng, order.order_id, total, rows.payment_method(rng, online))
    changed.update({("orders", "insert"): 1, ("payments", "insert"): 1})
    changed.update({("order_lines", "insert"): len(shelf), ("inventory", "update"): len(shelf)})
    return Effect("sale", changed, order.order_id, open_order=online)


def _hand_over(connection: Connection, store: int, order: int, shelf: list[Any], wanted: dict[int, int]) -> None:
    """Write the lines of an order, and take its pieces off the shelf."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO order_lines (order_id, line_no, product_id, product_name, quantity, unit_price)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (order, n, item.product_id, item.name, wanted[item.product_id], item.price)
                for n, item in enumerate(shelf, 1)
            ],
        )
        cursor.executemany(
            "UPDATE inventory SET on_hand = on_hand - %s, updated_at = now() WHERE store_id = %s AND product_id = %s",
            [(wanted[item.product_id], store, item.product_id) for item in shelf],
        )


def restock(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A delivery fills up to eight shelves of a store that are at their reorder point."""
    store = shop.store(rng)
    low = _query(
        connection,
        "SELECT product_id FROM inventory WHERE store_id = %s AND on_hand <= reorder_point"
        " ORDER BY product_id LIMIT 8 FOR UPDATE",
        (store,),
    )
    if not low:
        raise Refused("nothing to restock")
    connection.execute(
        "UPDATE inventory SET on_hand = on_hand + %s, updated_at = now() WHERE store_id = %s AND product_id = ANY(%s)",
        (rng.randint(24, 60), store, [item.product_id for item in low]),
    )
    return Effect("restock", {("inventory", "update"): len(low)}, store)


def stocktake(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """Somebody counts up to three shelves of a store, and one to three pieces fewer are there than the books say."""
    store = shop.store(rng)
    counted = _query(
        connection,
        "SELECT product_id, on_hand FROM inventory WHERE store_id = %s AND product_id = ANY(%s) AND on_hand > 0"
        " ORDER BY product_id FOR UPDATE",
        (store, shop.basket(rng, store, 3)),
    )
    if not counted:
        raise Refused("nothing to count")
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE inventory SET on_hand = on_hand - %s, updated_at = now() WHERE store_id = %s AND product_id = %s",
            [(min(rng.randint(1, 3), shelf.on_hand), store, shelf.product_id) for shelf in counted],
        )
    return Effect("stocktake", {("inventory", "update"): len(counted)}, store)


def give_back(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A customer returns one piece: line, total and stock follow, and the money goes back."""
    order = _lock_order(connection, shop.order(rng), ("completed", "shipped"))
    lines = _query(
        connection,
        "SELECT line_no, product_id, quantity, unit_price FROM order_lines WHERE order_id = %s ORDER BY line_no",
        (order.order_id,),
    )
    line = rng.choice(lines)
    changed: Counter[tuple[str, str]] = Counter({("orders", "update"): 1, ("payments", "insert"): 1})
    changed["inventory", "update"] = connection.execute(
        "UPDATE inventory SET on_hand = on_hand + 1, updated_at = now() WHERE store_id = %s AND product_id = %s",
        (order.store_id, line.product_id),
    ).rowcount
    if line.quantity > 1:
        statement = "UPDATE order_lines SET quantity = quantity - 1 WHERE order_id = %s AND line_no = %s"
    else:
        statement = "DELETE FROM order_lines WHERE order_id = %s AND line_no = %s"
    changed["order_lines", statement.split()[0].lower()] = connection.execute(
        statement.encode(), (order.order_id, line.line_no)
    ).rowcount
    empty = len(lines) == 1 and line.quantity == 1
    connection.execute(
        "UPDATE orders SET total = total - %s, status = %s WHERE order_id = %s",
        (line.unit_price, "returned" if empty else order.status, order.order_id),
    )
    _pay(connection, rng, order.order_id, -line.unit_price, "card")
    return Effect("return", changed, order.order_id)


def cancel(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """An online order is called off before it leaves: its lines are deleted, stock and money go back."""
    order = _lock_order(connection, shop.take_open_order(), ("paid",))
    stocked = _query(
        connection,
        "SELECT i.product_id FROM inventory i JOIN order_lines l USING (product_id)"
        " WHERE i.store_id = %s AND l.order_id = %s ORDER BY i.product_id FOR UPDATE OF i",
        (order.store_id, order.order_id),
    )
    connection.execute(
        "UPDATE inventory i SET on_hand = i.on_hand + l.quantity, updated_at = now() FROM order_lines l"
        " WHERE i.store_id = %s AND l.order_id = %s AND l.product_id = i.product_id",
        (order.store_id, order.order_id),
    )
    lines = connection.execute("DELETE FROM order_lines WHERE order_id = %s", (order.order_id,)).rowcount
    connection.execute(
        "UPDATE orders SET status = 'cancelled', total = 0, note = 'cancelled by the customer' WHERE order_id = %s",
        (order.order_id,),
    )
    _pay(connection, rng, order.order_id, -order.total, "card")
    changed = {("inventory", "update"): len(stocked), ("order_lines", "delete"): lines}
    return Effect("cancel", {**changed, ("orders", "update"): 1, ("payments", "insert"): 1}, order.order_id)


def ship(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """An online order leaves the house."""
    order = _lock_order(connection, shop.take_open_order(), ("paid",))
    connection.execute("UPDATE orders SET status = 'shipped' WHERE order_id = %s", (order.order_id,))
    return Effect("ship", {("orders", "update"): 1}, order.order_id)


def change_price(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A product gets another price, between 10 % less and 12 % more, never below five cents."""
    return set_price(connection, shop.product(rng), rng)


def set_price(connection: Connection, product: int, rng: Random) -> Effect:
    """Change the price of one product. Refused when it is gone."""
    changed = connection.execute(
        "UPDATE products SET price = greatest(round(price * %s, 2), 0.05), updated_at = now() WHERE product_id = %s",
        (Decimal(rng.choice((90, 95, 97, 103, 105, 112))) / 100, product),
    ).rowcount
    if not changed:
        raise Refused("the product is gone")
    return Effect("price", {("products", "update"): changed}, product)


def signup(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A new customer."""
    (row,) = _query(connection, "SELECT nextval(pg_get_serial_sequence('customers', 'customer_id')) AS number", ())
    _insert(connection, "customers", rows.CUSTOMER_COLUMNS, rows.customer_row(rng, row.number, datetime.now(UTC)))
    return Effect("signup", {("customers", "insert"): 1}, row.number)


def erase(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A customer asks to be forgotten: the person goes, the orders stay without a name."""
    customer = shop.customer(rng)
    if not _query(connection, "SELECT 1 FROM customers WHERE customer_id = %s FOR UPDATE", (customer,)):
        raise Refused("the customer is gone")
    orders = connection.execute("UPDATE orders SET customer_id = NULL WHERE customer_id = %s", (customer,)).rowcount
    connection.execute("DELETE FROM customers WHERE customer_id = %s", (customer,))
    return Effect("erase", {("orders", "update"): orders, ("customers", "delete"): 1}, customer)


def launch(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A new product on the shelves of up to ten stores."""
    (row,) = _query(connection, "SELECT nextval(pg_get_serial_sequence('products', 'product_id')) AS number", ())
    product = rows.product_row(rng, row.number, names.article(rng), datetime.now(UTC))
    _insert(connection, "products", rows.PRODUCT_COLUMNS, product)
    stores = sorted({shop.store(rng) for _ in range(10)})
    for store in stores:
        _insert(connection, "inventory", rows.INVENTORY_COLUMNS, (store, row.number, 24, 6, datetime.now(UTC)))
    return Effect("launch", {("products", "insert"): 1, ("inventory", "insert"): len(stores)}, row.number)


def delist(connection: Connection, shop: Shop, rng: Random) -> Effect:
    """A slow seller is taken off the list: product and shelves are deleted, old receipts keep its name."""
    product = shop.product(rng, slow=True)
    shelves = _query(
        connection, "SELECT 1 FROM inventory WHERE product_id = %s ORDER BY store_id FOR UPDATE", (product,)
    )
    if not _query(connection, "SELECT 1 FROM products WHERE product_id = %s FOR UPDATE", (product,)):
        raise Refused("the product is gone")
    # What the foreign keys would do by themselves is done here, so that every changed row is counted.
    lines = connection.execute("UPDATE order_lines SET product_id = NULL WHERE product_id = %s", (product,)).rowcount
    connection.execute("DELETE FROM inventory WHERE product_id = %s", (product,))
    connection.execute("DELETE FROM products WHERE product_id = %s", (product,))
    changed = {("order_lines", "update"): lines, ("inventory", "delete"): len(shelves), ("products", "delete"): 1}
    return Effect("delist", changed, product)


# How often each happens; the sum is 100.
MIX: dict[str, tuple[Transaction, float]] = {
    "sale": (sale, 65),
    "restock": (restock, 10),
    "stocktake": (stocktake, 1),
    "return": (give_back, 6),
    "ship": (ship, 6),
    "price": (change_price, 4),
    "cancel": (cancel, 4),
    "signup": (signup, 2),
    "erase": (erase, 1),
    "launch": (launch, 0.5),
    "delist": (delist, 0.5),
    "sell_out": (sell_out, 0),  # only when it is asked for
}


def _query(connection: Connection, statement: str, values: tuple[Any, ...]) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def _lock_order(connection: Connection, order: int, states: tuple[str, ...]) -> Any:
    found = _query(
        connection,
        "SELECT order_id, store_id, status::text, total FROM orders WHERE order_id = %s FOR UPDATE",
        (order,),
    )
    if not found or found[0].status not in states:
        raise Refused("the order has moved on")
    return found[0]


def _collect_points(connection: Connection, shop: Shop, rng: Random, changed: Counter[tuple[str, str]]) -> int | None:
    customer = shop.customer(rng)
    collected = connection.execute(
        "UPDATE customers SET loyalty_points = loyalty_points + 5 WHERE customer_id = %s", (customer,)
    ).rowcount
    changed["customers", "update"] += collected
    return customer if collected else None


def _pay(connection: Connection, rng: Random, order: int, amount: Decimal, method: str) -> None:
    connection.execute(
        "INSERT INTO payments (order_id, method, amount, reference, paid_at) VALUES (%s, %s, %s, %s, now())",
        (order, method, amount, UUID(int=rng.getrandbits(128), version=4)),
    )


def _insert(connection: Connection, table: str, columns: tuple[str, ...], row: rows.Row) -> None:
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
    connection.execute(statement.encode(), row)
