"""The changes of one table in the order in which they landed: the last ones, and those that land from now on.

A poll opens the log's newest version and reads only what lies above the offsets that were seen. Within a partition the
order is that of the offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cdc_lake.config import Config
from cdc_lake.land.layout import log_path
from cdc_lake.project.cache import Cache
from cdc_lake.project.files import at_or_above, scan
from cdc_lake.project.history_names import distinct_names
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.tail import START
from cdc_lake.project.tiered import log_of
from cdc_lake.query.formats import rows
from cdc_lake.query.keys import find_table
from cdc_lake.query.run import run_sql
from cdc_lake.query.session import Session, open_session
from cdc_lake.sqltext import literal

_OWN = ("__op", "__key", "__source_ts", "__tx_id", "__tx_order", "__lsn", "__partition", "__offset")
_OWN_SQL = ("op", "k", "ts", "tx", "tx_order", "lsn", "part", "off")
_PLACE = ("top", "part", "off")
_PARTIAL = """(__op = 'u' AND __before IS NULL) OR (__op = 'c' AND contains(__headers, '"__debezium.oldkey"'))"""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `own` are its coordinates, `row` the source's columns (those that the event has), as JSON has them.

    `changed` are the columns to which an update gave another value; None for other changes, and where the log does not
    hold the row as it was.
    """

    own: dict[str, Any]
    row: dict[str, Any]
    changed: list[str] | None


@dataclass(slots=True)
class EventReader:
    """Reads a table's changes, each once. `seen` is, per (topic, partition), the offset behind the last one read."""

    config: Config
    name: str
    seen: dict[tuple[str, int], int] = field(default_factory=dict)
    _session: Session | None = None
    _version: int = -1
    _cache: Cache = field(default_factory=Cache)

    def close(self) -> None:
        """Close what the last read left open."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def last(self, limit: int) -> list[Event]:
        """The last `limit` changes that landed. Raises UsageError for an unknown table."""
        source, table = self._open()
        self._version = table.log.version
        self.seen = self._ends(table, "true")
        return list(self._read(source, table, "true", limit))

    def new(self) -> list[Event]:
        """The changes that landed since the last call; empty when there are none."""
        session = self._session
        if session is None:
            raise ValueError("last() comes first")
        source, table = find_table(session, self.name)
        path = log_path(source.lake.root, source.source, table.table)
        handle = source.lake.open(path)
        if handle is None or handle.version() == self._version:
            return []
        if not log_of(source.lake, source.source, table.table, handle).reaching(self.seen):
            self._version = handle.version()
            return []
        # Rows of a new shape are read with a schema that this session does not know yet.
        source, table = self._open()
        self._version = table.log.version
        where = at_or_above(self.seen)
        found = list(self._read(source, table, where, None))
        self.seen |= self._ends(table, where)
        return found

    def _open(self) -> tuple[SourceState, TableState]:
        self.close()
        self._session = open_session(self.config, cache=self._cache)
        return find_table(self._session, self.name)

    def _ends(self, table: TableState, where: str) -> dict[tuple[str, int], int]:
        if self._session is None or not table.log.paths:
            return {}
        found = self._session.connection.execute(
            f"""SELECT __topic, __partition, max(__offset) + 1 FROM {scan(table.log.paths)} WHERE {where}
            GROUP BY ALL"""
        ).fetchall()
        return {(topic, partition): end for topic, partition, end in found}

    def _read(self, source: SourceState, table: TableState, where: str, limit: int | None) -> Iterator[Event]:
        if table.error is not None or table.shapes is None:
            raise table.error or ValueError("a table without shapes has an error")
        names = distinct_names(table.shapes.names, _OWN)
        result = run_sql(self._session, _query(table, where, limit)) if self._session is not None else None
        if result is None:
            return
        for values in rows(result):
            own = dict(zip(_OWN, values, strict=False))
            shown = dict(zip(names, values[len(_OWN) : -2], strict=True))
            absent, changed = values[-2], values[-1]
            row = {} if own["__op"] == "t" else {n: v for n, v in shown.items() if n not in absent}
            yield Event(own, row, changed)


def _query(table: TableState, where: str, limit: int | None) -> str:
    """Each event with its own columns, the row's values, and two lists: columns it does not have, and changed ones."""
    shapes = table.shapes
    if shapes is None:
        raise ValueError("a table without shapes has an error")
    log, carry = scan(table.log.paths), [*_OWN_SQL, "top", "landed", "partial"]
    key = {c.name for c in shapes.target.key_columns}
    absent, changed = [], []
    for i, (name, shown) in enumerate(zip(shapes.names, distinct_names(shapes.names, _OWN), strict=True)):
        missing = f"(e.partial AND e.u{i})" if i in shapes.toastable else "false"
        # A delete holds no more than the key, except under REPLICA IDENTITY FULL.
        gone = "e.op = 'd'" if key and name not in key else "false"
        absent.append(f"CASE WHEN {missing} OR {gone} THEN {literal(shown)} END")
        changed.append(f"CASE WHEN NOT {missing} AND e.c{i} IS DISTINCT FROM b.c{i} THEN {literal(shown)} END")
    own = [f"e.{c}" if c != "k" else "CAST(e.k AS JSON)" for c in _OWN_SQL]
    values = [f"e.c{i} AS v{i}" for i in range(len(shapes.names))]
    filtered = "list_filter([{}]::VARCHAR[], lambda x: x IS NOT NULL)"
    lists = [filtered.format(", ".join(absent)), f"CASE WHEN b.off >= 0 THEN {filtered.format(', '.join(changed))} END"]
    same = " AND ".join(f"b.{c} = e.{c}" for c in _PLACE)
    return f"""WITH picked AS MATERIALIZED ({_picked(log, where, limit)}), prior AS ({_prior(log)}),
        e AS ({shapes.decoded("picked", "img", "sid", carry, marks=True)}),
        b AS ({shapes.decoded("prior", "img", "sid", list(_PLACE))})
        SELECT {", ".join([*own, *values, *lists])} FROM e LEFT JOIN b ON {same} ORDER BY e.landed, e.part, e.off"""


def _picked(log: str, where: str, limit: int | None) -> str:
    last = "" if limit is None else f"ORDER BY __ingested_at DESC, __partition DESC, __offset DESC LIMIT {limit}"
    return f"""SELECT __op AS op, __key AS k, __source_ts AS ts, __tx_id AS tx, __tx_order AS tx_order, __lsn AS lsn,
        __topic AS top, __partition AS part, __offset AS off, __ingested_at AS landed, __before AS old,
        coalesce(__after, __before) AS img, __schema_id AS sid, {_PARTIAL} AS partial
        FROM {log} WHERE __op NOT IN ('x', 'e') AND NOT {START} AND ({where}) {last}"""


def _prior(log: str) -> str:
    """The image before each update: the event's own, else the row's last one; a key stays in its partition, and its
    starting row comes before all."""
    place = ", ".join(f"p.{c}" for c in _PLACE)
    return f"""SELECT {place}, arg_max(l.__after, l.__offset) AS img, arg_max(l.__schema_id, l.__offset) AS sid
        FROM (SELECT * FROM picked WHERE op = 'u' AND old IS NULL) p JOIN {log} l ON l.__key = p.k
        AND (l.__topic = p.top AND l.__partition = p.part AND l.__offset < p.off OR l.__offset < 0)
        WHERE l.__op IN ('c', 'u', 'r') GROUP BY ALL
        UNION ALL SELECT {place}, old, sid FROM picked p WHERE op = 'u' AND old IS NOT NULL"""
