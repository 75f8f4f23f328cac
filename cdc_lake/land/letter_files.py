"""Write files of dead letters anew, without some of the letters or without their contents."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from cdc_lake.land.layout import open_store
from cdc_lake.land.reading import read_file
from cdc_lake.land.swap import live_files
from cdc_lake.land.tables import DEAD_LETTERS


def rewritten(
    path: str,
    options: Mapping[str, str] | None,
    table: DeltaTable,
    *,
    emptied: Collection[str],
    said: Mapping[str, str],
    gone: Collection[str] = (),
) -> tuple[list[AddAction], dict[str, int]]:
    """Write the files that hold any of the letters, one at a time: those in `gone` (ids) are left out, those in
    `emptied` keep their coordinates alone, and the columns `said` tell why.

    Returns the new files and those that they replace (name to bytes); nobody reads either before a commit. Raises
    OSError and ArrowException.
    """
    store, added, replaced = open_store(path, options), list[AddAction](), dict[str, int]()
    for name, size in live_files(table).items():
        with store.open_input_file(name) as file:
            rows = read_file(file).select(DEAD_LETTERS.names).cast(DEAD_LETTERS)
        goes, loses = (_among(rows, ids) for ids in (gone, emptied))
        if not pc.any(pc.or_(goes, loses)).as_py():
            continue
        replaced[name] = size
        kept = _emptied(rows, loses, said).filter(pc.invert(goes))
        added += [_written(store, kept)] if kept.num_rows else []
    return added, replaced


def _among(rows: pa.Table, ids: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(rows["id"], pa.array(sorted(ids), pa.string()))


def _emptied(rows: pa.Table, chosen: pa.ChunkedArray, said: Mapping[str, str]) -> pa.Table:
    for name in ("key", "value", "headers", *said):
        column = rows.schema.field(name)
        value = pc.if_else(chosen, pa.scalar(said.get(name), column.type), rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), column, value)
    return rows


def _written(store: pafs.FileSystem, rows: pa.Table) -> AddAction:
    name = f"part-{uuid.uuid4()}-c000.zstd.parquet"
    with store.open_output_stream(name) as out:
        pq.write_table(rows, out, compression="zstd")
        size = out.tell()
    return AddAction(name, size, {}, int(time.time() * 1000), True, json.dumps({"numRecords": rows.num_rows}))
