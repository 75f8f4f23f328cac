"""One rule from one position to the next: what it finds there, and what it remembers then.

Nothing here depends on a clock or on how far an evaluation goes at once: all that was found between two positions is
the same however many steps led there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc_lake.errors import first_line
from cdc_lake.query.merged import OrderedPlaced
from cdc_lake.react.events import COLUMNS, EVIDENCE, PENDING, Picked
from cdc_lake.react.patterns import Pattern, Slice, pattern_of
from cdc_lake.react.rulefile import Rule, RuleError
from cdc_lake.sqltext import literal

_WORK = "lake.internal.rule"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a rule remembers at a position: rows that may still matter, and the time up to which everything
    had come (of one source its clock). None: nothing."""

    position: int
    clock: int
    rows: pa.Table | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found: `opened`, `resolved`, or `late` (then `why` says in which way). `at` is its event
    time in microseconds; None where an event has none."""

    change: str
    id: str
    key: str
    at: int | None
    evidence: tuple[Mapping[str, object], ...]
    total: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule whose SQL was checked against its tables."""

    rule: Rule
    streams: tuple[Picked, ...]
    pattern: Pattern

    @classmethod
    def of(cls, rule: Rule, tables: Mapping[str, str]) -> Compiled:
        """`tables` are, per stream, the names that evidence has for its table."""
        streams = tuple(Picked(rule, name, tables[name]) for name in dict.fromkeys(rule.used))
        return cls(rule, streams, pattern_of(rule))


def advance(
    con: duckdb.DuckDBPyConnection, one: Compiled, memory: Memory, placed: OrderedPlaced, changes: Mapping[str, str]
) -> tuple[list[Finding], Memory]:
    """Evaluate the positions of `placed` behind `memory`; `changes` is, per stream, a relation of placed changes.

    Raises RuleError when a value cannot be computed; nothing has happened then.
    """
    if memory.position < placed.after or memory.position > placed.upto:
        raise ValueError("a rule goes on where it is")
    try:
        return _advance(con, one, memory, placed, changes)
    except duckdb.Error as error:
        raise RuleError(
            f"The rule {one.rule.name} cannot be evaluated behind position {memory.position}.",
            why=first_line(error),
            next=f"edit {one.rule.file}, then: cdc-lake rules check {one.rule.name}",
            code="rule_failed",
        ) from None


def _advance(
    con: duckdb.DuckDBPyConnection, one: Compiled, memory: Memory, placed: OrderedPlaced, changes: Mapping[str, str]
) -> tuple[list[Finding], Memory]:
    rule = one.rule
    picked = [
        s.sql(changes[s.stream], placed.clock, memory.position, lateness=rule.lateness, ahead=rule.ahead)
        for s in one.streams
    ]
    _make(con, "new", " UNION ALL BY NAME ".join(picked))
    late = _late(con)
    s = Slice(f"{_WORK}_rows", _WORK, placed.ended - rule.lateness, memory.clock - rule.lateness)
    _gather(con, memory, s)
    for name, query in one.pattern.work(s):
        _make(con, name, query)
    found = [*late, *_findings(con, one.pattern.found(s))]
    rows = _remembered(con, one.pattern.kept(s), s)
    return found, Memory(placed.upto, placed.ended, rows)


def _make(con: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    con.execute(f"CREATE OR REPLACE TABLE {_WORK}_{name} AS {query}")


def _gather(con: duckdb.DuckDBPyConnection, memory: Memory, s: Slice) -> None:
    """All events that wait, and what is remembered; `fresh` are those events that the watermark lets through now."""
    empty = f"SELECT {', '.join(f'CAST(NULL AS {t}) AS {n}' for n, t in COLUMNS.items())} WHERE false"
    parts = [empty, f"SELECT * FROM {_WORK}_new WHERE why IS NULL"]
    if memory.rows is not None and memory.rows.num_rows:
        con.register("remembered", memory.rows)
        parts.append("SELECT * FROM remembered")
    _make(con, "all", " UNION ALL BY NAME ".join(parts))
    if memory.rows is not None and memory.rows.num_rows:
        con.unregister("remembered")
    pending = f"part = {literal(PENDING)}"
    _make(con, "rows", f"SELECT *, {pending} AS fresh FROM {_WORK}_all WHERE NOT ({pending} AND et > {s.watermark})")


def _remembered(con: duckdb.DuckDBPyConnection, kept: str, s: Slice) -> pa.Table:
    waiting = f"SELECT * FROM {_WORK}_all WHERE part = {literal(PENDING)} AND et > {s.watermark}"
    return con.sql(f"({waiting}) UNION ALL BY NAME ({kept})").to_arrow_table()


def _late(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    query = f"""SELECT 'late' AS change, '' AS id, key, et AS at_us, [ev] AS evidence, 1 AS total, why
        FROM {_WORK}_new WHERE why IS NOT NULL"""
    return _findings(con, query, why="why")


def _findings(con: duckdb.DuckDBPyConnection, query: str, *, why: str = "''") -> list[Finding]:
    rows = con.execute(
        f"""SELECT change, id, key, at_us, CAST(evidence AS {EVIDENCE}[]), total, {why} FROM ({query})
        ORDER BY at_us, change DESC, key, id"""
    ).fetchall()
    return [Finding(c, i, k, at, tuple(evidence or ()), int(n), w) for c, i, k, at, evidence, n, w in rows]
