"""Data files of a log that nobody reads before a commit names them, with the statistics by which readers skip files."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from cdc_lake.land.layout import open_store
from cdc_lake.land.store import FALSE_SHARE
from cdc_lake.land.swap import plain
from cdc_lake.land.tables import LOG

# Columns whose bounds are written down, and those that hardly repeat.
_BOUNDED = (
    "__op",
    "__source_ts",
    "__tx_order",
    "__lsn",
    "__topic",
    "__partition",
    "__offset",
    "__ingested_at",
    "__schema_id",
)
_PLAIN = {"__key", "__before", "__after", "__offset", "__lsn", "__headers"}
_GROUP_ROWS, _GROUP_BYTES = 1 << 17, 64 << 20


@dataclass(slots=True)
class _Bounds:
    """The bounds of the columns of one file, as Delta has them."""

    rows: int = 0
    nulls: dict[str, int] = field(default_factory=dict)
    low: dict[str, Any] = field(default_factory=dict)
    high: dict[str, Any] = field(default_factory=dict)

    def take(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        for name in _BOUNDED:
            self.nulls[name] = self.nulls.get(name, 0) + rows[name].null_count
            found = pc.min_max(rows[name])
            low, high = found["min"].as_py(), found["max"].as_py()
            if low is not None:
                self.low[name] = min(self.low.get(name, low), low)
                self.high[name] = max(self.high.get(name, high), high)

    def as_json(self) -> str:
        low, high = ({n: plain(v) for n, v in bound.items()} for bound in (self.low, self.high))
        return json.dumps({"numRecords": self.rows, "minValues": low, "maxValues": high, "nullCount": self.nulls})


@dataclass(frozen=True, slots=True)
class LogWriter:
    """Writes files of about `target_bytes` below the log at `path`."""

    path: str
    options: Mapping[str, str] | None
    target_bytes: int

    def write(self, batches: Iterator[pa.RecordBatch]) -> list[AddAction]:
        """Write all rows in their order."""
        store = open_store(self.path, self.options)
        groups, added = _grouped(batches), list[AddAction]()
        group = next(groups, None)
        while group is not None:
            name, bounds = f"part-{uuid.uuid4()}-c000.zstd.parquet", _Bounds()
            with store.open_output_stream(name) as out:
                with pq.ParquetWriter(
                    out,
                    LOG,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=[n for n in LOG.names if n not in _PLAIN],
                    bloom_filter_options={"__key": {"ndv": group.num_rows, "fpp": FALSE_SHARE}},
                ) as writer:
                    while group is not None and out.tell() < self.target_bytes:
                        writer.write_table(group)
                        bounds.take(group)
                        group = next(groups, None)
                size = out.tell()
            added.append(AddAction(name, size, {}, int(time.time() * 1000), True, bounds.as_json()))
        return added


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows as tables that become one row group each."""
    held, rows, size = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held).cast(LOG)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(held).cast(LOG)
