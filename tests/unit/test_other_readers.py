"""What Polars, delta-rs, DuckDB's delta extension and Spark read of a lake is what the documentation says they do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

import cdc_lake
from benchmarks.peers import spark_environment
from cdc_lake.config import load_config
from cdc_lake.events import TableId
from cdc_lake.project import rules
from cdc_lake.project.fold import fold_source
from cdc_lake.query.session import open_lake
from tests.lake_model import SOURCE, append_log, append_schemas, log_row, schema_row
from tests.layers import layer
from tests.shops import NOW, Shop
from tests.unit.test_docs import ROOT, Block, of_kind

PAGES = [ROOT / "docs" / "how-to" / name for name in ("other-readers.md", "scripts.md")]
BLOCKS = [b for b in of_kind("python", "sql") if b.page in PAGES]
FOLDED = ("orders", "products", "payments")


def fold(shop: Shop, *tables: str) -> None:
    lake = open_lake(load_config(shop.config))
    done = list(fold_source(lake, SOURCE, lambda _: True, {TableId("public", t) for t in tables}))
    assert {d.error for d in done} == {None}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Folded after its first transaction; the second is the tail."""
    shop = Shop.open(tmp_path_factory.mktemp("shop"))
    shop.change(("products", (1,), {"price": Decimal("9.99")}), ("orders", (3,), None))
    fold(shop, *FOLDED)
    shop.change(("orders", (1,), {"status": "returned", "total": Decimal("0.00")}))
    return shop


def path(shop: Shop, kind: str, table: str) -> str:
    return str(shop.folder / "lake" / SOURCE / kind / "public" / table)


