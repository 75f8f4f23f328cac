"""Which data files of a Delta table hold which offsets: what lets a tail read only the end of a log.

The statistics are those of the Delta log itself, so nothing is opened to find out. A file without statistics counts as
one that may hold anything.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TopicPartition
from cdc_lake.land.append import transaction_id
from cdc_lake.land.erasures import MARK
from cdc_lake.land.starts import start_of
from cdc_lake.land.tables import REPAIR_OFFSETS
from cdc_lake.land.tiers import Pin, Tier
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
    bytes: int = 0

    def reaches(self, lows: Lows) -> bool:
        """Whether the file may hold a row at or above the low offset of its partition."""
        if self.topic is None or self.partitions is None:
            return self.offsets[1] >= min(lows.values(), default=0)
        first, last = self.partitions
        return any(self.offsets[1] >= lows.get((self.topic, p), 0) for p in range(first, last + 1))


class Older:
    """The part of a log that lies in its tier, at the version that belongs to the log's. It is looked for when it is
    asked for: whoever reads on from a fold does not need it, and it may be far away."""

    def __init__(self, pin: Pin, find: Callable[[], tuple[Tier, tuple[LogFile, ...]]]) -> None:
        self.pin = pin
        self._find = find
        self._found: tuple[Tier, tuple[LogFile, ...]] | CdcLakeError | None = None
        self._mutex = threading.Lock()

    @property
    def files(self) -> tuple[LogFile, ...]:
        """Its files. Raises LakeError when it cannot be read."""
        return self._look()[1]

    @property
    def tier(self) -> Tier:
        """Where it is. Raises LakeError when it cannot be read."""
        return self._look()[0]

    def _look(self) -> tuple[Tier, tuple[LogFile, ...]]:
        with self._mutex:
            if self._found is None:
                try:
                    self._found = self._find()
                except CdcLakeError as error:
                    # A store that does not answer is waited for once.
                    self._found = error
        if isinstance(self._found, CdcLakeError):
            raise self._found
        return self._found


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The files of one version of a log; `positions` are the offsets to land next, per (topic, partition), `start` is
    the position at which retention made it begin (see `land.starts`), `erased` tells of what was erased from it (see
    `land.erasures`). `own` are those in the log itself, `older` is what lies in its tier.

    What asks for all files raises LakeError when the tier cannot be read."""

    version: int
    own: tuple[LogFile, ...]
    positions: Lows = field(default_factory=dict)
    start: int = 0
    erased: int = 0
    older: Older | None = None

    @property
    def files(self) -> tuple[LogFile, ...]:
        """All files, the older ones first."""
        return self.own if self.older is None else (*self.older.files, *self.own)

    @property
    def rows(self) -> int:
        """Rows in all files, by the statistics; the tier is not asked."""
        return sum(f.rows for f in self.own) + (self.older.pin.rows if self.older is not None else 0)

    @property
    def count(self) -> int:
        """How many files there are; the tier is not asked."""
        return len(self.own) + (self.older.pin.files if self.older is not None else 0)

    @property
    def partitions(self) -> set[tuple[str, int]] | None:
        """The (topic, partition) of rows in the tier; None when it has to be asked."""
        if self.older is None:
            return set()
        return set(self.older.pin.ends) if self.older.pin.ends is not None else None

    @property
    def paths(self) -> list[str]:
        """All files."""
        return [f.path for f in self.files]

    def reaching(self, lows: Lows) -> list[str]:
        """The files that may hold rows at or above `lows`."""
        near = self.older is None or not self.older.pin.needed(lows)
        return [f.path for f in (self.own if near else self.files) if f.reaches(lows)]

    def newest(self) -> LogFile | None:
        """The file that was written last, but for those of repairs: their rows have a shape of their own."""
        # A move leaves the last row of each partition, so the tier has none that is newer.
        sent = [f for f in self.own if f.offsets[0] < REPAIR_OFFSETS and f.offsets[1] >= 0]
        sent = sent or [f for f in self.files if f.offsets[0] < REPAIR_OFFSETS]
        return max(sent, key=lambda f: (f.ingested_us, f.offsets[1]), default=None)


_NULLS = ("__schema_id", "__tx_id", "__key", "__source_ts", "__lsn", "__before", "__after")
_READ = (
    "path",
    "size_bytes",
    "num_records",
    "max.__ingested_at",
    *(f"null_count.{name}" for name in _NULLS),
    *(f"{bound}.{name}" for bound in ("min", "max") for name in ("__topic", "__partition", "__offset", "__schema_id")),
)


def read_files(path: str, table: DeltaTable, repairs: str | None = None, *, known: LogFiles | None = None) -> LogFiles:
    """The files of the snapshot `table`, which lies at `path`; `repairs` is the topic that rows of repairs bear. What
    an earlier version, `known`, told of a file is not read again."""
    actions = pa.table(table.get_add_actions(flatten=True))
    # There are statistics of the source's columns too, and an open lake has many files.
    seen = {f.path: f for f in known.own} if known is not None else {}
    paths = [f"{path}/{name}" for name in actions["path"].to_pylist()] if actions.num_rows else []
    new = [i for i, name in enumerate(paths) if name not in seen]
    columns = {name: _values(actions[name], new) for name in _READ if name in actions.schema.names}
    read = iter([_file(path, {k: v[i] for k, v in columns.items()}) for i in range(len(new))])
    rows = [seen[name] if name in seen else next(read) for name in paths]
    return LogFiles(
        version=table.version(),
        own=tuple(rows),
        positions=_positions(table, rows) | (_position(table, TopicPartition(repairs, 0)) if repairs else {}),
        start=start_of(table),
        erased=table.transaction_version(MARK) or 0,
    )


def _values(column: pa.ChunkedArray, rows: Sequence[int]) -> list[Any]:
    # Arrow takes no rows out of what delta-rs gives, and one by one costs twice as much.
    return column.to_pylist() if len(rows) == len(column) else [column[i].as_py() for i in rows]


def topics_of(table: DeltaTable, files: Collection[LogFile]) -> list[str]:
    """The topics that feed a log: those of its `files`, and those that its description names.

    A file that a compaction made may hold several.
    """
    topics = dict.fromkeys([f.topic for f in files if f.topic is not None])
    return list(topics | dict.fromkeys(json.loads(table.metadata().description or "{}").get("topics", [])))


def _positions(table: DeltaTable, files: Collection[LogFile]) -> dict[tuple[str, int], int]:
    topics = topics_of(table, files)
    highest = max((f.partitions[1] for f in files if f.partitions is not None), default=-1)
    found = dict[tuple[str, int], int]()
    for topic in topics:
        for partition in range(highest + 1):
            found |= _position(table, TopicPartition(topic, partition))
    return found


def _position(table: DeltaTable, tp: TopicPartition) -> dict[tuple[str, int], int]:
    version = table.transaction_version(transaction_id(tp))
    return {} if version is None else {(tp.topic, tp.partition): version}


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
        bytes=int(action.get("size_bytes") or 0),
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


def scan(paths: Iterable[str], empty: pa.Schema | None = None, *, named: bool = False) -> str:
    """A relation over Parquet files; without any, an empty one with the columns of `empty`. When `named`, it has also
    the `filename` of each row."""
    listed = ", ".join(literal(p) for p in paths)
    if listed:
        return f"read_parquet([{listed}], hive_partitioning=false{', filename=true' if named else ''})"
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
