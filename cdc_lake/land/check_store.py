"""Checks of the lake: can it be written, does its store keep two writers apart, and what has piled up in it?"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from cdc_lake.checks import Check, fail, listed, many, ok, size, span, warn
from cdc_lake.errors import CdcLakeError, LakeError, first_line
from cdc_lake.land import layout
from cdc_lake.land.probe import Probe
from cdc_lake.land.reading import read_rows
from cdc_lake.land.strays import compare_files

_FREE_WARN, _FREE_FAIL = 2 << 30, 256 << 20
_LOG_FILES, _LOG_BYTES = 5_000, 1 << 30


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One Delta table: its path, the topics that feed it, the age of its newest commit in seconds, files and bytes of
    its log (None: not seen from here), why it cannot be read (empty: it can), the files in its folder that no
    commit names (name to bytes), and those that the newest commit names and that are not there."""

    path: str
    topics: tuple[str, ...] = ()
    age: float | None = None
    log_files: int | None = None
    log_bytes: int | None = None
    error: str = ""
    strays: Mapping[str, int] = field(default_factory=dict)
    missing: Sequence[str] = ()


def check_probe(root: str, found: Probe, switch: str = "") -> list[Check]:
    """Judge what the probe found; `switch` is the `unsafe_switch` that is on, which a probe may miss by luck."""
    if found.error:
        return [
            fail(
                "lake.writable",
                f"{root} cannot be written",
                why=found.error,
                fix=f"let this user write to {root}, or name another place as `lake.uri` in cdc-lake.yaml",
            )
        ]
    written = ok("lake.writable", root)
    if not found.doubled and not switch:
        return [written, ok("lake.put_if_absent", "of several commits of one version the store takes one")]
    unsafe = fail(
        "lake.put_if_absent",
        "the store took two commits of the same version" if found.doubled else f"{switch} is on",
        why="The later commit overwrites the earlier one: with two writers rows are lost, and no error says so.",
        fix=f"remove {switch} from `lake.options` in cdc-lake.yaml and from the environment"
        if switch
        else "name a store with conditional writes as `lake.uri` in cdc-lake.yaml: S3, GCS, Azure, a local disk",
    )
    return [written, unsafe]


def read_tables(root: str, source: str, options: dict[str, str] | None = None) -> list[TableFacts]:
    """Look at every table of a source. Raises LakeError when the lake cannot be listed."""
    paths = [
        layout.transactions_path(root, source),
        layout.schemas_path(root, source),
        layout.dead_letters_path(root, source),
        layout.decisions_path(root, source),
    ]
    try:
        tables = layout.list_tables(root, source, options)
    except (OSError, pa.ArrowException) as error:
        raise LakeError(
            f"The lake at {root} cannot be read.",
            why=first_line(error),
            next="check `lake.uri` and `lake.options` in cdc-lake.yaml",
        ) from None
    for table in tables:
        paths += [layout.log_path(root, source, table), layout.current_path(root, source, table)]
        paths += [layout.patch_path(root, source, table), layout.history_path(root, source, table)]
    return [facts for path in paths if (facts := _read(path, options)) is not None]


def count_dead_letters(root: str, source: str, options: dict[str, str] | None = None) -> int:
    """Records that could not be decoded and wait for a decision. Raises LakeError when they cannot be read."""
    paths = layout.dead_letters_path(root, source), layout.decisions_path(root, source)
    letters, decided = (_ids(layout.open_delta(path, options)) for path in paths)
    return len(letters - decided)


def newest_age(tables: Iterable[TableFacts]) -> float | None:
    """Seconds since anything was committed; None when nothing ever was."""
    return min((t.age for t in tables if t.age is not None), default=None)


def check_tables(tables: Sequence[TableFacts]) -> list[Check]:
    """Judge the tables."""
    broken = [t for t in tables if t.error]
    age = newest_age(tables)
    found = [
        fail(
            "lake.tables",
            f"cannot be read: {listed(t.path for t in broken)}",
            why=broken[0].error,
            fix="cdc-lake recover  (where a newest commit is cut off), or put the folder back from a copy; "
            "a read model is made anew by: cdc-lake rebuild TABLE",
        )
        if broken
        else ok("lake.tables", f"{many(len(tables), 'Delta table')} can be read"),
        ok("lake.newest_commit", "nothing has landed" if age is None else f"{span(age)} ago"),
        _missing(tables),
        _logs(tables),
        _strays(tables),
    ]
    return found


