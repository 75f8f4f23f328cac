"""What the demo asks: both databases, in the same words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError
from cdc_lake.local.retail import loader


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query with their columns' names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def records(self) -> list[dict[str, Any]]:
        """One dictionary a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def orders_in_lake(config: Config, orders: Collection[int]) -> set[int]:
    """Those of the orders that a new session sees."""
    marks = ", ".join("?" * len(orders))
    found = ask_lake(config, f"SELECT order_id FROM orders WHERE order_id IN ({marks})", list(orders))
    return {row[0] for row in found.rows}


def there(config: Config, sql: str, value: int) -> bool:
    """Whether the lake has the row; no, too, as long as it has not even the table."""
    import duckdb

    try:
        return bool(ask_lake(config, sql, [value]).rows)
    except (CdcLakeError, duckdb.CatalogException):
        return False


def question(name: str) -> str:
    """The SQL text of one of the shipped questions."""
    return files("cdc_lake.local.retail").joinpath("questions", f"{name}.sql").read_text(encoding="utf-8")


def ask_source(dsn: str, sql: str, values: Sequence[object] = ()) -> Result:
    """The answer of PostgreSQL."""
    with loader.connect(dsn) as connection:
        # Without values a % is a % of the statement's own.
        cursor = connection.execute(sql.encode(), values or None)
        return Result(tuple(c.name for c in cursor.description or ()), tuple(cursor.fetchall()))


def ask_lake(config: Config, sql: str, values: Sequence[object] = ()) -> Result:
    """The answer of the lake, in a session of its own, so at the newest cut."""
    from cdc_lake.query.session import open_session

    session = open_session(config, sql=sql)
    try:
        cursor = session.connection.execute(sql, values)
        return Result(tuple(c[0] for c in cursor.description or ()), tuple(cursor.fetchall()))
    finally:
        session.connection.close()
