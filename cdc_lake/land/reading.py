"""Read the rows of a small table, in the thread that asks.

delta-rs's own way hands the files to threads of Arrow's. The files are Python objects, and a thread that lets go of one
while the interpreter ends aborts the process: "terminate called without an active exception", exit code 134, after one
in ten runs of a short command on a busy machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable


def read_rows(table: DeltaTable, columns: Sequence[str] | None = None, within: ds.Expression | None = None) -> pa.Table:
    """The rows of a snapshot: all of them, or those for which `within` holds. Raises OSError and DeltaError."""
    dataset: Any = table.to_pyarrow_dataset()
    wanted = dataset.schema.names if columns is None else list(columns)
    schema = pa.schema([dataset.schema.field(name) for name in wanted])
    parts = [_read(dataset.filesystem, f.path, dataset.schema) for f in dataset.get_fragments(within)]
    whole = pa.concat_tables(parts) if parts else dataset.schema.empty_table()
    return (whole if within is None else whole.filter(within)).select(wanted).cast(schema)


def _read(store: Any, path: str, schema: pa.Schema) -> pa.Table:
    """One file with the columns of `schema`; null where it was written before the table had one."""
    with store.open_input_file(path) as file:
        rows = pq.ParquetFile(file).read(use_threads=False)
    there = set(rows.schema.names)
    arrays = [rows[f.name] if f.name in there else pa.nulls(len(rows), f.type) for f in schema]
    return pa.table(arrays, names=schema.names).cast(schema)
