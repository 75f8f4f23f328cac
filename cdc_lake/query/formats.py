"""A result as JSON, CSV or Parquet on a stream, batch by batch."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from cdc_lake.query.run import Result
from cdc_lake.query.values import as_text, dumps, plain


def rows(result: Result) -> Iterator[list[Any]]:
    """Rows as lists of `values.plain` values."""
    for batch in result.batches():
        columns = [plain(c, t) for c, t in zip(batch.columns, result.types, strict=True)]
        yield from (list(row) for row in zip(*columns, strict=True))


def write_json(result: Result, out: TextIO) -> None:
    """One JSON document: a list with an object per row."""
    names = [json.dumps(n, ensure_ascii=False) for n in unique_names(result.columns)]
    separator = "["
    for row in rows(result):
        pairs = ",".join(f"{n}:{dumps(v)}" for n, v in zip(names, row, strict=True))
        out.write(f"{separator}{{{pairs}}}")
        separator = ",\n"
    out.write("[]\n" if separator == "[" else "]\n")


def write_csv(result: Result, out: TextIO) -> None:
    """A header and a line per row; null is empty."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(result.columns)
    for row in rows(result):
        writer.writerow([as_text(v) for v in row])


def write_parquet(result: Result, out: BinaryIO) -> None:
    """One Parquet file. Intervals, which Parquet readers do not agree on, are written as ISO 8601 text."""
    kinds = [f.type for f in result.reader.schema]
    spoken = [i for i, kind in enumerate(kinds) if pa.types.is_interval(kind) or pa.types.is_null(kind)]
    for i in spoken:
        kinds[i] = pa.string()
    target = pa.schema(list(zip(unique_names(result.columns), kinds, strict=True)))
    with pq.ParquetWriter(out, target, compression="zstd") as writer:
        for batch in result.batches():
            arrays = [
                pa.array(plain(c, result.types[i]), pa.string()) if i in spoken else c
                for i, c in enumerate(batch.columns)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=target))


def unique_names(names: tuple[str, ...]) -> list[str]:
    """Column names of which none repeats: a second `id` becomes `id_1`."""
    taken: set[str] = set()
    found = []
    for name in names:
        shown, count = name, 0
        while shown in taken:
            count += 1
            shown = f"{name}_{count}"
        taken.add(shown)
        found.append(shown)
    return found
