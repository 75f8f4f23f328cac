"""The explorations that come with cdc_lake: where they are, and how they get into a project's folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cdc_lake
from cdc_lake.errors import UsageError, suggest


@dataclass(frozen=True, slots=True)
class Notebook:
    """One exploration of a retailer's lake: its file, and the question that it answers."""

    file: str
    asks: str

    @property
    def tool(self) -> str:
        """What opens it: the Python module."""
        return "jupyterlab" if self.file.endswith(".ipynb") else "marimo"


NOTEBOOKS = {
    "demand": Notebook("explore_demand.py", "what sells where and when"),
    "stockouts": Notebook("explore_stockouts.py", "which shelves are empty, since when, and the sales they cost"),
    "prices": Notebook("explore_prices.py", "what a price does to demand"),
    "shrinkage": Notebook("explore_shrinkage.py", "which stock left without a sale"),
    "last-night": Notebook("explore_last_night.py", "what changed last night, and who was affected"),
    "stock": Notebook("explore_stock.py", "where the stock is, what runs out, what to order"),
    "sales": Notebook("explore_sales.ipynb", "what the shops sell, in SQL cells"),
}
_SHARED = ("shop_lake.py", "charts.py", "elasticity.py")


def find_notebook(name: str) -> Notebook:
    """The notebook of that name. Raises UsageError, with the near one."""
    if name not in NOTEBOOKS:
        raise UsageError(
            f"There is no notebook {name}.", why=suggest(name, NOTEBOOKS), next="cdc-lake notebook", code="no_notebook"
        )
    return NOTEBOOKS[name]


def place(notebook: Notebook, folder: Path) -> Path:
    """Copy the notebook and what it needs into `folder`, and return its file. What is there stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (notebook.file, *_SHARED):
        if not (folder / name).exists():
            shutil.copy(_home() / name, folder / name)
    return folder / notebook.file


def _home() -> Path:
    """Where they were installed to; in a clone of the repository they are beside the package."""
    package = Path(cdc_lake.__file__).parent
    installed = package / "notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"
