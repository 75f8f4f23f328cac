"""A newest commit that is not whole, as a disk leaves one that lost power or ran full: found, and set aside.

A commit of an append-only table holds rows and the offsets behind them, so without it the table is whole, only as it
was before: the offsets say what must be read again from Kafka, and no file that the commit named is read by anybody.
Nothing is doubled, and nothing is lost as long as Kafka has the records; where it does not, the sink stops with
`offsets_expired` and says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from cdc_lake.errors import LakeError, first_line
from cdc_lake.land.layout import open_store

_LOG, _ASIDE = "_delta_log", "torn-commit-"
_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True, slots=True)
class Torn:
    """The newest commit of the table at `path`: its version, and why it is not whole."""

    path: str
    version: int
    why: str

    @property
    def name(self) -> str:
        """The commit's file, relative to the table's folder."""
        return f"{_LOG}/{self.version:020}.json"

    @property
    def aside(self) -> str:
        """Where it is put: no reader and no writer looks there."""
        return f"{_ASIDE}{self.version:020}.json"


def find_torn(path: str, options: Mapping[str, str] | None = None) -> Torn | None:
    """The newest commit of the table at `path` when it is not whole. Raises OSError and pyarrow.ArrowException."""
    if "://" not in path and not Path(path).is_dir():
        return None
    store = open_store(path, options)
    versions = _versions(store)
    if not versions:
        return None
    newest = Torn(path, max(versions), "")
    with store.open_input_file(newest.name) as file:
        why = _damage(file.read())
    return Torn(path, newest.version, why) if why else None


def was_torn(path: str, options: Mapping[str, str] | None = None) -> bool:
    """Whether a commit of the table at `path` was ever set aside. Raises OSError and pyarrow.ArrowException."""
    if "://" not in path and not Path(path).is_dir():
        return False
    infos = open_store(path, options).get_file_info(pafs.FileSelector("", allow_not_found=True))
    return any(info.base_name.startswith(_ASIDE) for info in infos)


def set_aside(torn: Torn, options: Mapping[str, str] | None = None) -> None:
    """Take the commit out of the table's log and keep it beside it.

    1. Copy it. Killed here, nothing has changed.
    2. Delete it. Before version 0 there is no table.
    3. Open the table as it was before; where that cannot be done either, put the commit back: LakeError.

    A writer that still holds the commit's version finds another position than it left: it stops, and writes nothing.
    Raises LakeError, OSError and pyarrow.ArrowException.
    """
    store = open_store(torn.path, options)
    _copy(store, torn.name, torn.aside)
    store.delete_file(torn.name)
    try:
        _refuse_later(store, torn)
        DeltaTable(torn.path, storage_options=dict(options) if options else None)
    except TableNotFoundError:
        if torn.version == 0:
            return
        raise
    except Exception as error:
        _copy(store, torn.aside, torn.name)
        store.delete_file(torn.aside)
        raise LakeError(
            f"The Delta table {torn.path} cannot be read without its newest commit either.",
            why=first_line(error),
            next="put its folder back from a copy of the lake; nothing was changed",
            code="lake_unreadable",
        ) from error


def _refuse_later(store: pafs.FileSystem, torn: Torn) -> None:
    newest = max(_versions(store), default=-1)
    if newest > torn.version:
        raise OSError(f"a writer that had the table open has committed version {newest} meanwhile")


def _versions(store: pafs.FileSystem) -> list[int]:
    infos = store.get_file_info(pafs.FileSelector(_LOG, allow_not_found=True))
    return [int(found[1]) for info in infos if (found := _COMMIT.fullmatch(info.base_name))]


def _copy(store: pafs.FileSystem, source: str, target: str) -> None:
    with store.open_input_file(source) as file:
        kept = file.read()
    # Through a buffer that holds all of it: without one delta-rs refuses what Arrow hands it.
    with store.open_output_stream(target, buffer_size=len(kept) + 1) as out:
        out.write(kept)


def _damage(commit: bytes) -> str:
    """Why the bytes of a commit are none: each of its lines is one JSON object."""
    if not commit.strip():
        return "it is empty"
    for number, line in enumerate(commit.splitlines(), 1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return f"line {number} is no object"
        except ValueError:
            return f"line {number} is cut off or damaged"
    return ""
