"""The folded `history` of a table as a Delta table: which lines it holds, how far it has come, and how it is read.

Its files are of three kinds, told by the partition column `__part`:

- `closed`: lines that have ended behind which nothing can change them; they are only added.
- `open`: the line that each key has, in ranges of keys.
- `patch`: the line that each key has that changed since the `open` files were written, or that it has none.

Behind the source's columns and those of `history` stand three that the next fold starts from: `__since`, before which
the key's next row cannot begin, `__lost`, the columns that its last image left unknown, and `__gone`, which says that
the key has no line: that is none for readers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltalake import DeltaTable, Transaction

from cdc_lake.project.checkpoint import Checkpoint, read_checkpoint
from cdc_lake.project.files import LogFiles, Lows, scan
from cdc_lake.project.history_names import distinct_names
from cdc_lake.project.keys import WHOLE_NUMBERS
from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.segments import Segment, segments_of
from cdc_lake.project.shapes import Shapes
from cdc_lake.sqltext import ident

PART = "__part"
CLOSED, OPEN, PATCH = "closed", "open", "patch"
STATE = ("__since", "__lost", "__gone")
# Columns of `history` that Delta keeps as text.
AS_TEXT = ("__key", "__previous_key", "__next_key", "__unread")
# To be raised when lines come out otherwise than before, or are kept otherwise.
_FORM = 1
_SHAPE, _START, _ERASED, _SHOWN, _BEGUN = (f"history:{name}" for name in ("shape", "start", "erased", "shown", "begun"))
# An app transaction cannot be taken back: this one says that there is none.
_NONE = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a history is folded, and of what.

    `seen` is the offset behind the last row that the fold looked at, per (topic, partition). `shown` is the latest time
    of a transaction up to the cut, `begun` that at which the last era began, in microseconds of the epoch. `shape`,
    `start` and `erased` say what the log was then: how its rows were read, where it began, what was erased.
    """

    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    seen: Lows = field(default_factory=dict)
    shown: int | None = None
    begun: int | None = None
    shape: int = 0
    start: int = 0
    erased: int = 0

    def transactions(self) -> list[Transaction]:
        """The app transactions that hold this."""
        numbers = {_SHAPE: self.shape, _START: self.start, _ERASED: self.erased}
        numbers |= {_SHOWN: _or_none(self.shown), _BEGUN: _or_none(self.begun)}
        numbers |= {_seen_id(t, p): offset for (t, p), offset in sorted(self.seen.items())}
        return [*self.checkpoint.transactions(), *(Transaction(name, n) for name, n in numbers.items())]

    def fits(self, shapes: Shapes, log: LogFiles) -> bool:
        """Whether lines folded then are what the log gives now: it begins where it did, has lost nothing since, and its
        rows are read in the same way."""
        return (self.shape, self.start, self.erased) == (shape_number(shapes), log.start, log.erased)


def shape_number(shapes: Shapes) -> int:
    """A number for all that decides how a row of the log is read."""
    text = repr((_FORM, HISTORY_COLUMNS, shapes.target, shapes.written, shapes.placeholder))
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def read_reach(table: DeltaTable, partitions: Iterable[tuple[str, int]]) -> Reach:
    """What the snapshot `table` says, with the offsets of those `partitions` (topic, number) that have any."""
    known = list(partitions)
    found = {name: table.transaction_version(name) for name in (_SHAPE, _START, _ERASED, _SHOWN, _BEGUN)}
    times = [None if found[n] in (None, _NONE) else found[n] for n in (_SHOWN, _BEGUN)]
    seen = {(t, p): n for t, p in known if (n := table.transaction_version(_seen_id(t, p))) is not None}
    numbers = [found[n] or 0 for n in (_SHAPE, _START, _ERASED)]
    return Reach(read_checkpoint(table, known), seen, times[0], times[1], *numbers)


