"""Events: the changes that a rule's streams pick, as SQL over the placed changes of each table.

An event has a place (`pos`, `ord`: its transaction's position and its order there), an event time (`et`, microseconds),
a key (JSON), and its evidence (`ev`). All patterns see events in the order (`et`, `pos`, `ord`), which does not depend
on when anybody looked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cdc_lake.query.placed import POSITION
from cdc_lake.react.expressions import Expression
from cdc_lake.react.rulefile import Rule
from cdc_lake.sqltext import ident, literal

OPS = {"insert": "c", "update": "u", "delete": "d"}
EVIDENCE = """STRUCT(stream VARCHAR, "table" VARCHAR, op VARCHAR, tx_id VARCHAR, tx_order BIGINT, lsn BIGINT,
    "key" VARCHAR, "at" TIMESTAMP WITH TIME ZONE, "values" VARCHAR)"""
# What every row has that a rule works on or remembers. `part` says what it is remembered as.
COLUMNS = {
    "part": "VARCHAR",
    "stream": "VARCHAR",
    "pos": "BIGINT",
    "ord": "BIGINT",
    "et": "BIGINT",
    "key": "VARCHAR",
    "ev": EVIDENCE,
    "hit": "BOOLEAN",
    "id": "VARCHAR",
    "chain": f"{EVIDENCE}[]",
    "step": "INTEGER",
    "why": "VARCHAR",
    "x": "DOUBLE",
    "r": "DOUBLE",
}
ORDER = "et, pos, ord"
PENDING = "pending"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Picked:
    """One stream of a rule over one relation of placed changes. `table` is how the evidence names it."""

    rule: Rule
    stream: str
    table: str

    def sql(self, changes: str, clock: str, after: int, *, lateness: int, ahead: int) -> str:
        """The events, with `why` for those that a pattern must not count: they came too late, or have no time.

        The watermark of an event is the greatest commit time of the source before its transaction, less `lateness`:
        neither a scanner with a wrong clock nor a table that falls silent can move or stop it.
        """
        one = self.rule.streams[self.stream]
        own = "__clock" if one.time is None else micros(one.time)
        threshold = self.rule.threshold
        hit = f"coalesce(({_own_line(threshold.when)}), false)" if threshold is not None else "NULL"
        ops = ", ".join(literal(OPS[o]) for o in sorted(self.rule.ops_of(self.stream)))
        where = f"({_own_line(one.where)})" if one.where is not None else "true"
        source = f"""SELECT c.*, t.clock AS __clock, t.before AS __clock_before FROM {changes} c
            JOIN {clock} t ON c.{POSITION} = t.position WHERE c.{POSITION} > {after}"""
        values = "".join(f", ({_own_line(v)}) AS {ident('v_' + n)}" for n, v in one.values.items())
        return f"""SELECT {literal(PENDING)} AS part, {literal(self.stream)} AS stream, {POSITION} AS pos,
            __tx_order AS ord, {own} AS et, {_json(self.rule.key_of(self.stream))} AS key, {hit} AS hit,
            {self._evidence(own)} AS ev,
            CASE WHEN {own} IS NULL THEN 'no time' WHEN {own} < __clock_before - {lateness} THEN 'late'
                WHEN {own} > __clock + {ahead} THEN 'in the future' END AS why{values}
            FROM ({source}) WHERE __op IN ({ops}) AND {where}"""

    def _evidence(self, time: str) -> str:
        one = self.rule.streams[self.stream]
        values = _json(one.values) if one.values else "CAST(NULL AS VARCHAR)"
        return f"""CAST({{'stream': {literal(self.stream)}, 'table': {literal(self.table)}, 'op': __op,
            'tx_id': __tx_id, 'tx_order': __tx_order, 'lsn': __lsn, 'key': CAST(__key AS VARCHAR),
            'at': make_timestamptz({time}), 'values': {values}}} AS {EVIDENCE})"""

    def expressions(self) -> Iterator[tuple[Expression, str]]:
        """Each expression of this stream, and what it is: `where`, `time`, `key`, `value` or `when`."""
        one, at = self.rule.streams[self.stream], ("streams", self.stream)
        if one.where is not None:
            yield Expression(self.rule, (*at, "where"), one.where), "where"
        if one.time is not None:
            yield Expression(self.rule, (*at, "time"), one.time), "time"
        where: tuple[str, ...] = ("key",) if one.key is None else (*at, "key")
        for name, text in self.rule.key_of(self.stream).items():
            yield Expression(self.rule, (*where, name), text), "key"
        for name, text in one.values.items():
            yield Expression(self.rule, (*at, "values", name), text), "value"
        if self.rule.threshold is not None:
            yield Expression(self.rule, ("threshold", "when"), self.rule.threshold.when), "when"


def _own_line(text: str) -> str:
    # A comment in it ends with the line.
    return f"\n{text}\n"


def micros(text: str) -> str:
    """An expression of time in microseconds, null where it is none that can be counted."""
    value = f"CAST(({_own_line(text)}) AS TIMESTAMP WITH TIME ZONE)"
    return f"CASE WHEN isfinite({value}) THEN epoch_us({value}) END"


def _json(named: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{literal(name)}, ({_own_line(text)})" for name, text in named.items())
    return f"CAST(json_object({pairs}) AS VARCHAR)"


def identity(rule: Rule, first: str, *, key: str = "key") -> str:
    """An alert's id as SQL: of the rule, the key, and what comes first in it. The same whenever it is found."""
    return f"left(sha256(concat_ws(chr(31), {literal(rule.name)}, {key}, {first})), 16)"


def event_name(evidence: str) -> str:
    """What tells an event from all others, as SQL over its evidence."""
    fields = ", ".join(f"CAST({evidence}.{ident(f)} AS VARCHAR)" for f in ("tx_id", "lsn", "tx_order", "table"))
    return f"concat_ws('/', {fields})"
