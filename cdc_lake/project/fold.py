"""Advance the folded `current` and `history` of tables to the cut, one Delta commit each, with the checkpoint."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, LakeError, first_line, is_disk_full
from cdc_lake.events import TableId
from cdc_lake.land.store_errors import is_named, store_error, store_named
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.current import View
from cdc_lake.project.history_fold import fold_history
from cdc_lake.project.lake import Lake
from cdc_lake.project.moves import settle
from cdc_lake.project.order import add_folded
from cdc_lake.project.shares import Tell, untold
from cdc_lake.project.snapshot import SourceState, TableState, prepare, read_source
from cdc_lake.project.tail import new_lows, without_place
from cdc_lake.project.writing import Place, write_fold


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of one table: `folded`, `current` (nothing new), `overtaken` (another fold was first) or `failed`.

    `rows` were written of its `current`, `history_rows` of its history. It took what lies behind the position `before`,
    up to `cut`."""

    table: TableId
    outcome: str
    rows: int = 0
    cut: int = 0
    before: int = 0
    seconds: float = 0.0
    error: CdcLakeError | None = None
    history_rows: int = 0


_SPILL = "cdc-lake-fold-"

Watcher = Callable[[TableId, str, float], None]
"""Hears of a table what its fold does, and which part of that is done, from 0 to 1."""


def unwatched(_table: TableId, _what: str, _done: float) -> None:
    """For folds that nobody watches."""


def _sweep_spills() -> None:
    """Remove what folds that were killed have left on the disk."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SPILL}*-*"):
        owner = folder.name.removeprefix(_SPILL).partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def fold_connection(memory_mb: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that stays within `memory_mb` and spills to a temporary folder."""
    _sweep_spills()
    spill = tempfile.mkdtemp(prefix=f"{_SPILL}{os.getpid()}-")
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
    tell: Watcher = unwatched,
) -> Iterator[Folded]:
    """Fold the tables of `source` (all, or those `wanted`) up to the cut; a table that fails does not stop the others.
    `tell` hears of each large one how far it has come.

    Idempotent: killed anywhere, it resumes from the last commit of each table.
    """
    with fold_connection(memory_mb) as con:
        with store_named(lake.root):
            state = read_source(con, lake, source, captured)
        for table in state.tables:
            if wanted is None or table.table in wanted:
                yield _timed(con, state, table, tell=partial(tell, table.table))


def _timed(
    con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState, *, tell: Tell, replacing: bool = False
) -> Folded:
    begun = time.monotonic()
    try:
        done = fold_table(con, state, table, replacing=replacing, tell=tell)
        done = _with_history(con, state, table, done, replacing=replacing, tell=tell)
    except CdcLakeError as error:
        done = Folded(table.table, "failed", error=error)
    except (DeltaError, OSError, duckdb.Error) as error:
        done = Folded(table.table, "failed", error=_explained(state, table.table, error))
    return replace(done, seconds=time.monotonic() - begun)


def _with_history(
    con: duckdb.DuckDBPyConnection,
    state: SourceState,
    table: TableState,
    done: Folded,
    *,
    replacing: bool,
    tell: Tell,
) -> Folded:
    """`current` is folded: what its history meets does not undo that."""
    try:
        rows = fold_history(con, state, table, replacing=replacing, tell=tell)
    except (DeltaError, OSError, ValueError, RuntimeError, duckdb.Error) as error:
        return replace(done, outcome="failed", error=_explained(state, table.table, error, "The history of "))
    # What is known of `current` is as new as before, but something was folded.
    return replace(done, history_rows=rows, outcome="folded" if rows and done.outcome == "current" else done.outcome)


def rebuild_table(
    lake: Lake,
    source: str,
    captured: Callable[[TableId], bool],
    table: TableId,
    *,
    memory_mb: int = 1024,
    tell: Watcher = unwatched,
) -> Folded:
    """Fold one table from the start of its log and swap the result in; readers see the old one until then. `tell`
    hears how far it has come."""
    with fold_connection(memory_mb) as con:
        with store_named(lake.root):
            state = read_source(con, lake, source, captured, anew={table})
        found = next(t for t in state.tables if t.table == table)
        return _timed(con, state, found, tell=partial(tell, table), replacing=True)


def fold_table(
    con: duckdb.DuckDBPyConnection,
    state: SourceState,
    table: TableState,
    *,
    replacing: bool = False,
    tell: Tell = untold,
) -> Folded:
    """Fold one table; `replacing` puts the result in place of whatever fold there is.

    1. Find what this fold takes: transactions up to the cut, and rows without one that nothing holds back.
    2. Open fresh handles. Another checkpoint than the one we started from means that another fold was first.
    3. Write the files that change, or a patch over them (see `rules`), in one commit with the new checkpoint.
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
    place = Place.of(state, table.table)
    if not replacing and not _is_as_known(table, place, lows):
        return Folded(table.table, "overtaken", cut=table.checkpoint.cut)
    view = _view(con, state, table, cut)
    reach("fold:before-write")
    try:
        whole = replacing or table.base is None
        rows = write_fold(con, view, place, checkpoint, own=state.lake.own, whole=whole, tell=tell)
    except (DeltaError, OSError, ValueError, RuntimeError) as error:
        return _after_failure(state, table, checkpoint, error, replacing=replacing)
    reach("fold:after-commit")
    return Folded(table.table, "folded", rows=rows, cut=cut, before=table.checkpoint.cut)


def _after_failure(
    state: SourceState, table: TableState, checkpoint: Checkpoint, error: Exception, *, replacing: bool
) -> Folded:
    """What a commit that failed has done after all."""
    now = Place.of(state, table.table)
    stored = now.read(checkpoint.lows)[1]
    if stored == checkpoint:
        return Folded(table.table, "folded", cut=checkpoint.cut, before=table.checkpoint.cut)
    if not replacing and not _is_as_known(table, now, checkpoint.lows):
        return Folded(table.table, "overtaken", cut=stored.cut)
    raise _explained(state, table.table, error) from error


def _is_as_known(table: TableState, place: Place, lows: Collection[tuple[str, int]]) -> bool:
    """Whether the fold there is still the one that the state was read from."""
    base, checkpoint = place.read(lows)
    held = {p: low for p, low in table.checkpoint.lows.items() if p in lows}
    # A table that is folded anew for the sake of a late repair was read without its base.
    known = table.base is None or (base is not None and base.writing == table.base.writing)
    return known and checkpoint == replace(table.checkpoint, lows=held)


def _view(con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState, cut: int) -> View:
    if table.shapes is None:
        raise ValueError("a table without shapes has an error")
    view = View(table.shapes, table.tail, table.base, state.ends, cut)
    return replace(view, settled=settle(con, view, f"{state.lake.own}.settled")) if table.shapes.keyed else view


def _explained(state: SourceState, table: TableId, error: Exception, what: str = "") -> CdcLakeError:
    if is_named(state.lake.root, error):
        return store_error(state.lake.root, error)
    full = is_disk_full(error)
    return LakeError(
        f"{what}{table} could not be folded.",
        why=first_line(error),
        next="free space on the disk, then: cdc-lake fold" if full else f"cdc-lake fold {table} -vv",
        code="disk_full" if full else "fold_failed",
    )
