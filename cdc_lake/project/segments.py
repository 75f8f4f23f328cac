"""The data files of a folded table: each holds a range of keys, so that a fold replaces only those it must.

A file is never changed. A commit names the files that come and those that go, together with the fold's checkpoint;
files of a fold that was killed before its commit belong to nobody.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, TableFeatures, Transaction
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from cdc_lake.land.layout import open_store, parquet_files
from cdc_lake.land.store import remembered

# delta-rs 1.6 panics when it keeps statistics of a DATE 'infinity' or of years past 262142, both legal in PostgreSQL.
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}
_WITHOUT_ZONE = "timestampNtz"
# How delta-rs names the values that a file has of partition columns.
_PARTITION = "partition."


@dataclass(frozen=True, slots=True)
class Segment:
    """One data file: its name in the Delta log, where DuckDB reads it, its size in rows and bytes, and its values of
    the columns that the table is partitioned by."""

    name: str
    file: str
    rows: int
    bytes: int
    partition: Mapping[str, str | None] = field(default_factory=dict)


def segments_of(table: DeltaTable) -> list[Segment]:
    """The live files of a snapshot."""
    files = {f.rsplit("/", 1)[-1]: f for f in parquet_files(table)}
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return [
        Segment(
            a["path"],
            files[a["path"].rsplit("/", 1)[-1]],
            a.get("num_records") or 0,
            a["size_bytes"],
            {name.removeprefix(_PARTITION): a[name] for name in a if name.startswith(_PARTITION)},
        )
        for a in actions
    ]


class SegmentWriter:
    """Writes rows into new files of `rows_per_file` rows below `path`; nobody reads them before a commit names them.

    `partition` are the values that they all have of the columns that the table is partitioned by. Names and values are
    words of our own: they are in the files' paths, for readers that look there and not in the Delta log (Polars)."""

    def __init__(
        self,
        path: str,
        options: Mapping[str, str] | None,
        rows_per_file: int,
        partition: Mapping[str, str | None] | None = None,
    ) -> None:
        if "://" not in path:
            os.makedirs(path, exist_ok=True)
        self._store = open_store(path, options)
        self._limit = rows_per_file
        self._partition = partition or {}
        self._folder = "".join(f"{name}={value}/" for name, value in self._partition.items())
        self.rows = 0

    def write(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], each: Callable[[], None]) -> list[AddAction]:
        """Write all `batches`, in their order; `each` is called after every one."""
        added: list[AddAction] = []
        rest = _sliced(batches, self._limit)
        for first in rest:
            added.append(self._file(schema, first, rest, each))
        return added

    def _file(
        self, schema: pa.Schema, batch: pa.RecordBatch, rest: Iterator[pa.RecordBatch], each: Callable[[], None]
    ) -> AddAction:
        name, rows = f"{self._folder}part-{uuid.uuid4()}.zstd.parquet", 0
        with self._store.open_output_stream(name) as out:
            with pq.ParquetWriter(out, schema, compression="zstd", compression_level=1) as writer:
                while True:
                    writer.write_batch(batch)
                    rows += batch.num_rows
                    each()
                    if rows >= self._limit or (batch := next(rest, None)) is None:
                        break
            size = out.tell()
        self.rows += rows
        return AddAction(name, size, self._partition, _now(), True, json.dumps({"numRecords": rows}))


def _sliced(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    """The batches, cut so that every `limit` rows end one."""
    room = limit
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, room)
            start += part.num_rows
            room = room - part.num_rows or limit
            yield part


def replace_files(
    table: DeltaTable, added: Sequence[AddAction], removed: Collection[Segment], held: Sequence[Transaction]
) -> None:
    """Commit `added` in place of `removed`, with the app transactions `held`.

    Fails when one of them was committed by another since the snapshot `table`. Raises DeltaError.
    """
    gone = [RemoveAction(s.name, True, _now(), s.bytes, dict(s.partition)) for s in removed]
    properties = CommitProperties(app_transactions=list(held))
    table.create_write_transaction(
        [*added, *gone],
        "append",
        table.schema(),
        partition_by=table.metadata().partition_columns,
        commit_properties=properties,
    )


def replace_all(
    path: str,
    table: DeltaTable | None,
    schema: pa.Schema,
    added: Sequence[AddAction],
    *,
    held: Sequence[Transaction],
    options: Mapping[str, str] | None,
    partition_by: Sequence[str] = (),
) -> None:
    """Commit `added` as the whole table, with the app transactions `held`; without a snapshot `table` it is made.

    Raises DeltaError.
    """
    properties = CommitProperties(app_transactions=list(held))
    wanted = Schema.from_arrow(schema)
    if table is None:
        create_table_with_add_actions(
            path,
            wanted,
            list(added),
            mode="error",
            partition_by=list(partition_by),
            configuration=_NO_STATISTICS | remembered(path, folded=True),
            storage_options=dict(options) if options else None,
            commit_properties=properties,
        )
        return
    if "timestamp_ntz" in wanted.to_json():
        _allow_without_zone(table)
    table.create_write_transaction(
        list(added), "overwrite", wanted, partition_by=list(partition_by), commit_properties=properties
    )


def _allow_without_zone(table: DeltaTable) -> None:
    """A table that was made without such a column does not know the type."""
    if _WITHOUT_ZONE not in (table.protocol().writer_features or []):
        table.alter.add_feature(TableFeatures.TimestampWithoutTimezone, allow_protocol_versions_increase=True)


def _now() -> int:
    return int(time.time() * 1000)
