"""What a process that reads one lake again and again keeps from one reading to the next.

Kept are facts about data files, which never change, and about versions of tables, which are looked up each time. So a
reading with a cache finds what one without it finds, and opens only the files that are new since the last one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cdc_lake.land.layout import form_of, is_known, local_path, open_as, open_delta
from cdc_lake.project.files import LogFiles, scan
from cdc_lake.project.tail import Facts

T = TypeVar("T")
# A file or folder as it is: its inode, its size and the time of its last change.
_Mark = tuple[int, int, int]


class _Table(DeltaTable):
    """A handle that remembers what it was asked of app transactions: to find one, delta-rs reads every commit since the
    last checkpoint."""

    def __init__(self, path: str, storage_options: dict[str, str] | None = None) -> None:
        super().__init__(path, storage_options=storage_options)
        self._known: dict[str, int | None] = {}

    def transaction_version(self, app_id: str) -> int | None:
        """The version of an app transaction; None when no commit has it."""
        if app_id not in self._known:
            self._known[app_id] = super().transaction_version(app_id)
        return self._known[app_id]

    def move_on(self, folder: str) -> None:
        """Go to the newest version."""
        before = self.version()
        self.update_incremental()
        try:
            for version in range(before + 1, self.version() + 1):
                with open(_commit(folder, version), encoding="utf-8") as commit:
                    actions = [json.loads(line) for line in commit if '"txn"' in line]
                self._known |= {a["txn"]["appId"]: a["txn"]["version"] for a in actions if "txn" in a}
        except (OSError, ValueError):  # cleared away behind a checkpoint
            self._known.clear()


@dataclass(slots=True)
class _Held:
    """A handle with its version, and the marks of the log's folder and of the commit that made this version."""

    table: _Table
    version: int
    folder: _Mark | None
    commit: _Mark | None


@dataclass(slots=True)
class Kept:
    """What is known of a source's files: the `facts` of those of its logs, the `ends` of transactions by their file.

    All transactions up to the position `cut` were found to be complete; in the files `closed`, by the name of their
    table, nothing belongs to a later one.
    """

    facts: dict[str, Facts] = field(default_factory=dict)
    ends: dict[str, pa.Table] = field(default_factory=dict)
    cut: int = 0
    closed: dict[str, set[str]] = field(default_factory=dict)

    def read_ends(self, con: duckdb.DuckDBPyConnection, files: Sequence[str]) -> pa.Table:
        """The ends of transactions in `files`, with the columns that are read of them. Others are forgotten."""
        new = [f for f in files if f not in self.ends]
        if new:
            query = f"SELECT filename, {_END} FROM {scan(new, named=True)} WHERE status = 'END' ORDER BY filename"
            rows: pa.Table = con.cursor().sql(query).to_arrow_table()
            names, rows = rows.column("filename").to_pylist(), rows.drop_columns(["filename"])
            self.ends |= dict.fromkeys(new, rows.slice(0, 0))
            first = 0
            for file, run in groupby(names):
                count = sum(1 for _ in run)
                self.ends[file] = rows.slice(first, count)
                first += count
        self.ends = {f: self.ends[f] for f in files}
        return pa.concat_tables(self.ends.values())

    def forget(self, logs: Iterable[LogFiles]) -> None:
        """Keep the facts of files that are in `logs`, and no others."""
        there = {f.path for log in logs for f in log.own}
        self.facts = {path: facts for path, facts in self.facts.items() if path in there}


class Cache:
    """For the readings of one process of one lake, one behind the other."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._made: dict[tuple[str, str], tuple[object, int, object]] = {}
        self._kept: dict[str, Kept] = {}

    def open(self, path: str, options: Mapping[str, str] | None) -> DeltaTable | None:
        """The newest version of a Delta table; None when there is none. It may be the handle that an earlier call
        answered. Raises LakeError when it cannot be read."""
        local = local_path(path)
        if "://" in local:
            return open_delta(path, options)
        held, folder = self._held.get(path), _mark(f"{local}/_delta_log")
        if held is not None and held.folder == folder and _mark(_commit(local, held.version + 1)) is None:
            return held.table
        if held is None or not _goes_on(local, held):
            found = open_as(_Table, path, options) if folder is not None else None
            held = _Held(found, found.version(), None, None) if found is not None else None
        if held is None:
            self._held.pop(path, None)
            return None
        held.folder, held.version = folder, held.table.version()
        held.commit = _mark(_commit(local, held.version))
        self._held[path] = held
        return held.table

    def of_version(self, kind: str, path: str, handle: DeltaTable, make: Callable[[T | None], T]) -> T:
        """What `make` makes of the table that `handle` is, once for each of its versions. It is given what it made of
        an earlier version, if anything."""
        of = handle if "://" not in local_path(path) else handle.metadata().id
        held, version, known = self._made.get((kind, path), (None, -1, None))
        if (held is of or held == of) and version == handle.version():
            return known  # type: ignore[return-value]
        made = make(known)  # type: ignore[arg-type]
        self._made[kind, path] = (of, handle.version(), made)
        return made

    def of(self, source: str, transactions: LogFiles | None) -> Kept:
        """What is known of a source whose transactions are in these files."""
        kept = self._kept.setdefault(source, Kept())
        ends = transactions.files if transactions is not None else ()
        if kept.cut and not any(f.offsets[0] < kept.cut <= f.offsets[1] + 1 for f in ends):
            # The end that it stood at is not there: this is another log, or an earlier state of it.
            kept.cut, kept.closed = 0, {}
        return kept


_END = "tx_id, __offset, lsn, source_ts, data_collections, status"


def _commit(folder: str, version: int) -> str:
    return f"{folder}/_delta_log/{version:020}.json"


def _mark(path: str) -> _Mark | None:
    """None: there is no such file."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _goes_on(folder: str, held: _Held) -> bool:
    """Bring a handle up to date; False when this is another table than it was, or that cannot be told.

    A table that was deleted and made anew has versions of the same numbers: the commit at the held one tells.
    """
    if held.commit is None or _mark(_commit(folder, held.version)) != held.commit:
        return False
    try:
        held.table.move_on(folder)
        return is_known(form_of(held.table))
    except (DeltaError, OSError):  # deleted meanwhile, or damaged: opening tells which
        return False
