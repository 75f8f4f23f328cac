"""The dbt project in examples/dbt builds on a lake, its tests pass, and they fail when the lake is not right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

import cdc_lake
from tests.layers import layer
from tests.shops import Shop

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "examples" / "dbt"


def dbt(folder: Path, shop: Shop, *arguments: str, as_of: str = "") -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of a command, and its result for each node."""
    if sys.version_info >= (3, 14):
        pytest.skip("what requirements.txt names of dbt does not run on Python 3.14")
    requirements = [line.partition("#")[0].strip() for line in (PROJECT / "requirements.txt").read_text().splitlines()]
    own = {
        "CDC_LAKE_CONFIG": str(shop.config),
        "CDC_LAKE_AS_OF": as_of,
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RETAIL_DUCKDB": str(folder / "retail.duckdb"),
    }
    program = layer("dbt", *requirements).with_name("dbt")
    done = subprocess.run(
        [program, *arguments], cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    file = folder / "target" / "run_results.json"
    assert file.exists(), done.stdout + done.stderr
    results = json.loads(file.read_text())["results"]
    return done.returncode, {r["unique_id"].split(".")[2]: r for r in results}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A price was raised in its first transaction; after the second, the lines of an order do not sum to its total."""
    shop = Shop.open(tmp_path)
    shop.change(("products", (1,), {"price": Decimal("9.99")}))
    order = shop.rows["orders"][1,]
    shop.change(("orders", (1,), {"status": "completed", "total": order["total"] + 1}))
    return shop


def test_the_project_builds_on_a_lake_and_its_tests_find_what_is_wrong_in_one(tmp_path: Path, shop: Shop) -> None:
    code, nodes = dbt(tmp_path, shop, "build", as_of="tx:00001")
    assert {name: n["message"] for name, n in nodes.items() if n["status"] not in ("success", "pass")} == {}
    assert code == 0
    assert {"daily_sales", "stock_cover", "price_changes", "lines_sum_to_their_order"} <= set(nodes)

    with (
        duckdb.connect(str(tmp_path / "retail.duckdb")) as made,
        cdc_lake.connect(shop.config, as_of="tx:00001") as lake,
    ):
        days = "SELECT sum(revenue) FROM daily_sales"
        orders = "SELECT sum(total) FROM orders WHERE status <> 'cancelled'"
        assert made.execute(days).fetchall() == lake.execute(orders).fetchall()
        changed = made.execute("SELECT product_id, new_price FROM price_changes").fetchall()
        assert changed == [(1, Decimal("9.99"))]

    code, nodes = dbt(tmp_path, shop, "test", "--select", "lines_sum_to_their_order")
    assert (code, nodes["lines_sum_to_their_order"]["failures"]) == (1, 1)
