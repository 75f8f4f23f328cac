"""What a Delta table still holds of rows that a commit replaced: the old files, and the bounds of their columns.

Writers put the least and the greatest value of each column into the commit that adds a file, and into checkpoints.
Those of files that are no longer live are taken out where they stand: a commit keeps its place and its number, so no
writer that is at work can take it for a free one, and every version can still be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError

from cdc_lake.erase.log import explained
from cdc_lake.land.layout import data_infos, open_store
from cdc_lake.land.reading import read_file
from cdc_lake.land.swap import READABLE, live_files
from cdc_lake.project.lake import Lake

_COMMIT = re.compile(r"\d{20}\.json")
_CHECKPOINT = re.compile(r"\d{20}\.checkpoint.*\.parquet")
# A file of a table's own writers. Anything else is a stranger's, and stays.
_DATA = re.compile(r"([^/]+=[^/]+/)*part-.*\.parquet")
# No writer keeps a file for so long before it commits it.
_FORGOTTEN = timedelta(days=1)


def clear_bounds(lake: Lake, path: str) -> None:
    """Take the bounds of all files that are not live out of the commits and checkpoints of the table at `path`.

    Raises LakeError.
    """
    table = lake.open(path)
    if table is None:
        return
    store = open_store(path, lake.options_at(path))
    try:
        # A checkpoint of today's files alone, so that the one that readers begin with is never written over.
        table.create_checkpoint()
        live = live_files(table).keys()
        for info in store.get_file_info(pafs.FileSelector("_delta_log")):
            if _COMMIT.fullmatch(info.base_name):
                _clear_commit(store, info.path, live)
            elif _CHECKPOINT.fullmatch(info.base_name):
                _clear_checkpoint(store, info.path, live)
    except (DeltaError, OSError, pa.ArrowException, ValueError) as error:
        raise explained(path, error) from error


def _clear_commit(store: pafs.FileSystem, name: str, live: Collection[str]) -> None:
    with store.open_input_file(name) as file:
        before = file.read().decode()
    lines = [_clear_line(line, live) for line in before.split("\n")]
    after = "\n".join(lines)
    if after != before:
        written = after.encode()
        # What fits into no buffer, pyarrow hands over in a form that delta-rs 1.6 refuses.
        with store.open_output_stream(name, buffer_size=len(written) + 1) as out:
            out.write(written)


def _clear_line(line: str, live: Collection[str]) -> str:
    if '"stats"' not in line:
        return line
    action = json.loads(line)
    for kind in ("add", "remove"):
        held = action.get(kind)
        if held and (kind == "remove" or held["path"] not in live) and _bounded(held.get("stats")):
            held["stats"] = _without(held["stats"])
            return json.dumps(action, separators=(",", ":"))
    return line


def _clear_checkpoint(store: pafs.FileSystem, name: str, live: Collection[str]) -> None:
    with store.open_input_file(name) as file:
        table = read_file(file)
    changed = False
    for kind in ("add", "remove"):
        place = table.schema.get_field_index(kind)
        if place < 0:
            continue
        field, rows, touched = table.schema.field(kind), table[kind].to_pylist(), False
        for row in rows:
            touched |= row is not None and (kind == "remove" or row["path"] not in live) and _clear_row(row)
        if touched:
            column = pa.chunked_array([pa.array(rows, field.type)])
            table, changed = table.set_column(place, field, column), True
    if changed:
        with store.open_output_stream(name) as out:
            pq.write_table(table, out)


def _clear_row(row: dict[str, Any]) -> bool:
    found = False
    if _bounded(row.get("stats")):
        row["stats"], found = _without(row["stats"]), True
    if row.get("stats_parsed") is not None:
        row["stats_parsed"], found = None, True
    return found


def _bounded(stats: str | None) -> bool:
    return bool(stats) and not {"minValues", "maxValues"}.isdisjoint(json.loads(stats or "{}"))


def _without(stats: str) -> str:
    return json.dumps({k: v for k, v in json.loads(stats).items() if k not in ("minValues", "maxValues")})


def delete_replaced(lake: Lake, path: str, *, dry_run: bool) -> int:
    """Delete the files of the table at `path` that it no longer has, or only count them; how many.

    A file that no commit ever named goes after a day: it may be of a writer who is about to commit it.
    Raises LakeError.
    """
    table = lake.open(path)
    if table is None:
        return 0
    store = open_store(path, lake.options_at(path))
    try:
        gone = set(table.vacuum(0, dry_run=True, enforce_retention_duration=False, full=False))
        found = data_infos(store)
        chosen = [n for n in _replaced(table, found) if n in gone or _forgotten(found[n])]
        if chosen and not dry_run:
            _say_whole(table)
        for name in () if dry_run else chosen:
            store.delete_file(name)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise explained(path, error) from error
    return len(chosen)


def _say_whole(table: DeltaTable) -> None:
    """Earlier versions will miss files."""
    said = CommitProperties(app_transactions=[Transaction(READABLE, table.version())])
    table.create_write_transaction([], "append", table.schema(), commit_properties=said)


def _replaced(table: DeltaTable, found: Mapping[str, pafs.FileInfo]) -> list[str]:
    live = live_files(table)
    return sorted(n for n in found if n not in live and _DATA.fullmatch(n))


def _forgotten(info: pafs.FileInfo) -> bool:
    return info.mtime is not None and info.mtime < datetime.now(UTC) - _FORGOTTEN
