"""The notebooks find the lake, and say what to do when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbclient
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def shop_lake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    import shop_lake

    return shop_lake


def _config(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "cdc-lake.yaml"
    file.write_text("lake: {uri: ./lake}\n")
    return file


def test_a_named_configuration_is_also_looked_for_above_the_folder_of_the_kernel(
    shop_lake: ModuleType, tmp_path: Path
) -> None:
    file = _config(tmp_path / "shop")
    deep = tmp_path / "notebooks" / "deep"
    assert shop_lake.named_config("shop/cdc-lake.yaml", deep) == file
    assert shop_lake.named_config("shop", deep) == file
    assert shop_lake.named_config(file, Path("/")) == file


def test_a_named_configuration_that_is_nowhere_is_an_error_and_not_replaced_by_the_nearest(
    shop_lake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _config(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(shop_lake.NoLake, match=r"no configuration file other\.yaml"):
        shop_lake.open_lake("other.yaml")


def test_the_nearest_configuration_comes_first_and_then_the_demo_of_its_project(
    shop_lake: ModuleType, tmp_path: Path
) -> None:
    outer, inner = _config(tmp_path), _config(tmp_path / "a" / "project")
    demo = _config(tmp_path / "a" / "project" / ".cdc-lake" / "demo")
    start = tmp_path / "a" / "project" / "notebooks"
    assert list(shop_lake.nearest_configs(start, start / "deeper")) == [inner, demo]
    assert list(shop_lake.nearest_configs(tmp_path / "b")) == [outer]


def test_a_lake_without_a_shop_is_named_with_what_is_missing(
    shop_lake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _config(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(shop_lake.NoLake) as caught:
        shop_lake.open_lake(file)
    assert str(file) in caught.value.message
    assert "customers, inventory, order_lines" in caught.value.why
    assert "make demo" in caught.value.next


def test_tables_that_cannot_be_read_are_missing_too(shop_lake: ModuleType) -> None:
    landed: dict[str, str | None] = dict.fromkeys(shop_lake.TABLES)
    assert shop_lake.missing_tables(landed) == []
    assert shop_lake.missing_tables({**landed, "orders": "It is broken.", "other": "It is too."}) == ["orders"]
    del landed["stores"]
    assert shop_lake.missing_tables(landed) == ["stores"]


def test_the_stock_notebook_as_a_program_says_that_there_is_no_lake_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "explore_stock.py")],
        cwd=tmp_path,
        env={**os.environ, "CDC_LAKE_CONFIG": "nowhere.yaml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no configuration file nowhere.yaml.")
    assert "Traceback" not in done.stderr


def test_the_sales_notebook_says_that_there_is_no_lake_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_LAKE_CONFIG", "nowhere.yaml")
    notebook = nbformat.read(NOTEBOOKS / "explore_sales.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}})
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        client.execute()
    shown = [
        "\n".join(output["traceback"])
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "error"
    ]
    assert len(shown) == 1
    assert shown[0].startswith("There is no configuration file nowhere.yaml.\n  why:  ")
    assert "Traceback" not in shown[0]


def test_the_notebooks_are_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOKS / "explore_sales.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
