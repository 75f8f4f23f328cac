"""Work in DuckDB that Ctrl-C stops: DuckDB does not look at Python's signals while it runs, so another thread waits."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import duckdb
import pyarrow as pa

from cdc_lake.cli import output

T = TypeVar("T")
# How long a query runs before its progress is shown, and how often.
_QUIET_SECONDS = 1.0
_TICK_SECONDS = 0.2


class Stopped(Exception):
    """The person stopped it."""


def stoppable(con: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """The result of `work`, which runs on `con` alone. Ctrl-C interrupts it, and raises Stopped when it has ended."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="query")
    stopped, begun = False, time.monotonic()
    thread.start()
    while thread.is_alive():
        try:
            thread.join(_TICK_SECONDS)
            _progress(con, time.monotonic() - begun)
        except KeyboardInterrupt:
            stopped = True
            con.interrupt()
    output.clear()
    if stopped:
        raise Stopped
    if failed:
        raise failed[0]
    return found[0]


class StoppableReader:
    """The batches of a result, each read as `stoppable` work."""

    def __init__(self, con: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader) -> None:
        self._con, self._reader = con, reader
        self.schema = reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while (batch := stoppable(self._con, lambda: next(self._reader, None))) is not None:
            yield batch

    def close(self) -> None:
        """Drop what was not read."""
        self._reader.close()


def _progress(con: duckdb.DuckDBPyConnection, seconds: float) -> None:
    if seconds < _QUIET_SECONDS or not sys.stderr.isatty() or output.verbosity() < 0 or output.as_json():
        return
    share = con.query_progress()
    told = f"{share:.0f} % · " if 0 < share <= 100 else ""
    output.transient(f"{told}{seconds:.0f} s · Ctrl-C stops it")
