"""Find and open the lake of a shop, for the notebooks beside this file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

import cdc_lake
from cdc_lake.config import DEFAULT_FILE, STATE_FOLDER
from cdc_lake.errors import CdcLakeError
from cdc_lake.sqltext import ident

VARIABLE = "CDC_LAKE_CONFIG"
TABLES = ("customers", "inventory", "order_lines", "orders", "payments", "products", "stores")


class NoLake(CdcLakeError):
    """There is no lake to explore, or not the one of a shop."""

    default_code = "no_lake"

    def __str__(self) -> str:
        return "\n".join((self.message, f"  why:  {self.why}", f"  next: {self.next}"))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return str(self).splitlines()


@dataclass(frozen=True, slots=True)
class ShopLake:
    """An open lake: where it is configured, and a connection that shows it as it was when it was opened."""

    config: Path
    connection: duckdb.DuckDBPyConnection

    def ask(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """The answer of the lake, a dict for each row."""
        cursor = self.connection.execute(sql, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def upto(self) -> datetime:
        """The commit up to which the lake is shown, in UTC; before the first change, the moment of the snapshot."""
        (row,) = self.ask(
            """
            SELECT coalesce(
                (SELECT max(source_ts) FROM lake.cut), (SELECT max(__valid_from) FROM history.public.inventory)
            ) AT TIME ZONE 'UTC' AS moment
            """
        )
        moment: datetime = row["moment"]
        return moment

    def describe(self) -> str:
        """A line for the reader: which lake this is, and up to which commit of the source it is shown."""
        found = self.connection.execute("SELECT max(source_ts AT TIME ZONE 'UTC') FROM lake.cut").fetchone()
        last = found[0] if found is not None else None
        # Before the first change there is only the snapshot of what was there.
        shown = f"up to the commit of {last:%Y-%m-%d %H:%M:%S} UTC" if last else "as the first snapshot found it"
        return f"The lake of {self.config}, {shown}"


def open_lake(config: str | Path | None = None) -> ShopLake:
    """The lake of `config`, else of the variable CDC_LAKE_CONFIG, else of the nearest `cdc-lake.yaml`.

    The nearest one is looked for in the current folder and upwards, then from the notebooks' folder upwards; where its
    lake holds no shop, the lake of `cdc-lake demo` in the same project is taken. Raises NoLake, with what to do.
    """
    named = config or os.environ.get(VARIABLE)
    if named:
        return _open(named_config(named, Path.cwd()))
    first: NoLake | None = None
    for file in nearest_configs(Path.cwd(), Path(__file__).parent):
        try:
            return _open(file)
        except NoLake as error:
            first = first or error
    raise first or NoLake(
        "There is no lake to explore.",
        why=f"No {DEFAULT_FILE} in {Path.cwd()} or above it, and {VARIABLE} is not set.",
        next=f"make demo  (it writes a lake), or name your own: export {VARIABLE}=/path/to/{DEFAULT_FILE}",
    )


def open_in(mo: Any) -> ShopLake:
    """The lake for a marimo notebook: that of `--config`, else as `open_lake` finds it.

    Where there is none, the cell says what to do and the ones below do not run; a program ends with the same words.
    """
    try:
        return open_lake(mo.cli_args().get("config"))
    except NoLake as error:
        if not mo.running_in_notebook():
            sys.exit(f"Error: {error}")
        words = mo.md(f"**{error.message}**\n\n{error.why}\n\nNext: `{error.next}`")
        mo.stop(True, mo.callout(words, kind="danger"))
        raise


def tell(mo: Any, lake: ShopLake, charts: Sequence[Any]) -> None:
    """As a program there is nobody to show charts to: print what was found, which is their titles."""
    if mo.running_in_notebook():
        return
    print(lake.describe())
    for chart in charts:
        print(f"- {chart.axes[0].get_title(loc='left').strip()}")


def named_config(named: str | Path, folder: Path) -> Path:
    """The file (or the folder that holds a `cdc-lake.yaml`) of this name: as it is, or relative to `folder` or above.

    A notebook's kernel runs in the notebook's folder, the variable was set in another. Raises NoLake.
    """
    wanted = Path(named).expanduser()
    for place in (folder, *folder.parents):
        for file in (place / wanted, place / wanted / DEFAULT_FILE):
            if file.is_file():
                return file
    raise NoLake(
        f"There is no configuration file {wanted}.",
        why=f"It was named with {VARIABLE} or as an argument, and looked for from {folder} upwards.",
        next=f"name a {DEFAULT_FILE} that is there, or name none to take the nearest",
    )


def nearest_configs(*starts: Path) -> Iterator[Path]:
    """The nearest `cdc-lake.yaml` of each start, going up, each followed by that of the demo in the same project."""
    seen: set[Path] = set()
    for start in starts:
        project = next((p for p in (start, *start.parents) if (p / DEFAULT_FILE).is_file()), None)
        if project is None or project in seen:
            continue
        seen.add(project)
        yield project / DEFAULT_FILE
        demo = project / STATE_FOLDER / "demo" / DEFAULT_FILE
        if demo.is_file():
            yield demo


def missing_tables(landed: Mapping[str, str | None]) -> list[str]:
    """Those tables of a shop that are not in the lake or cannot be read. `landed` has the error of each, or None."""
    return [name for name in TABLES if landed.get(name, "absent") is not None]


def _open(config: Path) -> ShopLake:
    try:
        connection = cdc_lake.connect(config)
    except CdcLakeError as error:
        raise NoLake(error.message, why=error.why, next=error.next) from None
    landed = dict(connection.execute("""SELECT "table", error FROM lake.tables WHERE schema = 'public'""").fetchall())
    missing = missing_tables(landed) or [t for t in ("inventory", "orders") if _is_empty(connection, t)]
    if missing:
        connection.close()
        raise NoLake(
            f"The lake of {config} has no shop to explore.",
            why=f"Not in it, empty, or not readable: {', '.join(missing)}.",
            next=f"make demo  (it writes a lake), or name another: export {VARIABLE}=/path/to/{DEFAULT_FILE}",
        )
    return ShopLake(config, connection)


def _is_empty(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    return connection.execute(f"SELECT 1 FROM current.public.{ident(table)} LIMIT 1").fetchone() is None
