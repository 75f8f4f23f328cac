"""Which data files of a Delta table hold which offsets: what lets a tail read only the end of a log.

The statistics are those of the Delta log itself, so nothing is opened to find out. A file without statistics counts as
one that may hold anything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from cdc_lake.events import TopicPartition
from cdc_lake.land.append import transaction_id
from cdc_lake.land.erasures import MARK
from cdc_lake.land.starts import start_of
from cdc_lake.land.tables import REPAIR_OFFSETS
from cdc_lake.sqltext import ident, literal

# The lowest offset per (topic, partition) that a reader still wants; partitions that are absent want everything.
Lows = Mapping[tuple[str, int], int]

_ANY = (0, 1 << 62)


@dataclass(frozen=True, slots=True)
class LogFile:
    """One data file: how many rows, and between which bounds its partitions and offsets lie (both ends included).

    `topic` and `schema_id` are None when the file holds several, or when the statistics do not say. `plain` says that
    every row is a change of a transaction and has a key, or is a tombstone; `befores` that some row may have an
    image before it, `both` that one surely has that and an image after it.
    """

    path: str
    rows: int
    topic: str | None
    partitions: tuple[int, int] | None
    offsets: tuple[int, int]
    schema_id: str | None
    ingested_us: int
    plain: bool = False
    befores: bool = True
    both: bool = False

    def reaches(self, lows: Lows) -> bool:
        """Whether the file may hold a row at or above the low offset of its partition."""
        if self.topic is None or self.partitions is None:
            return self.offsets[1] >= min(lows.values(), default=0)
        first, last = self.partitions
        return any(self.offsets[1] >= lows.get((self.topic, p), 0) for p in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The files of one version of a log; `positions` are the offsets to land next, per (topic, partition), `start` is
    the position at which retention made it begin (see `land.starts`), `erased` tells of what was erased from it (see
    `land.erasures`)."""

    version: int
    files: tuple[LogFile, ...]
    positions: Lows = field(default_factory=dict)
    start: int = 0
    erased: int = 0

    @property
    def rows(self) -> int:
        """Rows in all files, by the statistics."""
        return sum(f.rows for f in self.files)

    @property
    def paths(self) -> list[str]:
        """All files."""
        return [f.path for f in self.files]

    def reaching(self, lows: Lows) -> list[str]:
        """The files that may hold rows at or above `lows`."""
        return [f.path for f in self.files if f.reaches(lows)]

    def newest(self) -> LogFile | None:
        """The file that was written last, but for those of repairs: their rows have a shape of their own."""
        sent = [f for f in self.files if f.offsets[0] < REPAIR_OFFSETS]
        return max(sent, key=lambda f: (f.ingested_us, f.offsets[1]), default=None)


_NULLS = ("__schema_id", "__tx_id", "__key", "__source_ts", "__lsn", "__before", "__after")
_READ = (
    "path",
    "num_records",
    "max.__ingested_at",
    *(f"null_count.{name}" for name in _NULLS),
    *(f"{bound}.{name}" for bound in ("min", "max") for name in ("__topic", "__partition", "__offset", "__schema_id")),
)


def read_files(path: str, table: DeltaTable) -> LogFiles:
    """The files of the snapshot `table`, which lies at `path`."""
    actions = pa.table(table.get_add_actions(flatten=True))
    # There are statistics of the source's columns too, and an open lake has many files.
    columns = {name: actions[name].to_pylist() for name in _READ if name in actions.schema.names}
    rows = [_file(path, {k: v[i] for k, v in columns.items()}) for i in range(actions.num_rows)]
    return LogFiles(
        version=table.version(),
        files=tuple(rows),
        positions=_positions(table, rows),
        start=start_of(table),
        erased=table.transaction_version(MARK) or 0,
    )


