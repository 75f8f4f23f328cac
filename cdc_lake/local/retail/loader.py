"""Create the retail schema and fill it in bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import psycopg

from cdc_lake.errors import SourceError, UnavailableError
from cdc_lake.local.retail.rows import Row, Size, generate
from cdc_lake.sqltext import ident

# Parents before children: foreign keys hold while loading.
TABLES = ("stores", "products", "customers", "inventory", "orders", "order_lines", "payments")
_IDENTITIES = {
    "stores": "store_id",
    "products": "product_id",
    "customers": "customer_id",
    "orders": "order_id",
    "payments": "payment_id",
}
Connection = psycopg.Connection[tuple[Any, ...]]


def create_schema(dsn: str) -> None:
    """Create the empty tables. SourceError when the database holds some of them already."""
    with connect(dsn) as connection:
        try:
            connection.execute(files(__package__).joinpath("schema.sql").read_bytes())
        except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject) as error:
            raise SourceError(
                "The retail tables are there already.",
                why=str(error.diag.message_primary),
                next="use an empty database",
                code="tables_exist",
            ) from None


def load(
    dsn: str,
    size: Size,
    *,
    seed: int = 1,
    now: datetime | None = None,
    progress: Callable[[str], None] = lambda table: None,
) -> dict[str, int]:
    """Fill the empty tables in one transaction with COPY; returns the rows of each table.

    Orders are of the thirty days before `now`. `progress` hears the name of each table as it is begun.
    """
    counts: dict[str, int] = {}
    with connect(dsn) as connection, connection.cursor() as cursor:
        for table, columns, rows in generate(size, seed=seed, now=now or datetime.now(UTC)):
            progress(table)
            counts[table] = _copy(cursor, table, columns, rows)
        for table, key in _IDENTITIES.items():
            last = f"SELECT setval(pg_get_serial_sequence(%s, %s), max({ident(key)})) FROM {ident(table)}"
            cursor.execute(last.encode(), (table, key))
    with connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return counts


def count_rows(dsn: str) -> dict[str, int]:
    """The rows of each table as the database counts them, all at one moment."""
    counts = ", ".join(f"(SELECT count(*) FROM {ident(table)})" for table in TABLES)
    with connect(dsn) as connection:
        row = connection.execute(f"SELECT {counts}".encode()).fetchone()
    return dict(zip(TABLES, row or (), strict=True))


def connect(dsn: str, *, autocommit: bool = False) -> Connection:
    """A connection to the source; UnavailableError (without the address: it may hold a password) when it is away."""
    try:
        return psycopg.connect(dsn, autocommit=autocommit, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise UnavailableError(
            "The source database does not answer.",
            why=(str(error).strip() or type(error).__name__).splitlines()[-1],
            next="cdc-lake status",
        ) from None


def _copy(cursor: psycopg.Cursor[Any], table: str, columns: Sequence[str], rows: Iterable[Row]) -> int:
    statement = f"COPY {ident(table)} ({', '.join(map(ident, columns))}) FROM STDIN"
    count = 0
    with cursor.copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row(row)
            count += 1
    return count
