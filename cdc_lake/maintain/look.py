"""What one Delta table of the lake looks like on its store: files, sizes, commits, and what readers no longer need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable

from cdc_lake.errors import LakeError, first_line
from cdc_lake.land.layout import open_delta, open_store
from cdc_lake.land.store import REMEMBERED

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
# Delta's own: commits that are older and stand before a checkpoint are taken away.
_LOG_AGE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Look:
    """A Delta table at one moment.

    `sizes` are the bytes of its live data files, `commits` those since the last checkpoint, `old_commits` those that no
    reader needs any more, `expired` the files (name to bytes) that were replaced longer ago than readers may hold them.
    `remembers` says that removed files stay written down for long enough to be found.
    """

    version: int
    sizes: tuple[int, ...]
    rows: int
    commits: int
    old_commits: int
    expired: Mapping[str, int]
    remembers: bool

    @property
    def bytes(self) -> int:
        """Bytes of the live data files."""
        return sum(self.sizes)


def look(path: str, options: Mapping[str, str] | None, keep: timedelta) -> Look | None:
    """The table at `path`; None when there is none. Writes nothing. Raises LakeError when it cannot be read."""
    table = open_delta(path, options)
    if table is None:
        return None
    try:
        actions = pa.table(table.get_add_actions(flatten=True))
        store = open_store(path, options)
        commits, old = _commits(store, table.version())
        return Look(
            version=table.version(),
            sizes=tuple(actions["size_bytes"].to_pylist()),
            rows=sum(n or 0 for n in actions["num_records"].to_pylist()),
            commits=commits,
            old_commits=old,
            expired=_expired(store, table, keep),
            remembers=all(table.metadata().configuration.get(k) == v for k, v in REMEMBERED.items()),
        )
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{path} cannot be looked through.", why=first_line(error), next=f"check {path}") from error


def _commits(store: pafs.FileSystem, version: int) -> tuple[int, int]:
    """How many commits stand behind the last checkpoint, and how many before it are old."""
    infos = store.get_file_info(pafs.FileSelector("_delta_log"))
    checkpoints = [int(m[1]) for i in infos if (m := _CHECKPOINT.fullmatch(i.base_name))]
    last = max(checkpoints, default=-1)
    before = datetime.now(UTC) - _LOG_AGE
    named = [(int(m[1]), i.mtime) for i in infos if (m := _COMMIT.fullmatch(i.base_name))]
    return version - last, sum(n < last and mtime is not None and mtime < before for n, mtime in named)


def _expired(store: pafs.FileSystem, table: DeltaTable, keep: timedelta) -> dict[str, int]:
    named = removed_before(table, keep, dry_run=True)
    if not named:
        return {}
    # Removed files stay written down for a while after they are gone: only what is there counts.
    there = {i.path: i.size for i in store.get_file_info(pafs.FileSelector("")) if i.type == pafs.FileType.File}
    return {name: there[name] for name in named if name in there}


def removed_before(table: DeltaTable, keep: timedelta, *, dry_run: bool) -> list[str]:
    """Delete the files that a commit removed longer than `keep` ago, or only name them.

    Never a file that no commit names: it may be of a writer who is about to commit.
    """
    hours = int(keep.total_seconds() // 3600)
    return table.vacuum(hours, dry_run=dry_run, enforce_retention_duration=False, full=False)