def _positions(table: DeltaTable, files: Collection[LogFile]) -> dict[tuple[str, int], int]:
    # A file that a compaction made may hold several topics; the table's description names those that feed it.
    topics = dict.fromkeys([f.topic for f in files if f.topic is not None])
    topics |= dict.fromkeys(json.loads(table.metadata().description or "{}").get("topics", []))
    highest = max((f.partitions[1] for f in files if f.partitions is not None), default=-1)
    found = {}
    for topic in topics:
        for partition in range(highest + 1):
            version = table.transaction_version(transaction_id(TopicPartition(topic, partition)))
            if version is not None:
                found[topic, partition] = version
    return found


def _file(path: str, action: Mapping[str, Any]) -> LogFile:
    ingested = action.get("max.__ingested_at")
    return LogFile(
        path=f"{path}/{action['path']}",
        rows=int(action.get("num_records") or 0),
        topic=_single(action, "__topic"),
        partitions=_bounds(action, "__partition"),
        offsets=_bounds(action, "__offset") or _ANY,
        schema_id=_single(action, "__schema_id") if action.get("null_count.__schema_id") == 0 else None,
        ingested_us=int(ingested.timestamp() * 1_000_000) if ingested is not None else 0,
        plain=_plain(action),
        befores=action.get("null_count.__before") != action.get("num_records"),
        both=_both(action),
    )


def _both(action: Mapping[str, Any]) -> bool:
    without = [action.get(f"null_count.{name}") for name in ("__before", "__after")]
    return None not in without and sum(n or 0 for n in without) < (action.get("num_records") or 0)


def _plain(action: Mapping[str, Any]) -> bool:
    # A tombstone has no transaction, but neither a time nor an LSN, which every other row without a transaction has.
    without = [action.get(f"null_count.{name}") for name in ("__tx_id", "__source_ts", "__lsn")]
    return without[0] is not None and len(set(without)) == 1 and action.get("null_count.__key") == 0


def _single(action: Mapping[str, Any], column: str) -> str | None:
    # A long text is cut in the statistics, and its maximum rounded up: then the two bounds differ.
    low, high = action.get(f"min.{column}"), action.get(f"max.{column}")
    return str(low) if low is not None and low == high else None


def _bounds(action: Mapping[str, Any], column: str) -> tuple[int, int] | None:
    low, high = action.get(f"min.{column}"), action.get(f"max.{column}")
    return (int(low), int(high)) if low is not None and high is not None else None


def scan(paths: Iterable[str], empty: pa.Schema | None = None) -> str:
    """A relation over Parquet files; without any, an empty one with the columns of `empty`."""
    listed = ", ".join(literal(p) for p in paths)
    if listed:
        return f"read_parquet([{listed}], hive_partitioning=false)"
    if empty is None:
        raise ValueError("no files and no schema")
    nulls = ", ".join(f"CAST(NULL AS {_SQL_TYPES[str(f.type)]}) AS {ident(f.name)}" for f in empty)
    return f"(SELECT {nulls} WHERE false)"


_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "binary": "BLOB",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


def at_or_above(lows: Lows) -> str:
    """The SQL condition that a log row is at or above `lows`."""
    topics = sorted({topic for topic, _ in lows})
    if not topics:
        return "true"
    if len(topics) == 1:
        return f"__offset >= {_bound(lows, topics[0])}"
    cases = " ".join(f"WHEN {literal(t)} THEN {_bound(lows, t)}" for t in topics)
    return f"__offset >= CASE __topic {cases} ELSE 0 END"


def _bound(lows: Lows, topic: str) -> str:
    count = max(p for t, p in lows if t == topic) + 1
    values = [lows.get((topic, p), 0) for p in range(count)]
    if len(set(values)) == 1:
        # Written so that the reader can skip row groups by it; a partition beyond the known ones wants everything.
        return f"CASE WHEN __partition < {count} THEN {values[0]} ELSE 0 END" if values[0] else "0"
    return f"coalesce([{', '.join(map(str, values))}][__partition + 1], 0)"
