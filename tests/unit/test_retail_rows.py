"""The retailer's rows: the same for the same seed, the asked-for size, and right in themselves."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from cdc_lake.cli.demo import DEFAULT_ROWS
from cdc_lake.local.retail import names
from cdc_lake.local.retail.loader import TABLES
from cdc_lake.local.retail.rows import Size, generate
from cdc_lake.local.retail.zipf import Zipf, by_popularity

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def tables(size: Size, seed: int = 1) -> dict[str, list[dict[str, Any]]]:
    made = generate(size, seed=seed, now=NOW)
    return {table: [dict(zip(columns, row, strict=True)) for row in rows] for table, columns, rows in made}


def test_equal_seeds_give_equal_rows_and_another_seed_gives_others() -> None:
    size = Size.for_rows(1_000)
    assert tables(size) == tables(size)
    assert tables(size) != tables(size, seed=2)


def test_tables_come_parents_first() -> None:
    assert tuple(tables(Size.for_rows(300))) == TABLES


@pytest.mark.parametrize("rows", [1_000, 10_000, 50_000, 200_000])
def test_a_size_gives_about_the_rows_that_were_asked_for(rows: int) -> None:
    made = sum(len(table) for table in tables(Size.for_rows(rows)).values())
    assert rows * 0.9 < made < rows * 1.1


def test_the_smallest_size_still_has_every_kind_of_row() -> None:
    assert all(tables(Size.for_rows(0)).values())


def test_the_default_retailer_has_a_few_hundred_stores() -> None:
    assert 200 <= Size.for_rows(DEFAULT_ROWS).stores <= 400


def test_lines_and_payments_add_up_to_the_orders_total() -> None:
    made = tables(Size.for_rows(5_000))
    lines: Counter[int] = Counter()
    for line in made["order_lines"]:
        lines[line["order_id"]] += line["quantity"] * line["unit_price"]
    totals = {order["order_id"]: order["total"] for order in made["orders"]}
    assert dict(lines) == totals
    assert {payment["order_id"]: payment["amount"] for payment in made["payments"]} == totals
    assert all(isinstance(total, Decimal) and total > 0 for total in totals.values())


def test_keys_are_unique_and_stock_is_never_negative() -> None:
    made = tables(Size.for_rows(20_000))
    for table, key in [("stores", "name"), ("products", "sku"), ("products", "name"), ("customers", "email")]:
        assert len({row[key] for row in made[table]}) == len(made[table]), (table, key)
    assert len({(r["store_id"], r["product_id"]) for r in made["inventory"]}) == len(made["inventory"])
    assert len({(r["order_id"], r["line_no"]) for r in made["order_lines"]}) == len(made["order_lines"])
    assert min(row["on_hand"] for row in made["inventory"]) >= 0


def test_some_product_texts_are_too_long_to_be_kept_in_the_row() -> None:
    lengths = [len(row["description"]) for row in tables(Size.for_rows(10_000))["products"]]
    assert 0 < sum(length > 2_700 for length in lengths) < len(lengths) / 10


def test_a_few_stores_make_most_of_the_sales() -> None:
    sold = Counter(row["store_id"] for row in tables(Size.for_rows(50_000))["orders"])
    top = sum(count for _, count in sold.most_common(25))
    assert top > sum(sold.values()) / 3


def test_orders_are_of_the_thirty_days_before_now() -> None:
    placed = [row["placed_at"] for row in tables(Size.for_rows(2_000))["orders"]]
    assert placed == sorted(placed)
    assert (NOW - placed[0]).days < 31
    assert placed[-1] < NOW


def test_more_products_than_the_word_lists_hold_still_have_names_of_their_own() -> None:
    many = [article.name for article in names.articles(Random(1), 9_000)]
    assert len(set(many)) == 9_000


def test_addresses_of_customers_cannot_exist() -> None:
    assert names.email("Zoë", "O'Brien", 7) == "zo.obrien.7@mail.example"


def test_zipf_prefers_the_first_and_reaches_the_last() -> None:
    zipf, rng = Zipf("abcd"), Random(1)
    picked = Counter(zipf.pick(rng) for _ in range(4_000))
    assert picked["a"] > picked["b"] > picked["c"] > picked["d"] > 0


def test_popularity_depends_on_the_seed_and_not_on_the_order_given() -> None:
    assert by_popularity([3, 1, 2], 9) == by_popularity([1, 2, 3], 9)
    assert by_popularity(range(50), 1) != by_popularity(range(50), 2)
