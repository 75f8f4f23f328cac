"""Read models without what was erased: made anew from the log that no longer has it.

What they must not hold is told by the list of erasures alone, so a run that was killed is gone on with by the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

import duckdb
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.erase.log import explained
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.land.erasures import Entry, Erasures
from cdc_lake.land.layout import COPY, model_paths, parquet_files
from cdc_lake.project.base import OVER
from cdc_lake.project.files import LogFiles, scan
from cdc_lake.project.fold import Folded
from cdc_lake.project.lake import Lake
from cdc_lake.project.tiered import read_log
from cdc_lake.sqltext import ident, literal

# Columns of ours that hold a key's text; a source's column of the same name makes ours longer.
_KEYS = re.compile(r"_+(key|previous_key|next_key)")
_PATCH = "patch"

Rebuild = Callable[[TableId], Folded]


def clean_models(
    con: duckdb.DuckDBPyConnection, lake: Lake, source: str, table: TableId, found: Erasures, *, rebuild: Rebuild
) -> bool:
    """`rebuild` a table when its read models hold anything of what was erased from it; whether they did.

    Raises LakeError.
    """
    salt, entries = found.salt, found.of(table)
    hashes = _absent(con, read_log(lake, source, table), salt, entries)
    there = dict(_models(lake, source, table))
    # Of a key that other rows had too, single versions went: only the log tells which.
    shared = bool(there) and not all(e.gone for e in entries)
    if not shared and not any(_holds(con, m, salt, hashes) for m in there.values()):
        return False
    done = rebuild(table)
    if done.error is not None:
        raise done.error
    reach("erase:after-rebuild")
    for kind, model in _models(lake, source, table):
        if not _holds(con, model, salt, hashes):
            continue
        if kind.startswith(COPY):
            raise _copied(table, kind.removeprefix(COPY), model_paths(lake.root, source, table, lake.options)[kind])
        if kind != _PATCH or done.outcome != "folded":
            raise _held(table, kind)
        _clear_patch(lake, source, table)
    return True


def _models(lake: Lake, source: str, table: TableId) -> Iterator[tuple[str, DeltaTable]]:
    for kind, path in model_paths(lake.root, source, table, lake.options).items():
        model = lake.open(path)
        if model is not None:
            yield kind, model


def _absent(con: duckdb.DuckDBPyConnection, log: LogFiles | None, salt: str, entries: Collection[Entry]) -> list[str]:
    """The hashes of keys that the log has no row of: a row that was born since is another one, and stays."""
    wanted = sorted({e.key_hash for e in entries})
    files = log.paths if log is not None else []
    if not files or not wanted:
        return wanted
    rows = con.execute(
        f"""SELECT DISTINCT h FROM (SELECT sha256({literal(salt)} || __key) AS h FROM {scan(files)}
        WHERE __key IS NOT NULL) WHERE h IN (SELECT unnest($1::VARCHAR[]))""",
        [wanted],
    ).fetchall()
    return sorted(set(wanted) - {h for (h,) in rows})


def _holds(con: duckdb.DuckDBPyConnection, model: DeltaTable, salt: str, hashes: Collection[str]) -> bool:
    columns = [f.name for f in model.schema().fields if _KEYS.fullmatch(f.name)]
    files = parquet_files(model)
    if not columns or not files or not hashes:
        return False
    for column in columns:
        row = con.execute(
            f"""SELECT 1 FROM {scan(files)} WHERE sha256({literal(salt)} || {ident(column)}::VARCHAR)
            IN (SELECT unnest($1::VARCHAR[])) LIMIT 1""",
            [sorted(hashes)],
        ).fetchone()
        if row is not None:
            return True
    return False


def _clear_patch(lake: Lake, source: str, table: TableId) -> None:
    """Empty a patch that lies over nothing: what was below it has been written anew."""
    path = model_paths(lake.root, source, table, lake.options)[_PATCH]
    patch = lake.open(path)
    if patch is None:
        return
    held = CommitProperties(app_transactions=[Transaction(OVER, 0)])
    try:
        patch.create_write_transaction([], "overwrite", patch.schema(), commit_properties=held)
    except DeltaError as error:
        raise explained(path, error) from error


def _copied(table: TableId, name: str, path: str) -> LakeError:
    return LakeError(
        f"The copy {name} of {table}, which a replay made, still holds what was erased from its log.",
        why="A copy is not made anew with the read models: only its maker knows what it is for.",
        next=f"delete {path}; then run the same cdc-lake erase once more: it goes on. A replay makes the copy again",
        code="erase_held",
    )


def _held(table: TableId, kind: str) -> LakeError:
    return LakeError(
        f"The read model {kind} of {table} still holds what was erased from its log.",
        why="It could not be made anew: another fold was at work, or a snapshot of the table is on its way.",
        next=f"cdc-lake fold {table}; then run the same cdc-lake erase once more: it goes on",
        code="erase_held",
    )
