"""All notebooks run on a lake that the real stack has filled, and say the numbers that PostgreSQL says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbclient
import nbformat
import psycopg
import pytest
import yaml
from kafka.admin import KafkaAdminClient

import cdc_lake
from cdc_lake.capture.connect import ConnectClient
from cdc_lake.capture.postgres import open_source
from cdc_lake.capture.register import register
from cdc_lake.capture.remove import remove
from cdc_lake.cli.sink_runner import build_sink
from cdc_lake.config import Config, load_config
from cdc_lake.connector_file import load_connector
from cdc_lake.local.retail import loader
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from cdc_lake.sqltext import ident
from tests.integration.conftest import RunningStack, wait_for

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
TRADE = (
    *("sale",) * 12,
    *("price",) * 6,
    *("stocktake",) * 3,
    *("return", "cancel", "ship", "restock", "delist", "launch", "erase"),
)


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop whose every change has landed: its configuration, and its database to compare with."""

    config: Path
    dsn: str
    missing: int
    changed: int

    def rows(self, sql: str) -> list[list[str]]:
        """What PostgreSQL answers, as texts."""
        with psycopg.connect(self.dsn) as connection:
            return _texts(connection.execute(sql.encode()).fetchall())


@pytest.fixture(scope="module")
def shop(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("a shop")
    name = f"notebooks_{os.getpid()}"
    dsn = urlsplit(stack.dsn)._replace(path=f"/{name}").geturl()
    with _database(stack, name):
        loader.create_schema(dsn)
        loader.load(dsn, Size.for_rows(4_000))
        config = _configure(stack, folder, name, dsn)
        try:
            register(config, config.connector_file(config.all_sources[0]), say=lambda line: None)
            workload, missing = Workload(dsn), 0
            for kind in TRADE:
                before = _pieces(dsn)
                workload.perform(kind)
                missing += before - _pieces(dsn) if kind == "stocktake" else 0
            last = workload.perform("signup").key
            wait_for(lambda: _landed(config, last), "the last transaction in the lake", seconds=120)
            changed = sum(n for operations in workload.stats().rows.values() for n in operations.values())
            yield Shop(folder / "cdc-lake.yaml", dsn, missing, changed)
        finally:
            _forget(stack, config)


def _pieces(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return int(connection.execute("SELECT sum(on_hand) FROM inventory").fetchall()[0][0])


def _configure(stack: RunningStack, folder: Path, name: str, dsn: str) -> Config:
    settings = json.loads((ROOT / "connectors" / "pos.json").read_text())["config"]
    own = {"topic.prefix": name, "slot.name": name, "publication.name": name}
    (folder / "connectors").mkdir()
    (folder / "connectors" / f"{name}.json").write_text(json.dumps({"name": name, "config": {**settings, **own}}))
    config = {
        "source": {"name": name, "dsn": dsn},
        "kafka": {"bootstrap": stack.bootstrap},
        "connect": {"url": stack.connect_url},
    }
    (folder / "cdc-lake.yaml").write_text(yaml.safe_dump(config))
    return load_config(folder / "cdc-lake.yaml", environ={})


def _landed(config: Config, customer: int) -> bool:
    """Land what is in Kafka now; whether the customer is in the lake."""
    build_sink(config, config.all_sources[0]).run(until_caught_up=True)
    with cdc_lake.connect(config) as lake:
        if lake.execute("""SELECT 1 FROM lake.tables WHERE "table" = 'customers'""").fetchone() is None:
            return False
        return lake.execute("SELECT 1 FROM customers WHERE customer_id = ?", [customer]).fetchone() is not None


@contextmanager
def _database(stack: RunningStack, name: str) -> Iterator[None]:
    role = ident(f"cdc_lake_{name}")
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {ident(name)}".encode())
        try:
            yield
        finally:
            admin.execute(f"DROP DATABASE {ident(name)} WITH (FORCE)".encode())
            admin.execute(f"DROP ROLE IF EXISTS {role}".encode())


def _forget(stack: RunningStack, config: Config) -> None:
    """Take the connector, its slot and its topics away again."""
    connector = load_connector(config.connector_file(config.all_sources[0]))
    with ConnectClient(config.connect_url) as client:
        if client.config(connector.name) is not None:
            remove(client, connector, lambda: open_source(config.dsn(config.all_sources[0])), drop_slot=True)
    admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap)
    own = [t for t in admin.list_topics() if t.startswith(f"{connector.name}.") or t.endswith(f".{connector.name}")]
    admin.delete_topics(own)
    admin.close()


def _texts(rows: list[Any]) -> list[list[str]]:
    return sorted([str(value) for value in row] for row in rows)


@pytest.fixture(scope="module")
def sales(shop: Shop) -> Any:
    """The sales notebook, executed, with a cell at its end that prints what its SQL cells found."""
    notebook = nbformat.read(NOTEBOOKS / "explore_sales.ipynb", as_version=4)
    found = "{'hours': list(hours), 'days': list(days), 'products': list(products)}"
    more = f"import json\nprint(json.dumps({found}, default=lambda v: list(v) if isinstance(v, tuple) else str(v)))"
    notebook.cells.append(nbformat.v4.new_code_cell(more, id="found"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDC_LAKE_CONFIG", str(shop.config))
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return notebook


def _sql_of(notebook: nbformat.NotebookNode, cell_id: str) -> str:
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    magic, _, sql = cell.source.partition("\n")
    assert magic.startswith("%%sql")
    return str(sql)


def test_every_cell_of_the_sales_notebook_runs_and_every_chart_is_drawn(sales: nbformat.NotebookNode) -> None:
    outputs = {cell.id: cell.outputs for cell in sales.cells if cell.cell_type == "code"}
    assert [o for found in outputs.values() for o in found if o.output_type == "error"] == []
    drawn = [cell for cell, found in outputs.items() if any("image/png" in o.get("data", {}) for o in found)]
    assert drawn == ["hours-plot", "days-plot", "products-plot", "undone-plot", "fresh-plot"]
    words = [o for found in outputs.values() for o in found if o.get("name") == "stderr"]
    assert words == []


@pytest.mark.parametrize("question", ["hours", "days"])
def test_the_sql_of_the_sales_notebook_says_in_postgresql_what_it_says_in_the_lake(
    shop: Shop, sales: nbformat.NotebookNode, question: str
) -> None:
    found = json.loads(sales.cells[-1].outputs[0].text)[question]
    assert len(found) > 1
    assert _texts(found) == shop.rows(_sql_of(sales, f"{question}-sql"))


def test_the_sales_notebook_still_knows_what_was_taken_back(shop: Shop, sales: nbformat.NotebookNode) -> None:
    (table,) = [o for cell in sales.cells if cell.id == "undone-plot" for o in cell.outputs]
    assert "image/png" in table.data
    with cdc_lake.connect(shop.config) as lake:
        undone = lake.execute(_sql_of(sales, "undone-sql")).fetchall()
    assert sum(row[1] for row in undone) >= 1
    assert all(product and pieces > 0 and worth > 0 for product, _, pieces, worth in undone)


def test_the_stock_notebook_is_exported_with_every_chart_and_without_an_error(shop: Shop, tmp_path: Path) -> None:
    page = tmp_path / "stock.html"
    command = [sys.executable, "-m", "marimo", "export", "html", str(NOTEBOOKS / "explore_stock.py"), "-o", str(page)]
    done = subprocess.run(
        [*command, "--", "--config", str(shop.config)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.count("data:image/png;base64") == 6
    assert "marimo-error" not in text


@pytest.fixture(scope="module")
def stock(shop: Shop) -> tuple[list[str], dict[str, Any]]:
    """The stock notebook run as a program: the findings it prints, and what its cells found."""
    found = "{'stores': [list(r.values()) for r in d['stores']], 'prices': [r['price'] for r in d['prices']]}"
    program = f"""import json, explore_stock
d = explore_stock.app.run()[1]
print(json.dumps({{"product": d["product_choice"].value, **{found}}}, default=str))"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=NOTEBOOKS,
        env={**os.environ, "CDC_LAKE_CONFIG": str(shop.config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *findings, values = done.stdout.splitlines()
    return findings, json.loads(values)


def test_the_stock_notebook_as_a_program_prints_its_findings(shop: Shop, stock: tuple[list[str], Any]) -> None:
    first, *findings = stock[0]
    assert first.startswith(f"The lake of {shop.config}, up to the commit of ")
    assert len(findings) == 6
    assert all(line.startswith("- ") and any(c.isdigit() for c in line) for line in findings)


def test_the_stock_of_every_store_in_the_notebook_is_that_of_postgresql(
    shop: Shop, stock: tuple[Any, dict[str, Any]]
) -> None:
    assert _texts(stock[1]["stores"]) == shop.rows(
        "SELECT s.name, s.region, count(*), sum(on_hand), sum(on_hand * p.cost), sum((on_hand < reorder_point)::int),"
        " sum((on_hand = 0)::int) FROM inventory JOIN stores s USING (store_id) JOIN products p USING (product_id)"
        " GROUP BY s.store_id"
    )


def test_the_price_history_in_the_notebook_ends_at_the_price_in_postgresql(
    shop: Shop, stock: tuple[Any, dict[str, Any]]
) -> None:
    prices, product = stock[1]["prices"], int(stock[1]["product"])
    assert len(prices) > 1
    assert [[prices[-1]]] == shop.rows(f"SELECT price FROM products WHERE product_id = {product}")


PROGRAM = """import importlib, json
from matplotlib.figure import Figure
wanted = {"demand": ["hours"], "stockouts": ["empty_now"], "prices": ["found"], "shrinkage": ["losses"],
          "last_night": ["events", "prices", "affected"]}
said = {}
for name, kept in wanted.items():
    values = importlib.import_module(f"explore_{name}").app.run()[1]
    axes = [figure.axes[0] for figure in values.values() if isinstance(figure, Figure)]
    drawn = [[a.get_title(loc="left").strip(), a.get_xlabel(), a.get_ylabel(), len(a.get_yticklabels())] for a in axes]
    said[name] = {"charts": drawn, **{one: [list(row.values()) for row in values[one]] for one in kept}}
print(json.dumps(said, default=str))"""


@pytest.fixture(scope="module")
def explored(shop: Shop) -> dict[str, dict[str, Any]]:
    """What each of the other marimo notebooks found, run as programs: their charts, and what their cells hold."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=NOTEBOOKS,
        env={**os.environ, "CDC_LAKE_CONFIG": str(shop.config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_every_chart_says_what_was_found_and_names_its_axes(explored: dict[str, dict[str, Any]]) -> None:
    charts = {name: found["charts"] for name, found in explored.items()}
    assert {name: len(drawn) for name, drawn in charts.items()} == {
        "demand": 3, "stockouts": 3, "prices": 2, "shrinkage": 3, "last_night": 3
    }  # fmt: skip
    for title, x, y, names in (chart for drawn in charts.values() for chart in drawn):
        assert len(title) > 10
        assert x
        assert y or names, title


def test_the_revenue_of_each_hour_of_the_week_is_that_of_postgresql(
    shop: Shop, explored: dict[str, dict[str, Any]]
) -> None:
    found = [
        [str(int(day)), str(int(hour)), total, str(orders)] for day, hour, total, orders in explored["demand"]["hours"]
    ]
    assert sorted(found) == shop.rows(
        "SELECT extract(isodow FROM placed_at AT TIME ZONE 'UTC')::int,"
        " extract(hour FROM placed_at AT TIME ZONE 'UTC')::int, sum(total), count(*)"
        " FROM orders WHERE status <> 'cancelled' GROUP BY 1, 2"
    )


def test_the_shelves_that_are_empty_now_are_those_of_postgresql(
    shop: Shop, explored: dict[str, dict[str, Any]]
) -> None:
    found = [row[:2] for row in explored["stockouts"]["empty_now"]]
    assert sorted(found) == shop.rows(
        "SELECT s.name, p.name FROM inventory JOIN stores s USING (store_id) JOIN products p USING (product_id)"
        " WHERE on_hand = 0"
    )


def test_every_change_of_a_price_is_found_and_the_last_one_is_the_price_in_postgresql(
    shop: Shop, explored: dict[str, dict[str, Any]]
) -> None:
    found = explored["prices"]["found"]
    assert 0 < len(found) <= TRADE.count("price")
    last = {row[0]: row[3] for row in found}
    prices = dict(shop.rows("SELECT name, price FROM products"))
    assert {name: price for name, price in last.items() if name in prices and prices[name] != price} == {}


def test_what_left_without_a_sale_is_what_the_stocktakes_found_missing(
    shop: Shop, explored: dict[str, dict[str, Any]]
) -> None:
    assert shop.missing > 0
    assert sum(row[4] for row in explored["shrinkage"]["losses"]) == shop.missing


def test_last_night_knows_every_row_that_changed_and_the_customers_behind_them(
    shop: Shop, explored: dict[str, dict[str, Any]]
) -> None:
    night = explored["last_night"]
    assert len(night["events"]) == shop.changed
    assert len(night["prices"]) <= TRADE.count("price")
    cancelled = {str(customer) for why, customer in night["affected"] if why == "order was cancelled"}
    assert [[c] for c in sorted(cancelled)] == shop.rows(
        "SELECT DISTINCT customer_id FROM orders WHERE status = 'cancelled' AND customer_id IS NOT NULL"
    )
