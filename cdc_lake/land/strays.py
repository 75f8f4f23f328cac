"""Files in a table's folder that no commit names: those of killed writers, and those of other programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pyarrow.fs as pafs
from deltalake import DeltaTable

from cdc_lake.land.layout import open_store

# A writer may be at work on files that it is about to commit: none takes so long.
_IN_FLIGHT = timedelta(days=1)
# Folders that are none of a partition's: the Delta log, and what other programs keep beside it.
_HIDDEN = re.compile(r"_[^/=]*(/|$)")


def find_strays(path: str, table: DeltaTable, options: Mapping[str, str] | None) -> dict[str, int]:
    """Names, relative to `path`, and bytes of the files that nobody reads and that nothing deletes.

    Those that a commit took away are none: vacuum deletes them in time. Nor are those that are younger than a day.
    Raises OSError, pyarrow.ArrowException or DeltaError when the folder cannot be listed.
    """
    known = set(table.get_add_actions(flatten=True)["path"].to_pylist())
    known.update(table.vacuum(0, dry_run=True, enforce_retention_duration=False, full=False))
    infos = open_store(path, options).get_file_info(pafs.FileSelector("", recursive=True))
    before = datetime.now(UTC) - _IN_FLIGHT
    return {
        info.path: info.size
        for info in infos
        if info.type == pafs.FileType.File
        and not _HIDDEN.match(info.path)
        and info.path not in known
        and info.mtime < before
    }
