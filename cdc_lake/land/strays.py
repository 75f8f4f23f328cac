"""A table's folder beside what its commits name: files of killed writers and others, and files that are gone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow.fs as pafs
from deltalake import DeltaTable

from cdc_lake.land.layout import open_store

# A writer may be at work on files that it is about to commit: none takes so long.
_IN_FLIGHT = timedelta(days=1)
# Folders that are none of a partition's: the Delta log, and what other programs keep beside it.
_HIDDEN = re.compile(r"_[^/=]*(/|$)")


@dataclass(frozen=True, slots=True)
class Odd:
    """Names, relative to the table's folder: files that nobody reads and that nothing deletes, with their bytes, and
    files that a reader would look for and not find."""

    strays: Mapping[str, int]
    missing: tuple[str, ...]


def compare_files(path: str, table: DeltaTable, options: Mapping[str, str] | None) -> Odd:
    """Compare a table's folder with its newest commit.

    What a commit took away is no stray: vacuum deletes it in time. Nor is what is younger than a day.
    Raises OSError, pyarrow.ArrowException or DeltaError when the folder cannot be listed.
    """
    read = _read(table)
    known = read | _taken_away(table)
    found = open_store(path, options).get_file_info(pafs.FileSelector("", recursive=True))
    files = {info.path: info for info in found if info.type == pafs.FileType.File and not _HIDDEN.match(info.path)}
    before = datetime.now(UTC) - _IN_FLIGHT
    strays = {name: info.size for name, info in files.items() if name not in known and info.mtime < before}
    return Odd(strays, tuple(sorted(read - files.keys())))


def files_named(table: DeltaTable) -> set[str]:
    """The data files that a snapshot's commits name: those that are read, and those that were taken away and still lie
    there for older readers."""
    return _read(table) | _taken_away(table)


def _read(table: DeltaTable) -> set[str]:
    return set(table.get_add_actions(flatten=True)["path"].to_pylist())


def _taken_away(table: DeltaTable) -> set[str]:
    return set(table.vacuum(0, dry_run=True, enforce_retention_duration=False, full=False))
