"""The folded `current` of a table as a Delta table: which types it is stored in, and how it is read back.

Its columns are the source's, then two of our own: the key's JSON text, and the names of columns whose value the log
never saw. Delta has no TIME, INTERVAL, UUID, JSON; those are kept as the text DuckDB prints, and cast when read.

Over it may lie a patch, a second Delta table: the rows of all keys that changed since the folded table was written, and
of those that are gone their keys, with a checkpoint of its own. It is bound to one writing of the table below it; once
that is written anew, the patch is void, though it is still there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from deltalake import DeltaTable

from cdc_lake.land.layout import parquet_files
from cdc_lake.project.checkpoint import Checkpoint, is_behind, read_checkpoint
from cdc_lake.project.files import scan
from cdc_lake.project.keys import WHOLE_NUMBERS
from cdc_lake.project.lineage import Fill
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.types import Column, TableSchema, converted
from cdc_lake.sqltext import ident, literal

_NOT_IN_DELTA = re.compile(r"\b(TIME(?! ZONE)|INTERVAL|UUID|JSON|BIT)\b")


# The app transaction of a fold that says how its columns are laid out (see `shapes`).
LAYOUT = "fold:layout"
# The app transactions that bind a patch to what it lies over: a number that each writing of a folded table draws anew.
WRITING, OVER = "fold:writing", "fold:over"


@dataclass(frozen=True, slots=True)
class Patch:
    """What lies over a folded table. It has the table's columns, and `gone` says that a key has no row."""

    version: int
    files: tuple[str, ...]
    rows: int
    gone: str


@dataclass(frozen=True, slots=True)
class Base:
    """One version of a folded table, with its `patch`. `written` says where its columns are when it was folded in
    another shape, `numbers` names those of its key when all are whole numbers: they compare much faster than its text.
    """

    version: int
    files: tuple[str, ...]
    columns: tuple[str, ...]
    layout: int | None = None
    written: Mapping[str, Column | Fill] | None = None
    writing: int = 0
    patch: Patch | None = None
    numbers: tuple[str, ...] = ()

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Relations that hold its rows, each with the condition for those rows `b` of it that count.

        They are not one relation: over a union, DuckDB joins the wrong way round what a reader leaves out.
        """
        if self.patch is None or not self.patch.files:
            return [(scan(self.files), "true")] if self.files else []
        over = scan(self.patch.files)
        same = " AND ".join(f"p.{ident(c)} = b.{ident(c)}" for c in self.numbers or self.columns[-2:-1])
        below = [(scan(self.files), f"NOT EXISTS (SELECT 1 FROM {over} p WHERE {same})")] if self.files else []
        return [*below, (over, f"NOT b.{ident(self.patch.gone)}")]

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


def read_fold(
    table: DeltaTable, patch: DeltaTable | None, partitions: Collection[tuple[str, int]]
) -> tuple[Base, Checkpoint]:
    """A folded table with what lies over it, and how far the two have come together.

    Whichever of their versions were opened, the result is right: a patch that does not count only leaves more to read.
    """
    base, own = _read_base(table, patch), read_checkpoint(table, partitions)
    over = read_checkpoint(patch, partitions) if base.patch is not None else own
    return (replace(base, patch=None), own) if is_behind(over, own) else (base, over)


def _read_base(table: DeltaTable, patch: DeltaTable | None) -> Base:
    base = Base(
        version=table.version(),
        files=tuple(parquet_files(table)),
        columns=tuple(f.name for f in table.schema().fields),
        layout=table.transaction_version(LAYOUT),
        writing=table.transaction_version(WRITING) or 0,
    )
    return replace(base, patch=_read_patch(base, patch))


def _read_patch(base: Base, table: DeltaTable | None) -> Patch | None:
    if table is None or table.transaction_version(OVER) != base.writing:
        return None
    *columns, gone = (f.name for f in table.schema().fields)
    if table.transaction_version(LAYOUT) != base.layout or tuple(columns) != base.columns:
        return None
    rows = pa.table(table.get_add_actions(flatten=True))["num_records"].to_pylist()
    return Patch(table.version(), tuple(parquet_files(table)), sum(n or 0 for n in rows), gone)


def placed_base(base: Base | None, shapes: Shapes) -> Base | None:
    """`base` with what `shapes` tell of it: its key's columns, and their places when it was folded in another shape."""
    if base is None:
        return None
    if base.layout is None or base.layout == shapes.layout:
        return replace(base, numbers=_numbers(base, shapes.target))
    folded = shapes.folds.get(base.layout)
    if folded is None:
        return base
    written = dict(zip(shapes.names, folded.places, strict=True))
    return replace(base, written=written, numbers=_numbers(base, folded.schema))


def _numbers(base: Base, schema: TableSchema) -> tuple[str, ...]:
    keys = schema.key_columns
    whole = all(c.lake_type in WHOLE_NUMBERS and c.name in base.columns[:-2] for c in keys)
    return tuple(c.name for c in keys) if whole else ()


def storage_type(lake_type: str) -> str:
    """The type a column is stored in."""
    return _NOT_IN_DELTA.sub("VARCHAR", lake_type)


def own_names(names: Sequence[str]) -> tuple[str, str, str]:
    """Names of the key, of the list of unknown columns and of a patch's mark that no source column has."""
    taken = {n.lower() for n in names}

    def free(name: str) -> str:
        return name if name not in taken else free("_" + name)

    return free("__key"), free("__unknown"), free("__gone")
