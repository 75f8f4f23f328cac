"""`cdc-lake notebook` lists the explorations, and opens a copy of one on the project's own lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from decimal import Decimal
from pathlib import Path

from cdc_lake.init.notebooks import NOTEBOOKS
from tests.shops import Shop

ROOT = Path(__file__).parents[2]
FILES = {p.name for p in (ROOT / "notebooks").iterdir() if p.suffix in (".py", ".ipynb")}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdc_lake", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_notebooks_are_listed_and_in_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "cdc-lake.yaml").write_text("")
    listed = json.loads(run(tmp_path, "--json", "notebook").stdout)["notebooks"]
    assert {row["file"] for row in listed} == {name for name in FILES if name.startswith("explore_")}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {f"notebooks/{name}": f"cdc_lake/notebooks/{name}" for name in FILES}


def test_a_misspelt_notebook_is_answered_with_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "cdc-lake.yaml").write_text("")
    done = run(tmp_path, "notebook", "shrinkige")
    assert done.returncode == 2
    assert 'Did you mean "shrinkage"?' in done.stderr
    assert run(tmp_path, "notebook", "sales", "--run").returncode == 2
    assert not (tmp_path / "notebooks").exists()


def test_a_notebook_is_copied_into_the_project_and_finds_what_is_in_its_lake(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path)
    (store, product), shelf = next((key, row) for key, row in shop.rows["inventory"].items() if row["on_hand"] > 5)
    shop.change(("inventory", (store, product), {"on_hand": shelf["on_hand"] - 4}))
    done = run(tmp_path, "notebook", "shrinkage", "--findings")
    assert done.returncode == 0, done.stderr
    worth = 4 * shop.rows["products"][product,]["cost"]
    assert f"4 pieces worth {worth:,.0f} left without a sale: 100.0% of all that left" in done.stdout
    assert f"The lake of {shop.config}" in done.stdout
    assert {p.name for p in (tmp_path / "notebooks").glob("*.py")} == {
        "explore_shrinkage.py", "charts.py", "shop_lake.py", "elasticity.py"
    }  # fmt: skip


def test_a_notebook_that_is_there_is_opened_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("lake: {uri: ./lake}\n")
    mine = tmp_path / "notebooks" / NOTEBOOKS["prices"].file
    mine.parent.mkdir()
    mine.write_text("import os, sys; print(os.environ['CDC_LAKE_CONFIG']); sys.exit(3)")
    done = run(tmp_path, "--config", "other.yaml", "notebook", "prices", "--findings")
    assert (done.returncode, done.stdout.strip()) == (3, str(tmp_path / "other.yaml"))


def test_a_sale_is_no_shrinkage_and_a_count_after_it_is(tmp_path: Path) -> None:
    """The two happen on one shelf: what tells them apart is the transaction."""
    shop = Shop.open(tmp_path)
    (store, product), shelf = next((key, row) for key, row in shop.rows["inventory"].items() if row["on_hand"] > 9)
    shop.sell(store, product, 3)
    shop.change(("inventory", (store, product), {"on_hand": shelf["on_hand"] - 5}))
    done = run(tmp_path, "notebook", "shrinkage", "--findings")
    worth = 2 * Decimal(shop.rows["products"][product,]["cost"])
    assert f"2 pieces worth {worth:,.0f} left without a sale: 40.0% of all that left" in done.stdout, done.stderr
