"""Write a fold: the files of the table that change, or a patch over them, in one commit with the checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction

from cdc_lake.crashpoints import reach
from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path, patch_path
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.base import (
    LAYOUT,
    OVER,
    WRITING,
    Base,
    own_names,
    placed_base,
    read_fold,
    storage_type,
)
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.current import View, keyed_sql
from cdc_lake.project.delta import Delta, Rewrite, bag_rewrite, find_delta, forget_delta, keyed_rewrite
from cdc_lake.project.keys import WHOLE_NUMBERS, KeyOrder
from cdc_lake.project.rules import Cost, file_rows, patch_pays, whole_pays
from cdc_lake.project.segments import Segment, SegmentWriter, replace_all, replace_files, segments_of
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.shares import COLUMNS, Tell, cut_up, image_bytes, in_shares, shares_for, untold
from cdc_lake.project.snapshot import SourceState
from cdc_lake.project.tail import placed
from cdc_lake.sqltext import ident

_BATCH_ROWS = 50_000
_PATCH_FILE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fold is: its table and its patch, each with the snapshot that a commit starts from, if there is one."""

    path: str
    over_path: str
    table: DeltaTable | None
    over: DeltaTable | None
    options: Mapping[str, str] | None

    @classmethod
    def of(cls, state: SourceState, table: TableId) -> Place:
        """With fresh snapshots."""
        lake, source = state.lake, state.source
        path, over = current_path(lake.root, source, table), patch_path(lake.root, source, table)
        return cls(path, over, lake.open(path), lake.open(over), lake.options)

    def read(self, partitions: Collection[tuple[str, int]]) -> tuple[Base | None, Checkpoint]:
        """The fold, and how far it has come."""
        return (None, Checkpoint()) if self.table is None else read_fold(self.table, self.over, partitions)


def write_fold(
    con: duckdb.DuckDBPyConnection,
    view: View,
    place: Place,
    checkpoint: Checkpoint,
    *,
    own: str,
    whole: bool,
    tell: Tell = untold,
) -> int:
    """Bring the fold at `place` to what `view` shows, and return how many rows were written.

    `whole` writes all of it, in any case; else that is done when its columns change, when the changes are as many as
    its rows, or when there is no memory for them. `tell` hears how far it has come. Raises DeltaError when another fold
    was committed since the snapshots of `place`.
    """
    writer = _Writer(con, view.shapes, place, checkpoint)
    base = placed_base(place.read(checkpoint.lows)[0], view.shapes)
    segments = segments_of(place.table) if place.table is not None else []
    folded = sum(s.rows for s in segments)
    tail = view.tail.facts.placed + view.tail.facts.free
    limit = file_rows(folded + tail)
    nbytes = tail * image_bytes(con, view.tail.relation)

    def anew() -> int:
        return in_shares(con, nbytes, tail, lambda count: writer.all(_all_of(con, view, count, tell), limit))

    large = view.shapes.keyed and shares_for(con, nbytes) > 1
    if whole or large or base is None or view.tail.clears or whole_pays(tail, folded) or not writer.fits(place.table):
        return anew()
    try:
        return _part(con, view, writer, base, segments, limit=limit, own=own)
    except duckdb.OutOfMemoryException:
        return anew()


def _part(
    con: duckdb.DuckDBPyConnection,
    view: View,
    writer: _Writer,
    base: Base,
    segments: Sequence[Segment],
    *,
    limit: int,
    own: str,
) -> int:
    """Write the files that the changes touch, or a patch over all."""
    if not view.shapes.keyed:
        return writer.part(bag_rewrite(con, view, base, segments=segments, limit=limit), limit)
    folded = sum(s.rows for s in segments)
    try:
        delta = find_delta(con, view, base, own)
        rewrite = keyed_rewrite(con, view, base, delta, segments=segments, limit=limit)
        if patch_pays(Cost(delta.keys, delta.rows, rewrite.rows, folded)):
            return writer.patch(delta, base)
        return writer.part(rewrite, limit)
    finally:
        forget_delta(con, own)


