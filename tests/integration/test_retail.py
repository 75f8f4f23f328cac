"""The retail source on a real PostgreSQL: its rows are what was counted, and its books balance at any moment."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc_lake.errors import SourceError
from cdc_lake.local.retail.loader import TABLES, count_rows, create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.shop import Refused
from cdc_lake.local.retail.transactions import MIX
from cdc_lake.local.retail.workload import Workload

pytestmark = pytest.mark.stack

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BALANCE = (Path(__file__).parents[2] / "examples" / "retail" / "out_of_balance.sql").read_bytes()


@pytest.fixture
def shop(database: Any) -> Any:
    """A small loaded retailer."""
    create_schema(database.dsn)
    load(database.dsn, Size.for_rows(2_000), now=NOW)
    return database


def out_of_balance(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(BALANCE).fetchall()


def test_the_database_holds_what_the_loader_counted_and_the_books_balance(database: Any) -> None:
    create_schema(database.dsn)
    said: list[str] = []
    counts = load(database.dsn, Size.for_rows(2_000), now=NOW, progress=said.append)
    assert counts == count_rows(database.dsn)
    assert said == list(TABLES)
    assert out_of_balance(database.dsn) == []


def test_a_second_schema_in_the_same_database_is_refused_in_words(shop: Any) -> None:
    with pytest.raises(SourceError, match="there already"):
        create_schema(shop.dsn)


def test_an_order_whose_lines_were_tampered_with_is_out_of_balance(shop: Any) -> None:
    shop.execute("UPDATE order_lines SET quantity = quantity + 1 WHERE order_id = 1 AND line_no = 1")
    assert [row[0] for row in out_of_balance(shop.dsn)] == [1]


def test_the_counts_of_a_workload_are_the_counts_of_the_database(shop: Any, eventually: Any) -> None:
    before = count_rows(shop.dsn)
    workload = Workload(shop.dsn, seed=3, rate=2_000, workers=4)
    workload.start()
    eventually(lambda: workload.stats().transactions > 800, "eight hundred transactions")
    assert out_of_balance(shop.dsn) == []  # also while it trades
    stats = workload.stop()
    assert stats.failed == stats.unknown == 0
    assert {table: before[table] + stats.net_rows(table) for table in TABLES} == count_rows(shop.dsn)
    assert out_of_balance(shop.dsn) == []
    with shop.connect() as connection:
        sold = connection.execute("SELECT count(*) FROM orders WHERE order_id = ANY(%s)", [list(stats.orders)])
        assert sold.fetchone() == (stats.acknowledged["sale"],)


@pytest.mark.parametrize("kind", MIX)
def test_every_kind_of_transaction_changes_exactly_the_rows_it_counts(shop: Any, kind: str, eventually: Any) -> None:
    workload = Workload(shop.dsn, seed=5)
    loaded = {(table, "insert"): count for table, count in count_rows(shop.dsn).items()}
    # A session's counts reach the statistics a moment after its end.
    eventually(lambda: changed_rows(shop) == loaded, "the load to be counted")
    effect = workload.perform(kind)
    wanted = {place: loaded.get(place, 0) + n for place, n in {**dict.fromkeys(loaded, 0), **effect.rows}.items()}
    wanted = {place: n for place, n in wanted.items() if n}
    eventually(lambda: changed_rows(shop) == wanted, f"the changes of a {kind} to be counted as {wanted}")
    assert out_of_balance(shop.dsn) == []


def changed_rows(shop: Any) -> dict[tuple[str, str], int]:
    """Rows inserted, updated and deleted since the beginning, as PostgreSQL itself counts them."""
    with shop.connect() as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        rows = connection.execute("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables").fetchall()
    return {
        (table, operation): count
        for table, *counts in rows
        for operation, count in zip(("insert", "update", "delete"), counts, strict=True)
        if count
    }


def test_a_sale_is_refused_when_the_shelves_are_empty(shop: Any) -> None:
    shop.execute("UPDATE inventory SET on_hand = 0")
    before = count_rows(shop.dsn)
    workload = Workload(shop.dsn)
    with pytest.raises(Refused):
        workload.perform("sale")
    assert count_rows(shop.dsn) == before
    assert workload.stats().refused == 50


def test_what_is_sold_out_leaves_an_empty_shelf_whatever_was_there(shop: Any) -> None:
    for change in ("UPDATE inventory SET on_hand = 30", "UPDATE inventory SET on_hand = least(on_hand, 1)"):
        shop.execute(change)
        order = Workload(shop.dsn).perform("sell_out").key
        with shop.connect() as connection:
            left = connection.execute(
                "SELECT i.on_hand FROM order_lines l JOIN orders o USING (order_id)"
                " JOIN inventory i USING (store_id, product_id) WHERE l.order_id = %s",
                [order],
            ).fetchall()
        assert left == [(0,)]


def test_trade_goes_on_after_its_connections_were_cut(shop: Any, eventually: Any) -> None:
    workload = Workload(shop.dsn, rate=500)
    before = count_rows(shop.dsn)
    workload.start()
    eventually(lambda: workload.stats().transactions > 50, "the first transactions")
    shop.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    eventually(lambda: workload.stats().failed + workload.stats().unknown > 0, "the cut to be noticed")
    so_far = workload.stats().transactions
    eventually(lambda: workload.stats().transactions > so_far + 50, "trade to go on")
    stats = workload.stop()
    assert out_of_balance(shop.dsn) == []
    # Whether an unknown transaction was committed nobody can say; all others are as counted.
    extra = count_rows(shop.dsn)["orders"] - before["orders"] - stats.net_rows("orders")
    assert 0 <= extra <= stats.unknown


def test_a_price_change_leaves_long_descriptions_where_they_are(shop: Any) -> None:
    with shop.connect() as connection:
        stored = connection.execute(
            "SELECT count(*) FROM products WHERE length(description) > 2700"
            " AND pg_column_toast_chunk_id(description) IS NOT NULL"
        ).fetchone()
    assert stored is not None
    assert stored[0] > 0
