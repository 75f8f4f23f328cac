"""Advance the folded `current` of tables to the cut, one Delta commit per table that holds rows and checkpoint."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, LakeError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path
from cdc_lake.land.store import REMEMBERED
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.base import LAYOUT, own_names, storage_type
from cdc_lake.project.checkpoint import Checkpoint, read_checkpoint
from cdc_lake.project.current import View, keyed_sql
from cdc_lake.project.moves import settle
from cdc_lake.project.order import add_folded
from cdc_lake.project.snapshot import Lake, SourceState, TableState, prepare, read_source
from cdc_lake.project.tail import new_lows, without_place
from cdc_lake.sqltext import ident

_BATCH_ROWS = 50_000
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)
# delta-rs 1.6 panics when it keeps statistics of a DATE 'infinity' or of years past 262142, both legal in PostgreSQL.
_CONFIGURATION: Any = {"delta.dataSkippingNumIndexedCols": "0", **REMEMBERED}


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of one table: `folded`, `current` (nothing new), `overtaken` (another fold was first) or `failed`."""

    table: TableId
    outcome: str
    rows: int = 0
    cut: int = 0
    seconds: float = 0.0
    error: CdcLakeError | None = None


@contextmanager
def fold_connection(memory_mb: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that stays within `memory_mb` and spills to a temporary folder."""
    spill = tempfile.mkdtemp(prefix="cdc-lake-fold-")
    options: dict[str, Any] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": spill,
        "preserve_insertion_order": False,
    }
    con = duckdb.connect(config=options)
    try:
        prepare(con)
        yield con
    finally:
        con.close()
        shutil.rmtree(spill, ignore_errors=True)


def fold_source(
    lake: Lake,
    source: str,
    captured: Callable[[TableId], bool],
    wanted: Collection[TableId] | None = None,
    *,
    memory_mb: int = 1024,
) -> Iterator[Folded]:
    """Fold the tables of `source` (all, or those `wanted`) up to the cut; a table that fails does not stop the others.

    Idempotent: killed anywhere, it resumes from the last commit of each table.
    """
    with fold_connection(memory_mb) as con:
        state = read_source(con, lake, source, captured)
        for table in state.tables:
            if wanted is None or table.table in wanted:
                yield _timed(con, state, table)


def _timed(con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState, *, replacing: bool = False) -> Folded:
    begun = time.monotonic()
    try:
        done = fold_table(con, state, table, replacing=replacing)
    except CdcLakeError as error:
        done = Folded(table.table, "failed", error=error)
    except duckdb.Error as error:
        done = Folded(table.table, "failed", error=_explained(table.table, error))
    return replace(done, seconds=time.monotonic() - begun)


def rebuild_table(
    lake: Lake, source: str, captured: Callable[[TableId], bool], table: TableId, *, memory_mb: int = 1024
) -> Folded:
    """Fold one table from the start of its log and swap the result in; readers see the old one until then."""
    with fold_connection(memory_mb) as con:
        state = read_source(con, lake, source, captured, anew={table})
        found = next(t for t in state.tables if t.table == table)
        return _timed(con, state, found, replacing=True)


def fold_table(
    con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState, *, replacing: bool = False
) -> Folded:
    """Fold one table; `replacing` puts the result in place of whatever fold there is.

    1. Find what this fold takes: transactions up to the cut, and rows without one that nothing holds back.
    2. Open a fresh handle. Another checkpoint than the one we started from means that another fold was first.
    3. Stream the whole result into one commit, with the new checkpoint.
    4. If the commit fails, read the checkpoint again before deciding what happened.
    """
    if table.error is not None:
        raise table.error
    cut = state.cut.position
    # A fold forgets which of its rows a snapshot has read: it waits until all of them are there.
    if table.tail.facts.empty or table.tail.held:
        return Folded(table.table, "current", cut=table.checkpoint.cut)
    add_folded(con, state.ends, state.transactions, state.after, without_place(table.tail, state.ends))
    lows = new_lows(con, table.tail, state.ends, cut)
    checkpoint = Checkpoint(cut, lows, table.log.version)
    if table.base is not None and (cut, lows) == (table.checkpoint.cut, dict(table.checkpoint.lows)):
        return Folded(table.table, "current", cut=cut)
    path = current_path(state.lake.root, state.source, table.table)
    handle = state.lake.open(path)
    if not replacing and read_checkpoint(handle, lows) != _known(table, lows):
        return Folded(table.table, "overtaken", cut=table.checkpoint.cut)
    query = _query(con, state, table, checkpoint)
    reach("fold:before-write")
    counted = _Counted()
    try:
        layout = table.shapes.layout if table.shapes is not None else 0
        held = [*checkpoint.transactions(), Transaction(LAYOUT, layout)]
        _write(state, path, handle, counted.reader(con, query), held)
    except (DeltaError, OSError, ValueError, RuntimeError) as error:
        stored = read_checkpoint(state.lake.open(path), lows)
        if stored != checkpoint:
            if not replacing and stored != _known(table, lows):
                return Folded(table.table, "overtaken", cut=stored.cut)
            raise _explained(table.table, counted.error or error) from error
    reach("fold:after-commit")
    return Folded(table.table, "folded", rows=counted.rows, cut=cut)


def _known(table: TableState, lows: Collection[tuple[str, int]]) -> Checkpoint:
    held = {p: low for p, low in table.checkpoint.lows.items() if p in lows}
    return replace(table.checkpoint, lows=held)


def _query(con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState, checkpoint: Checkpoint) -> str:
    shapes = table.shapes
    if shapes is None:
        raise ValueError("a table without shapes has an error")
    view = View(shapes, table.tail, table.base, state.ends, checkpoint.cut)
    key, unknown = own_names(shapes.names)
    if shapes.keyed:
        inner = keyed_sql(replace(view, settled=settle(con, view, f"{state.lake.own}.settled")))
    else:
        inner = bag_sql(view)
    columns = [
        f"CAST(c{i} AS {storage_type(c.lake_type)}) AS {ident(c.name)}" for i, c in enumerate(shapes.target.columns)
    ]
    return f"SELECT {', '.join(columns)}, k AS {ident(key)}, unknown AS {ident(unknown)} FROM ({inner})"


class _Counted:
    """Rows on their way from DuckDB to the Delta writer, batch by batch; `error` is what stopped them."""

    def __init__(self) -> None:
        self.rows = 0
        self.error: Exception | None = None

    def reader(self, con: duckdb.DuckDBPyConnection, query: str) -> pa.RecordBatchReader:
        """The result of `query`."""
        # A connection of its own: an open result keeps DuckDB's others from being asked.
        cursor = con.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        source = cursor.sql(query).to_arrow_reader(_BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(source.schema, self._batches(source))

    def _batches(self, source: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            for batch in source:
                self.rows += batch.num_rows
                yield batch
                reach("fold:writing")
        except Exception as error:
            self.error = error
            raise


def _write(
    state: SourceState, path: str, handle: DeltaTable | None, rows: pa.RecordBatchReader, held: list[Transaction]
) -> None:
    options = dict(state.lake.options) if state.lake.options else None
    # The handle pins the version we started from: a commit in between makes this one fail.
    write_deltalake(
        handle if handle is not None else path,
        rows,
        mode="overwrite" if handle is not None else "error",
        schema_mode="overwrite" if handle is not None else None,
        configuration=_CONFIGURATION if handle is None else None,
        storage_options=options,
        writer_properties=_WRITER,
        commit_properties=CommitProperties(app_transactions=held),
    )


def _explained(table: TableId, error: Exception) -> LakeError:
    full = "No space left" in str(error) or "StorageFull" in str(error)
    return LakeError(
        f"{table} could not be folded.",
        why=first_line(error),
        next="free space on the disk, then: cdc-lake fold" if full else f"cdc-lake fold {table} -vv",
        code="disk_full" if full else "fold_failed",
    )
