"""Read the rows of a small table, in the thread that asks.

delta-rs's own way hands the files to threads of Arrow's. The files are Python objects, and a thread that lets go of one
while the interpreter ends aborts the process: "terminate called without an active exception", exit code 134, after one
in ten runs of a short command on a busy machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

_LONG_AGO = datetime.fromtimestamp(0, UTC)


def read_rows(table: DeltaTable, columns: Sequence[str] | None = None, within: ds.Expression | None = None) -> pa.Table:
    """The rows of a snapshot: all of them, or those for which `within` holds. Raises OSError and DeltaError."""
    dataset: Any = table.to_pyarrow_dataset()
    schema = dataset.schema
    wanted = schema.names if columns is None else list(columns)
    # Which columns `within` looks at, an expression does not tell; without one no others are read than wanted.
    needed = schema if within is not None else pa.schema([schema.field(name) for name in wanted])
    parts = [_read(dataset.filesystem, f.path, needed) for f in dataset.get_fragments(within)]
    whole = pa.concat_tables(parts or [needed.empty_table()])
    return (whole if within is None else whole.filter(within)).select(wanted)


def read_file(file: Any, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one open Parquet file, with those of `columns` that it has; all without."""
    return pq.ParquetFile(file).read(columns, use_threads=False)


def _read(store: Any, path: str, schema: pa.Schema) -> pa.Table:
    """One file with the columns of `schema`; null where it was written before the table had one."""
    with store.open_input_file(path) as file:
        rows = read_file(file, schema.names)
    there = set(rows.schema.names)
    arrays = [rows[f.name] if f.name in there else pa.nulls(len(rows), f.type) for f in schema]
    return pa.table(arrays, names=schema.names).cast(schema)


def last_keys(table: DeltaTable | None, topic: str, count: int) -> pa.Table | None:
    """`__key`, `__topic`, `__partition` and `__offset` of the first messages of a topic's events that landed last: of
    as many files as hold `count` of them. Raises OSError and DeltaError."""
    if table is None:
        return None
    actions = pa.table(table.get_add_actions(flatten=True))
    names = [n for n in ("path", "num_records", "max.__ingested_at") if n in actions.schema.names]
    listed = actions.select(names).to_pylist()
    listed.sort(key=lambda a: a.get("max.__ingested_at") or _LONG_AGO, reverse=True)
    wanted, rows = set[str](), 0
    for action in listed:
        if rows >= count:
            break
        wanted.add(action["path"])
        rows += action["num_records"] or 0
    dataset: Any = table.to_pyarrow_dataset()
    columns = ["__key", "__topic", "__partition", "__offset"]
    needed = pa.schema([dataset.schema.field(n) for n in (*columns, "__op")])
    within = (ds.field("__topic") == topic) & (ds.field("__op") == "c")
    fragments = [f for f in dataset.get_fragments() if any(f.path.endswith(path) for path in wanted)]
    parts = [_read(dataset.filesystem, f.path, needed).filter(within).select(columns) for f in fragments]
    return pa.concat_tables(parts) if parts else None
