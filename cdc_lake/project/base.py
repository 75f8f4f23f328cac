"""The folded `current` of a table as a Delta table: which types it is stored in, and how it is read back.

Its columns are the source's, then two of our own: the key's JSON text, and the names of columns whose value the log
never saw. Delta has no TIME, INTERVAL, UUID, JSON; those are kept as the text DuckDB prints, and cast when read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deltalake import DeltaTable

from cdc_lake.land.layout import parquet_files
from cdc_lake.project.files import scan
from cdc_lake.project.lineage import Fill
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.types import Column, converted
from cdc_lake.sqltext import ident, literal

_NOT_IN_DELTA = re.compile(r"\b(TIME(?! ZONE)|INTERVAL|UUID|JSON|BIT)\b")


# The app transaction of a fold that says how its columns are laid out (see `shapes`).
LAYOUT = "fold:layout"


@dataclass(frozen=True, slots=True)
class Base:
    """One version of a folded table. `written` says where its columns are when it was folded in another shape."""

    version: int
    files: tuple[str, ...]
    columns: tuple[str, ...]
    layout: int | None = None
    written: Mapping[str, Column | Fill] | None = None

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
        listed = f"b.{ident(self.columns[-1])}"
        places = (self.written or {}).items()
        renamed = [(p.name, name) for name, p in places if isinstance(p, Column) and p.name != name]
        if not renamed:
            return listed
        cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in renamed)
        return f"list_transform({listed}, lambda x: CASE x {cases} ELSE x END)"

    def holds(self, column: Column) -> bool:
        """Whether the column is in the table as it is."""
        if self.written is None:
            return column.name in self.columns[:-2]
        place = self.written.get(column.name)
        return isinstance(place, Column) and (place.name, place.lake_type) == (column.name, column.lake_type)

    def value(self, column: Column) -> str:
        """SQL of the column's value in its lake type; what older rows show when it was folded before the column was."""
        place: Column | Fill = column if column.name in self.columns[:-2] else Fill("NULL", sure=False)
        if self.written is not None:
            place = self.written[column.name]
        if isinstance(place, Fill):
            return f"CAST({place.sql} AS {column.lake_type})"
        return converted(place.lake_type, column.lake_type, f"CAST(b.{ident(place.name)} AS {place.lake_type})")


def read_base(table: DeltaTable) -> Base:
    """The snapshot of a folded table."""
    return Base(
        version=table.version(),
        files=tuple(parquet_files(table)),
        columns=tuple(f.name for f in table.schema().fields),
        layout=table.transaction_version(LAYOUT),
    )


def placed_base(base: Base | None, shapes: Shapes) -> Base | None:
    """`base` with the places of its columns, when it was folded in a shape that is not `shapes`'."""
    if base is None or base.layout is None or base.layout == shapes.layout:
        return base
    folded = shapes.folds.get(base.layout)
    if folded is None:
        return base
    return replace(base, written=dict(zip(shapes.names, folded.places, strict=True)))


def storage_type(lake_type: str) -> str:
    """The type a column is stored in."""
    return _NOT_IN_DELTA.sub("VARCHAR", lake_type)


def own_names(names: Sequence[str]) -> tuple[str, str]:
    """Names of the key and of the list of unknown columns that no source column has."""
    taken = {n.lower() for n in names}

    def free(name: str) -> str:
        return name if name not in taken else free("_" + name)

    return free("__key"), free("__unknown")