def run(shop: Shop, python: str | Path, program: str) -> str:
    done = subprocess.run(
        [python, "-c", program],
        cwd=shop.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def folded(shop: Shop, sql: str) -> list[tuple[Any, ...]]:
    """What a session shows of the moment of the fold."""
    with cdc_lake.connect(shop.config, as_of="tx:00001") as lake:
        return lake.execute(sql).fetchall()


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "python" and "# spark" not in b.text], ids=str)
def test_a_python_block_of_the_pages_runs_and_prints(
    shop: Shop, block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.folder)
    exec(block.text, {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("table", FOLDED)
def test_polars_reads_the_rows_of_the_fold_typed_and_without_the_tail(shop: Shop, table: str) -> None:
    found = pl.read_delta(path(shop, "current", table)).drop("__key", "__unknown")
    with cdc_lake.connect(shop.config, as_of="tx:00001") as lake:
        shown = lake.sql(f"FROM {table}").pl()
    key = shown.columns[0]
    assert found.sort(key).equals(shown.sort(key))


def test_delta_rs_reads_the_same_from_a_plain_table(shop: Shop) -> None:
    for kind in ("current", "history", "log"):
        table = DeltaTable(path(shop, kind, "orders"))
        versions = table.protocol()
        assert (versions.min_reader_version, versions.min_writer_version) == (1, 2)
        assert versions.reader_features is None
        assert {k for k in table.metadata().configuration if "columnMapping" in k or "enable" in k} == set()
    rows = DeltaTable(path(shop, "current", "orders")).to_pyarrow_table(columns=["order_id", "total"]).to_pylist()
    assert sorted((r["order_id"], r["total"]) for r in rows) == folded(
        shop, "SELECT order_id, total FROM orders ORDER BY 1"
    )


def test_duckdb_reads_the_same_with_its_delta_extension(shop: Shop) -> None:
    (block,) = [b for b in BLOCKS if b.text.startswith("-- duckdb")]
    install, load, query = (s.strip() for s in block.text.partition("\n")[2].split(";") if s.strip())
    assert (install, load) == ("INSTALL delta", "LOAD delta")
    program = f"""
import duckdb, duckdb_extension_delta, pathlib
(file,) = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
con = duckdb.connect()
con.execute(f"LOAD '{{file}}'")
print(sorted(con.execute({query!r}).fetchall()))
parts = "SELECT __part, count(*) FROM delta_scan('lake/pos/history/public/products') GROUP BY 1"
print(sorted(con.execute(parts).fetchall()))
"""
    printed = run(shop, layer("duckdb-delta", "duckdb==1.5.5", "duckdb-extension-delta==1.5.5"), program).splitlines()
    assert printed[0] == str(
        folded(shop, "SELECT channel, count(*), sum(total) FROM orders GROUP BY channel ORDER BY 1")
    )
    assert printed[1] == str([("closed", 1), ("open", len(shop.rows["products"]))])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17")
def test_spark_reads_the_same(shop: Shop) -> None:
    (block,) = [b for b in BLOCKS if b.text.startswith("# spark")]
    more = 'print({r["channel"]: r["sum(total)"] for r in orders.groupBy("channel").sum("total").collect()})'
    printed = run(shop, spark_environment(), f"{block.text}\n{more}").splitlines()
    expected = dict(folded(shop, "SELECT channel, sum(total) FROM orders GROUP BY channel"))
    assert eval(printed[-1], {"Decimal": Decimal}) == expected  # noqa: S307 - what our own program printed


def versions(shop: Shop, block: Block) -> list[tuple[Any, ...]]:
    """What the block of the page makes of a folded history."""
    scope: dict[str, Any] = {}
    exec(block.text.replace("lake/pos", str(shop.folder / "lake" / SOURCE)), scope)  # noqa: S102 - our own page
    found: pl.DataFrame = scope["versions"]
    return sorted(found.select("product_id", "price", "__valid_from", "__valid_to").rows(), key=repr)


def test_the_condition_for_a_history_gives_its_versions_also_when_there_is_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FEW_ROWS", "_TIMES", "_PATCH_SHARE"):
        monkeypatch.setattr(rules, name, 0)
    (block,) = [b for b in BLOCKS if "__part" in b.text and b.kind == "python"]
    shop = Shop.open(tmp_path)
    shop.change(("products", (1,), {"price": Decimal("8.88")}))
    fold(shop, "products")
    shop.change(("products", (1,), {"price": Decimal("9.99")}), ("products", (2,), None))
    fold(shop, "products")
    assert "patch" in set(pl.read_delta(path(shop, "history", "products"))["__part"])
    with cdc_lake.connect(shop.config) as lake:
        query = "SELECT product_id, price, __valid_from, __valid_to FROM history.public.products"
        assert versions(shop, block) == sorted(lake.sql(query).pl().rows(), key=repr)


def test_a_patch_over_current_is_told_as_the_page_says_and_a_rebuild_merges_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [b for b in BLOCKS if "fold:over" in b.text]
    program = block.text.replace("lake/pos", str(tmp_path / "lake" / SOURCE))
    shop = Shop.open(tmp_path)
    fold(shop, "orders")
    with monkeypatch.context() as patch:
        for name in ("_FEW_ROWS", "_TIMES", "_PATCH_SHARE"):
            patch.setattr(rules, name, 0)
        shop.change(("orders", (1,), {"status": "returned"}))
        fold(shop, "orders")
    exec(program, {})  # noqa: S102 - our own page
    assert "last merge" in capsys.readouterr().out
    rebuild = [sys.executable, "-m", "cdc_lake", "rebuild", "orders"]
    subprocess.run(rebuild, cwd=tmp_path, capture_output=True, check=True)
    exec(program, {})  # noqa: S102 - our own page
    assert "last fold" in capsys.readouterr().out
    statuses = pl.read_delta(path(shop, "current", "orders")).filter(pl.col("order_id") == 1)["status"].to_list()
    assert statuses == ["returned"]


def test_a_time_without_a_zone_needs_a_table_feature_and_no_other_does(tmp_path: Path) -> None:
    shop, table = Shop.open(tmp_path), TableId("public", "visits")
    fields = {"id": "int32", "at": {"type": "int64", "name": "io.debezium.time.MicroTimestamp"}}
    append_schemas(tmp_path, [schema_row(table, "s-visits", fields, ("id",))])
    at = int((NOW + timedelta(hours=1)).timestamp() * 1_000_000)
    append_log(
        tmp_path, table, [log_row(table, "r", 0, key={"id": 1}, after={"id": 1, "at": at}, schema_id="s-visits")]
    )
    fold(shop, "visits")
    found = DeltaTable(path(shop, "current", "visits"))
    assert found.protocol().min_reader_version == 3
    assert found.protocol().reader_features == ["timestampNtz"]
    assert pl.read_delta(path(shop, "current", "visits"))["at"].to_list() == [
        NOW.replace(tzinfo=None) + timedelta(hours=1)
    ]
