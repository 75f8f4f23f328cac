"""Take the contents of changes out of a log: the files that hold them are written anew, in one commit."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
from deltalake import Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from cdc_lake.crashpoints import reach
from cdc_lake.erase.rows import ALL, Part
from cdc_lake.errors import CdcLakeError, LakeError, first_line, is_disk_full
from cdc_lake.land.erasures import EMPTIED, ERASED, MARK
from cdc_lake.land.layout import log_path
from cdc_lake.land.swap import live_files, swap_files
from cdc_lake.land.tables import LOG
from cdc_lake.project.lake import Lake
from cdc_lake.retain.rewriting import Rewriting, batches
from cdc_lake.sqltext import literal


def mark(part: Part, told: int) -> None:
    """Say in the log that the list has `told` entries: from here on what lands is held against it."""
    path = log_path(part.state.lake.root, part.state.source, part.table.table)
    try:
        commit(part.state.lake, path, [], {}, told)
    except (DeltaError, OSError) as error:
        raise explained(path, error) from error


def empty_rows(con: duckdb.DuckDBPyConnection, part: Part, told: int) -> None:
    """Write the touched files anew, in the log and in its tier, and commit them in place of the old ones. Needs
    `lock.sole_rewriter`.

    Each row stays, with its coordinates, its transaction and its order: so the cut finds a transaction as complete as
    it was. Killed before the commit, nothing has changed but for files that belong to nobody. Raises LakeError.
    """
    work = Rewriting(part.state.lake, part.state.source, part.table.table, part.table.log)
    try:
        for file in part.touched:
            work.drop(file.path, file.bytes)
            work.write(_rows(con, part, file.path), cold=work.in_tier(file.path))
        if work.rows != sum(t.rows for t in part.touched):
            raise _overtaken(work.path)
        reach("erase:before-log-commit")
        names = {a.path for a in work.hot.added}
        work.commit(
            [Transaction(MARK, told)],
            landed=lambda log: bool(names) and names <= live_files(log).keys(),
            overtaken=_overtaken(work.path),
        )
    except (DeltaError, OSError, pa.ArrowException, duckdb.Error) as error:
        raise explained(work.path, error) from error
    reach("erase:after-log-commit")


def _rows(con: duckdb.DuckDBPyConnection, part: Part, file: str) -> Iterator[pa.RecordBatch]:
    whole = f"d.what = {literal(ALL)}"
    values = {n: f"CASE WHEN {whole} THEN NULL ELSE l.{n} END" for n in EMPTIED}
    values["__op"] = f"CASE WHEN {whole} THEN {literal(ERASED)} ELSE l.__op END"
    values["__before"] = "CASE WHEN d.what IS NULL THEN l.__before END"
    values["__after"] = f"CASE WHEN {whole} THEN NULL ELSE coalesce(d.after, l.__after) END"
    items = ", ".join(f"{values.get(n, f'l.{n}')} AS {n}" for n in LOG.names)
    query = f"""SELECT {items} FROM read_parquet([{literal(file)}], hive_partitioning=false, file_row_number=true) l
        LEFT JOIN {part.relation} d ON d.file = {literal(file)} AND d.n = l.file_row_number
        ORDER BY l.file_row_number"""
    return batches(con, query)


def commit(lake: Lake, path: str, added: list[AddAction], gone: dict[str, int], told: int | None) -> None:
    """Commit files in place of others; what was appended meanwhile stays. Raises LakeError when one is gone already."""
    names = {a.path for a in added}
    swap_files(
        lambda: lake.open(path),
        added,
        gone,
        [Transaction(MARK, told)] if told is not None else [],
        landed=lambda table: bool(names) and names <= live_files(table).keys(),
        overtaken=_overtaken(path),
    )


def _overtaken(path: str) -> LakeError:
    return LakeError(
        f"{path} was rewritten meanwhile, so nothing more was erased.",
        why="What was read is no longer what is there.",
        next="run the same cdc-lake erase once more: it goes on",
        code="erase_overtaken",
    )


def explained(path: str, error: Exception) -> CdcLakeError:
    """An error of a library, in words."""
    if isinstance(error, CdcLakeError):
        return error
    full = is_disk_full(error)
    return LakeError(
        f"{path} could not be rewritten, so the erasure is not done.",
        why=first_line(error),
        next=f"{'free space on the disk, then ' if full else ''}run the same cdc-lake erase once more: it goes on",
        code="disk_full" if full else "erase_failed",
    )
