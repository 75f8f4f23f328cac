"""The folded `current` of a table as a Delta table: which types it is stored in, and how it is read back.

Its columns are the source's, then two of our own: the key's JSON text, and the names of columns whose value the log
never saw. Delta has no TIME, INTERVAL, UUID, JSON; those are kept as the text DuckDB prints, and cast when read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deltalake import DeltaTable

from cdc_lake.land.layout import parquet_files
from cdc_lake.project.files import scan
from cdc_lake.project.types import Column
from cdc_lake.sqltext import ident

_NOT_IN_DELTA = re.compile(r"\b(TIME(?! ZONE)|INTERVAL|UUID|JSON|BIT)\b")


@dataclass(frozen=True, slots=True)
class Base:
    """One version of a folded table."""

    version: int
    files: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def relation(self) -> str:
        """The files."""
        return scan(self.files)

    @property
    def key(self) -> str:
        """SQL of the key's text."""
        return f"b.{ident(self.columns[-2])}"

    @property
    def unknown(self) -> str:
        """SQL of the list of columns whose value is not known."""
        return f"b.{ident(self.columns[-1])}"

    def value(self, column: Column) -> str:
        """SQL of the column's value in its lake type; null when the table was folded before the column existed."""
        if column.name not in self.columns[:-2]:
            return f"CAST(NULL AS {column.lake_type})"
        return f"CAST(b.{ident(column.name)} AS {column.lake_type})"


def read_base(table: DeltaTable) -> Base:
    """The snapshot of a folded table."""
    return Base(
        version=table.version(),
        files=tuple(parquet_files(table)),
        columns=tuple(f.name for f in table.schema().fields),
    )


def storage_type(lake_type: str) -> str:
    """The type a column is stored in."""
    return _NOT_IN_DELTA.sub("VARCHAR", lake_type)


def own_names(names: Sequence[str]) -> tuple[str, str]:
    """Names of the key and of the list of unknown columns that no source column has."""
    taken = {n.lower() for n in names}

    def free(name: str) -> str:
        return name if name not in taken else free("_" + name)

    return free("__key"), free("__unknown")
