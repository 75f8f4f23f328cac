"""Requests and time of commits and of readers' looks on an object store, beside a folder: the embedded S3Proxy."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.report import Report, Table
from cdc_lake.land.layout import open_delta, parquet_files
from cdc_lake.land.remote_files import register
from cdc_lake.land.store import DeltaStore
from tests.object_store import BUCKET, Gate, object_store

_COMMITS, _ROWS = 40, 1000


def measure(shown: Table, root: str, options: Mapping[str, str] | None, gate: Gate | None) -> None:
    """Commit as the sink does (the snapshot of the last commit, brought up to date), then look as a reader does.

    Requests are means per commit.
    """
    store, path = DeltaStore(options), f"{root}/log"
    opened, written = Counter[str](), Counter[str]()
    seconds: list[float] = []
    snapshot = None
    for number in range(_COMMITS):
        rows = pa.table({"n": list(range(_ROWS)), "text": [f"row {i} of {number}" for i in range(_ROWS)]})
        begun = time.perf_counter()
        snapshot = store.refresh(path, snapshot)
        assert snapshot is None or snapshot.transaction_version("benchmark") == number - 1
        opened += gate.take() if gate else Counter()
        store.append(path, snapshot, rows, description="{}", transactions={"benchmark": number})
        seconds.append(time.perf_counter() - begun)
        written += gate.take() if gate else Counter()
    where = root.partition("://")[0] if "://" in root else "folder"
    shown.add(f"{where}: commit, median", statistics.median(seconds) * 1000, _per(opened + written) if gate else "")
    if gate:
        shown.add(f"{where}: of it opening the table", None, _per(opened))
    for look in ("first look of a process", "second look"):
        begun = time.perf_counter()
        _look(path, root, options)
        shown.add(f"{where}: {look}", (time.perf_counter() - begun) * 1000, _whole(gate))


def _look(path: str, root: str, options: Mapping[str, str] | None) -> None:
    table = open_delta(path, dict(options) if options else None)
    assert table is not None
    with duckdb.connect() as con:
        if "://" in root:
            register(con, root, options)
        found = con.execute("SELECT count(*) FROM read_parquet(?) WHERE n >= 0", [parquet_files(table)]).fetchone()
    assert found == (_COMMITS * _ROWS,)


def _per(seen: Counter[str]) -> str:
    return ", ".join(f"{n / _COMMITS:.1f} {what}" for what, n in sorted(seen.items()))


def _whole(gate: Gate | None) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(gate.take().items())) if gate else ""


def run(report: Report) -> None:
    """Both, one after the other."""
    table = report.table(f"{_COMMITS} commits of {_ROWS} rows, each read back", what="", ms=".0f", requests="")
    with tempfile.TemporaryDirectory(prefix="cdc-lake-objects-") as folder:
        measure(table, f"{folder}/lake", None, None)
        with object_store(Path(folder)) as gate:
            measure(table, f"s3://{BUCKET}/lake", gate.options(), gate)