def check_dead_letters(count: int) -> Check:
    """Judge their number."""
    if count == 0:
        return ok("lake.dead_letters", "none")
    return warn(
        "lake.dead_letters",
        f"{many(count, 'record')} could not be decoded",
        why="They are kept with their bytes, and missing in `current` and `changes` until they are replayed.",
        fix="cdc-lake dlq list",
    )


def check_disk(root: str, free: int | None) -> Check:
    """Judge the space that is left; `free` None: the store does not say."""
    if free is None:
        return ok("lake.disk", "an object store")
    if free >= _FREE_WARN:
        return ok("lake.disk", f"{size(free)} free")
    judge = fail if free < _FREE_FAIL else warn
    return judge(
        "lake.disk",
        f"{size(free)} free at {root}",
        why="The sink stops when the disk is full; what was committed stays readable.",
        fix=f"free space at {root}, or move the lake: `lake.uri` in cdc-lake.yaml",
    )


def free_bytes(root: str) -> int | None:
    """Bytes free where a local lake is or will be; None for an object store."""
    if "://" in root:
        return None
    folder = Path(root)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _logs(tables: Sequence[TableFacts]) -> Check:
    name = "lake.log_size"
    large = [t for t in tables if (t.log_files or 0) > _LOG_FILES or (t.log_bytes or 0) > _LOG_BYTES]
    if not large:
        seen = [t.log_bytes for t in tables if t.log_bytes is not None]
        return ok(name, "not seen from here" if tables and not seen else f"{size(sum(seen))} in all")
    return warn(
        name,
        listed(f"{t.path}: {t.log_files:,} files, {size(t.log_bytes or 0)}" for t in large),
        why="Opening a table reads its log from the last checkpoint on, and lists all of it.",
        fix="cdc-lake maintain",
    )


def _missing(tables: Sequence[TableFacts]) -> Check:
    found = [f"{t.path}/{name}" for t in tables for name in t.missing]
    if not found:
        return ok("lake.files", "every file that a reader needs is there")
    return fail(
        "lake.files",
        f"{many(len(found), 'file')} gone: {listed(found)}",
        why="Somebody deleted them: what reads these tables stops there, and the sink goes on beside it.",
        fix="put them back from a copy of the lake; below current, patch and history: cdc-lake rebuild TABLE",
    )


def _strays(tables: Sequence[TableFacts]) -> Check:
    found = [(f"{t.path}/{name}", nbytes) for t in tables for name, nbytes in sorted(t.strays.items())]
    if not found:
        return ok("lake.strays", "every file belongs to a commit")
    return warn(
        "lake.strays",
        f"{many(len(found), 'file')} of no commit, {size(sum(n for _, n in found))}: {listed(p for p, _ in found)}",
        why="Another program put them there, or a writer left them that was killed before its commit. "
        "The lake reads none of them, and deletes none.",
        fix="look at them, and move those that are of use elsewhere; the others can be deleted",
    )


def _read(path: str, options: dict[str, str] | None) -> TableFacts | None:
    try:
        table = layout.open_delta(path, options)
        if table is None:
            return None
        newest = table.history(1)
        topics = tuple(json.loads(table.metadata().description or "{}").get("topics", ()))
        odd = compare_files(path, table, options)
    except CdcLakeError as error:
        return TableFacts(path, error=error.why or error.message)
    except Exception as error:
        return TableFacts(path, error=first_line(error))
    stamp = newest[0].get("timestamp") if newest else None
    files, total = _log_files(path)
    return TableFacts(
        path,
        topics,
        max(0.0, time.time() - stamp / 1000) if stamp else None,
        files,
        total,
        strays=odd.strays,
        missing=odd.missing,
    )


def _ids(table: DeltaTable | None) -> set[str]:
    # The letters themselves may be large: only their names are read.
    return set() if table is None else set(read_rows(table, ["id"])["id"].to_pylist())


def _log_files(path: str) -> tuple[int | None, int | None]:
    if "://" in path:
        return None, None
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(Path(path) / "_delta_log") if entry.is_file()]
    except OSError:
        return None, None
    return len(sizes), sum(sizes)