def _all_of(con: duckdb.DuckDBPyConnection, view: View, count: int, tell: Tell) -> Iterator[str]:
    """Queries of all that `view` shows: one for each of about `count` shares of the keys."""
    if not view.shapes.keyed or count == 1:
        yield keyed_sql(view) if view.shapes.keyed else bag_sql(view)
        return
    tail, order = view.tail, KeyOrder.of(view.shapes)
    placed_rows = placed(tail, view.ends, view.cut, COLUMNS)
    keys = f"SELECT __key FROM {tail.relation} WHERE {tail.unfolded}"
    tell("setting out", 0.0)
    with cut_up(con, placed_rows, keys, order, count) as shares:
        for number, share in enumerate(shares):
            tell("current", number / len(shares))
            yield keyed_sql(replace(view, tail=share.of(tail), share=share))


class _Writer:
    """Writes what queries give, and commits it with the checkpoint."""

    def __init__(self, con: duckdb.DuckDBPyConnection, shapes: Shapes, place: Place, checkpoint: Checkpoint) -> None:
        # A connection of its own: an open result keeps DuckDB's others from being asked.
        self._con = con.cursor()
        self._con.execute("SET TimeZone = 'UTC'")
        self._shapes, self._place = shapes, place
        self._held = [*checkpoint.transactions(), Transaction(LAYOUT, shapes.layout)]

    def fits(self, table: DeltaTable | None) -> bool:
        """Whether the table has the columns that are written now."""
        nothing = [f"CAST(NULL AS {c.lake_type}) AS c{i}" for i, c in enumerate(self._shapes.target.columns)]
        own = "NULL::VARCHAR AS k, NULL::VARCHAR[] AS unknown"
        schema = self._reader(f"SELECT {', '.join(nothing)}, {own}").schema
        return table is not None and Schema.from_arrow(schema) == table.schema()

    def all(self, inners: Iterable[str], limit: int) -> int:
        """Write the whole table anew from queries that follow each other in the order of the key."""
        added: list[AddAction] = []
        rows = 0
        for inner in inners:
            schema, files, more = self._files(self._place.path, self._ordered(inner), limit)
            added += files
            rows += more
        replace_all(self._place.path, self._place.table, schema, added, held=self._anew(), options=self._place.options)
        return rows

    def part(self, rewrite: Rewrite, limit: int) -> int:
        """Write some of the table's files anew; the others stay."""
        if self._place.table is None:
            raise ValueError("a table that is not there has no files")
        _, added, rows = self._files(self._place.path, self._ordered(rewrite.query), limit)
        replace_files(self._place.table, added, rewrite.segments, self._anew())
        return rows

    def patch(self, delta: Delta, base: Base) -> int:
        """Write `delta` as the patch over `base`."""
        inner = f"SELECT * FROM {delta.relation}"
        schema, added, rows = self._files(self._place.over_path, self._ordered(inner, gone=True), _PATCH_FILE_ROWS)
        held = [*self._held, Transaction(OVER, base.writing)]
        replace_all(self._place.over_path, self._place.over, schema, added, held=held, options=self._place.options)
        return rows

    def _anew(self) -> list[Transaction]:
        return [*self._held, Transaction(WRITING, secrets.randbits(62))]

    def _ordered(self, inner: str, *, gone: bool = False) -> str:
        columns, keys = self._shapes.target.columns, self._shapes.target.key_columns
        key, unknown, mark = own_names(self._shapes.names)
        items = [f"CAST(c{i} AS {storage_type(c.lake_type)}) AS {ident(c.name)}" for i, c in enumerate(columns)]
        items += [f"k AS {ident(key)}", f"unknown AS {ident(unknown)}"] + [f"gone AS {ident(mark)}"] * gone
        places = [i for i, c in enumerate(columns, 1) if c in keys]
        if not all(c.lake_type in WHOLE_NUMBERS for c in keys):
            places = [len(columns) + 1]
        order = f" ORDER BY {', '.join(map(str, places))}" if keys else ""
        return f"SELECT {', '.join(items)} FROM ({inner}){order}"

    def _files(self, path: str, query: str, limit: int) -> tuple[pa.Schema, Sequence[AddAction], int]:
        source = self._reader_of(query)
        writer = SegmentWriter(path, self._place.options, limit)
        added = writer.write(source.schema, iter(source), lambda: reach("fold:writing"))
        return source.schema, added, writer.rows

    def _reader(self, inner: str) -> pa.RecordBatchReader:
        return self._reader_of(self._ordered(inner))

    def _reader_of(self, query: str) -> pa.RecordBatchReader:
        return self._con.sql(query).to_arrow_reader(_BATCH_ROWS)
