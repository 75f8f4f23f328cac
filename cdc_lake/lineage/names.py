"""What datasets are called, by OpenLineage's naming: the same as in the events of other tools about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from cdc_lake.events import TableId

Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A topic, a table of a database, or a Delta table; with its columns where they are known."""

    namespace: str
    name: str
    columns: Columns = ()
    is_delta: bool = False

    def with_columns(self, schema: pa.Schema) -> Self:
        """The same with the columns of a schema."""
        return replace(self, columns=columns_of(schema))


def columns_of(schema: Iterable[pa.Field]) -> Columns:
    """Names and types."""
    return tuple((field.name, str(field.type)) for field in schema)


def topic(bootstrap: str, name: str) -> Dataset:
    """A Kafka topic. Of several brokers the first one gives the name."""
    first = bootstrap.split(",", maxsplit=1)[0].strip().rpartition("://")[2]
    return Dataset(f"kafka://{first if ':' in first else f'{first}:9092'}", name)


def source_table(dsn: str, table: TableId) -> Dataset:
    """A table of PostgreSQL."""
    known = conninfo_to_dict(dsn)
    host = str(known.get("host") or "localhost").split(",")[0]
    port = str(known.get("port") or 5432).split(",")[0]
    # A folder is where a socket is, on this machine.
    host = "localhost" if host.startswith("/") else host
    database = known.get("dbname") or known.get("user") or "postgres"
    return Dataset(f"postgres://{host}:{port}", f"{database}.{table.schema}.{table.name}")


def delta_table(place: str) -> Dataset:
    """A Delta table, by the folder or the URI that it is at."""
    if "://" not in place or place.startswith("file://"):
        return Dataset("file", str(Path(place.removeprefix("file://")).absolute()), is_delta=True)
    url = urlsplit(place)
    return Dataset(f"{url.scheme}://{url.netloc}", url.path.strip("/"), is_delta=True)
