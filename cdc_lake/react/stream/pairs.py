"""Two streams joined: pairs of events that are at most a span of event time apart.

A pair comes about with the later of its two arrivals. An event is remembered until none that could meet it can come
any more; with a LEFT JOIN, one that met none then stands alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa

from cdc_lake.query.placed import POSITION
from cdc_lake.react.stream.query import Query
from cdc_lake.react.stream.shape import from_sql, own_columns
from cdc_lake.react.stream.work import WORK, Columns, Moment, make, restored, saved
from cdc_lake.sqltext import ident

_MATCHED = ("__matched", "BOOLEAN")


@dataclass(slots=True)
class Pairs:
    """The join of a model's two streams; `relations` are those of new events and of tables, by alias."""

    con: duckdb.DuckDBPyConnection
    query: Query
    kept: Mapping[str, Columns]
    relations: Mapping[str, str]
    moment: Moment
    beside: Collection[str] = frozenset()
    _both: dict[str, str] = field(default_factory=dict)

    @property
    def _within(self) -> int:
        return self.query.model.within or 0

    def rows(self, items: str, remembered: pa.Table | None) -> str:
        """A query: `items`, `__position`, `__order`, `__time` of the pairs that are new, and of events left alone."""
        for number, source in enumerate(self.query.streams):
            self._both[source.alias] = self._gather(number, source.alias, remembered)
        a, b = (ident(s.alias) for s in self.query.streams)
        inner = (replace(s, left=False) if s.kind == "changes" else s for s in self.query.sources)
        met = replace(self.query, sources=tuple(inner))
        span = f" AND abs({a}.__et - {b}.__et) <= {self._within} AND ({a}.__fresh OR {b}.__fresh)"
        own = own_columns(self.query, self._order(a, b))
        paired = f"SELECT {items}, {own} {self._from(met, {**self.relations, **self._both}, span)}"
        if not self.query.streams[1].left:
            return paired
        bare = replace(met, where="")
        make(
            self.con,
            "met",
            f"SELECT DISTINCT {a}.{POSITION} AS p, {a}.__tx_order AS o {self._from(bare, self._both, span)}",
        )
        first = self._both[self.query.streams[0].alias]
        self.con.execute(
            f"UPDATE {first} SET __matched = true WHERE ({POSITION}, __tx_order) IN (SELECT (p, o) FROM {WORK}_met)"
        )
        return f"{paired} UNION ALL {self._alone(items, a, b, first)}"

    def _from(self, query: Query, relations: Mapping[str, str], span: str) -> str:
        return from_sql(query, relations, span=span, beside=self.beside)

    def _alone(self, items: str, a: str, b: str, first: str) -> str:
        """Events of the first stream whose time is over and that met none."""
        over = f"(SELECT * FROM {first} WHERE NOT __matched AND __et + {self._within} < {self.moment.watermark})"
        due = self.moment.closed(over, f"__et + {self._within} + 1")
        where = f"WHERE (\n{self.query.where}\n)" if self.query.where else ""
        second = self._both[self.query.streams[1].alias]
        return f"""SELECT {items}, {a}.__closed, {a}.__tx_order, {a}.__time
            FROM ({due}) AS {a} LEFT JOIN (SELECT * FROM {second} WHERE false) AS {b} ON true {where}"""

    def _gather(self, number: int, alias: str, remembered: pa.Table | None) -> str:
        """Remembered events and new ones as one relation."""
        columns = self.kept[alias]
        old = restored(self.con, f"old_{number}", remembered, (*columns, _MATCHED), str(number))
        names = ", ".join(ident(n) for n, _ in columns)
        return make(
            self.con,
            f"both_{number}",
            f"""SELECT {names}, __matched, false AS __fresh FROM {old}
            UNION ALL SELECT {names}, false, true FROM {self.relations[alias]}""",
        )

    def _order(self, a: str, b: str) -> str:
        later = f"CASE WHEN {a}.{POSITION} > {b}.{POSITION} THEN {a}.__tx_order ELSE {b}.__tx_order END"
        both = f"greatest({a}.__tx_order, {b}.__tx_order)"
        return f"CASE WHEN {a}.{POSITION} = {b}.{POSITION} THEN {both} ELSE {later} END"

    def remembered(self) -> str:
        """A query: the events that later ones may meet."""
        where = f"__et + {self._within} >= {self.moment.watermark}"
        parts = [
            saved(self._both[s.alias], (*self.kept[s.alias], _MATCHED), where, part=str(i))
            for i, s in enumerate(self.query.streams)
        ]
        return " UNION ALL BY NAME ".join(f"({p})" for p in parts)
