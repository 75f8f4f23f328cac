"""The files of a log that tell the life of some keys: all others are skipped.

Most files hold nothing but changes of transactions, each with a key: the statistics of the Delta log say so. Of these
only the ones are wanted that hold one of the keys, and Parquet's Bloom filters, which compaction writes, tell that of
most of them without a look at their rows. Files with anything else (rows of a snapshot, truncates, repairs, starting
rows, rows that were erased) count for every key and are always read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import duckdb

from cdc_lake.land.tables import REPAIR_OFFSETS
from cdc_lake.project.files import LogFile, LogFiles, scan
from cdc_lake.sqltext import literal


def files_of_keys(con: duckdb.DuckDBPyConnection, log: LogFiles, keys: Collection[str]) -> LogFiles:
    """`log` with the files that the life of `keys`, texts as the log has them, may depend on."""
    plain, others = [f for f in log.files if f.plain], [f for f in log.files if not f.plain]
    if not plain or not keys:
        return log
    listed = ", ".join(literal(k) for k in sorted(keys))
    holding = con.execute(
        f"""SELECT DISTINCT filename FROM read_parquet([{", ".join(literal(f.path) for f in plain)}],
        hive_partitioning=false, filename=true) WHERE __key IN ({listed})"""
    ).fetchall()
    named = {name for (name,) in holding}
    if not named <= {f.path for f in plain}:
        return log
    after = _free(con, others, listed)
    # What says where a log begins is its first offset.
    first = min(plain, key=lambda f: f.offsets[0])
    kept = [
        f for f in log.files if not f.plain or f.path in named or f is first or any(_precedes(f, *x) for x in after)
    ]
    return replace(log, own=tuple(kept), older=None)


def _free(con: duckdb.DuckDBPyConnection, files: Collection[LogFile], listed: str) -> list[tuple[str, int, int]]:
    """Per topic and partition the last offset of a row without a transaction: it stands behind the latest one that
    precedes it there, so all that does is wanted."""
    if not files:
        return []
    return con.execute(
        f"""SELECT __topic, __partition, max(__offset) FROM {scan([f.path for f in files])}
        WHERE __tx_id IS NULL AND __tx_order IS NULL AND __op <> 'x' AND (__op = 't' OR __key IN ({listed}))
        AND __offset BETWEEN 0 AND {REPAIR_OFFSETS - 1} GROUP BY ALL"""
    ).fetchall()


def _precedes(file: LogFile, topic: str, partition: int, offset: int) -> bool:
    """Whether a file may hold rows of the partition before `offset`."""
    there = file.partitions is None or file.partitions[0] <= partition <= file.partitions[1]
    return file.topic in (None, topic) and there and file.offsets[0] < offset