@dataclass(frozen=True, slots=True)
class HistoryBase:
    """One version of a folded history that fits the log as it is."""

    shapes: Shapes
    reach: Reach
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, table: DeltaTable, shapes: Shapes, reach: Reach) -> HistoryBase:
        """The snapshot `table`."""
        return cls(shapes, reach, tuple(segments_of(table)))

    def files(self, part: str) -> list[Segment]:
        """The files of one kind."""
        return [s for s in self.segments if s.partition.get(PART) == part]

    @property
    def numbers(self) -> dict[int, str]:
        """The key's columns, by their places, when all are whole numbers: they compare much faster than its text."""
        names = stored_names(self.shapes)
        return {i: names[i] for i in number_places(self.shapes)}

    def lines(self, touched: str | None) -> str:
        """A query of all lines but the open ones of keys `touched`: a query (k, n0, n1, …), n the numbers of its key
        by place; None leaves out all open ones, an empty text none."""
        items = self.items()
        parts = [f"SELECT {items} FROM {scan(s.file for s in self.files(CLOSED))} b"] if self.files(CLOSED) else []
        if touched is not None:
            others = f"ANTI JOIN ({touched}) t ON {self.same('t')}" if touched else ""
            parts += [f"SELECT {items} FROM {relation} b {others} WHERE NOT b.__gone" for relation in self.opened()]
        return " UNION ALL ".join(parts) or f"SELECT {items} FROM ({_nothing(self.shapes)}) b"

    def items(self, ends: Mapping[str, str] | None = None) -> str:
        """SQL of c0, c1, … and `HISTORY_COLUMNS` of a stored row `b`, of which `ends` are told otherwise."""
        return ", ".join(_values(self.shapes, ends or {}))

    def standing(self, where: str = "true") -> str:
        """A query of what each key was: `k`, the columns of `lines`, `since`, `lost` and `gone`."""
        items = ", ".join([*_values(self.shapes, {}), "b.__key AS k", *(f"b.{n} AS {n.strip('_')}" for n in STATE)])
        parts = [f"SELECT {items} FROM {relation} b WHERE {where}" for relation in self.opened()]
        return " UNION ALL ".join(parts) or f"SELECT {items} FROM ({_nothing(self.shapes)}) b"

    def opened(self) -> list[str]:
        """Relations that together hold one row for each key: its open line, or that it has none."""
        opened, patch = (scan(s.file for s in self.files(part)) if self.files(part) else "" for part in (OPEN, PATCH))
        if not (opened and patch):
            return [relation for relation in (opened, patch) if relation]
        # Written as a join: of a condition that no row exists, DuckDB first makes a list of all keys.
        return [f"(SELECT b.* FROM {opened} b ANTI JOIN {patch} p ON {self.same_stored('p')})", patch]

    def same(self, other: str) -> str:
        """The condition that a stored row `b` has the key of a row `other` (k, n0, n1, …)."""
        numbers = [f"{other}.n{i} = b.{ident(name)}" for i, name in self.numbers.items()]
        return " AND ".join(numbers) or f"{other}.k = b.__key"

    def same_stored(self, other: str) -> str:
        """The condition that two stored rows have one key."""
        numbers = [f"{other}.{ident(name)} = b.{ident(name)}" for name in self.numbers.values()]
        return " AND ".join(numbers) or f"{other}.__key = b.__key"


def stored_names(shapes: Shapes) -> list[str]:
    """The source's columns as they are called in the Delta table."""
    return distinct_names(shapes.names, [*HISTORY_COLUMNS, *STATE, PART])


def number_places(shapes: Shapes) -> list[int]:
    """The places of the key's columns when all are whole numbers; else none."""
    keys = shapes.target.key_columns
    whole = all(c.lake_type in WHOLE_NUMBERS for c in keys)
    return [i for i, c in enumerate(shapes.target.columns) if c in keys] if whole else []


def _values(shapes: Shapes, ends: Mapping[str, str]) -> list[str]:
    columns = zip(stored_names(shapes), shapes.target.columns, strict=True)
    values = [f"CAST(b.{ident(n)} AS {c.lake_type}) AS c{i}" for i, (n, c) in enumerate(columns)]
    own = {n: f"CAST(b.{n} AS JSON)" if n in AS_TEXT else f"b.{n}" for n in HISTORY_COLUMNS}
    own.update(ends)
    return values + [f"{sql} AS {n}" for n, sql in own.items()]


def _nothing(shapes: Shapes) -> str:
    """No row, with the columns as they are stored."""
    types = dict.fromkeys([*HISTORY_COLUMNS], "VARCHAR") | dict.fromkeys(("__valid_from", "__valid_to"), "TIMESTAMPTZ")
    types |= dict.fromkeys(("__lsn", "__from_position", "__to_position"), "BIGINT")
    types |= {"__unknown": "VARCHAR[]", "__since": "TIMESTAMPTZ", "__lost": "VARCHAR[]", "__gone": "BOOLEAN"}
    columns = zip(stored_names(shapes), shapes.target.columns, strict=True)
    source = [f"CAST(NULL AS {c.lake_type}) AS {ident(n)}" for n, c in columns]
    return f"SELECT {', '.join([*source, *(f'CAST(NULL AS {t}) AS {n}' for n, t in types.items())])} WHERE false"


def _or_none(value: int | None) -> int:
    return _NONE if value is None else value


def _seen_id(topic: str, partition: int) -> str:
    return f"history:p:{partition}:{topic}"
