"""Aggregates as partial results: what is remembered of a group, how two of it become one, and what it is in the end.

A window is then as large as its groups, not as its events. Only aggregates whose result does not depend on the order
of events are kept: a replay, or other slices, must give the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import duckdb

from cdc_lake.react.expressions import aggregates
from cdc_lake.react.stream.query import Node, Query, names_window, text_of, tree_of

# Where the bounds of a window are in the relation of groups.
START, END = "__window_start", "__window_end"
_ITSELF = ("min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor")
_KEPT = ("count", "count(DISTINCT …)", "sum", "avg", *_ITSELF)
_INEXACT = ("FLOAT", "DOUBLE")


@dataclass(frozen=True, slots=True)
class Part:
    """One column of partial results: over events, and over partial results in the column `{}`. `name`, `of` and `at`
    are the call it is for."""

    sql: str
    merge: str
    name: str
    of: str
    at: int | None


@dataclass(frozen=True, slots=True)
class Fold:
    """A grouped query as two: partial results of events, and rows of ended groups. Expressions are SQL."""

    query: Query
    groups: tuple[str, ...]
    parts: tuple[Part, ...]
    items: tuple[str, ...]
    having: str

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, query: Query) -> Self:
        """Take a grouped query apart. Raises ModelError for an aggregate that cannot be kept."""
        apart = _Apart(con, query)
        items = tuple(text_of(con, apart.final(i.node)) for i in query.items)
        having, named = "", {i.name.lower(): i.node for i in query.items if i.name}
        if query.having is not None:
            having = text_of(con, apart.final(query.having, named))
        return cls(query, tuple(text_of(con, g) for g in apart.groups), tuple(apart.parts), items, having)

    @property
    def keys(self) -> list[str]:
        """The names of the columns that a group has beside its window."""
        return [f"g{i}" for i in range(len(self.groups))]

    @property
    def columns(self) -> list[str]:
        """All columns of the relation of groups."""
        return [*self.keys, START, END, *(f"p{i}" for i in range(len(self.parts)))]

    def partial(self, source: str) -> str:
        """A query over FROM and WHERE: the groups that events are in, each with what is to be remembered of them."""
        first = self.query.streams[0].alias.replace('"', '""')
        groups = [f"(\n{g}\n) AS {k}" for g, k in zip(self.groups, self.keys, strict=True)]
        bounds = [f'"{first}".window_start AS {START}', f'"{first}".window_end AS {END}']
        parts = [f"{p.sql} AS p{i}" for i, p in enumerate(self.parts)]
        return f"SELECT {', '.join([*groups, *bounds, *parts])} {source} GROUP BY ALL"

    def merged(self, relation: str) -> str:
        """A query: partial results of the same groups as one. Windows of a session that overlap are one."""
        keys = "".join(f"{k}, " for k in self.keys)
        parts = "".join(f", {p.merge.format(f'p{i}')} AS p{i}" for i, p in enumerate(self.parts))
        window = self.query.model.window
        if window is None or window.kind != "session":
            return f"SELECT {keys}{START}, {END}{parts} FROM {relation} GROUP BY {keys}{START}, {END}"
        within = f"PARTITION BY {keys.rstrip(', ')} " if keys else ""
        order = f"{within}ORDER BY {START}, {END}"
        before = f"max({END}) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        begins = f"SELECT *, CASE WHEN {START} < {before} THEN 0 ELSE 1 END AS begins FROM {relation}"
        islands = f"SELECT *, sum(begins) OVER ({order} ROWS UNBOUNDED PRECEDING) AS island FROM ({begins})"
        return f"""SELECT {keys}min({START}) AS {START}, max({END}) AS {END}{parts} FROM ({islands})
            GROUP BY {keys}island"""

    def refuse_inexact(self, types: Sequence[str]) -> None:
        """Raise ModelError when the type of a partial result (in the order of `parts`) depends on the order of sums."""
        for part, kind in zip(self.parts, types, strict=True):
            if kind in _INEXACT and part.merge.startswith("sum"):
                raise self.query.model.refused(
                    f"{part.name}() of {kind} depends on the order of its events.",
                    "Its last digits would differ from run to run. Cast it: "
                    f"{part.name}(CAST({part.of} AS DECIMAL(18, 4)))",
                    at=part.at,
                    wrong=False,
                )


@dataclass(slots=True)
class _Apart:
    """Takes expressions over groups apart; `parts` are the columns that they need."""

    con: duckdb.DuckDBPyConnection
    query: Query
    groups: list[Node] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = [g for g in self.query.groups if not names_window(g)]

    def final(self, node: Node, named: dict[str, Node] | None = None) -> Node:
        """An expression over groups: what is grouped by and aggregates as their columns."""
        for number, group in enumerate(self.groups):
            if _same(node, group):
                return _column(f"g{number}")
        names: list[str] = node.get("column_names") or []
        if names_window(node):
            return _column(START if str(names[-1]).lower() == "window_start" else END)
        if named and len(names) == 1 and str(names[0]).lower() in named:
            return self.final(named[str(names[0]).lower()])
        if str(node.get("function_name") or "").lower() in aggregates() and node.get("class") == "FUNCTION":
            return _expression(self.con, self._kept(node))
        return {k: self._inner(v, named) for k, v in node.items()}

    def _inner(self, value: object, named: dict[str, Node] | None) -> object:
        if isinstance(value, dict):
            return self.final(value, named)
        return [self._inner(v, named) for v in value] if isinstance(value, list) else value

    def _kept(self, call: Node) -> str:
        """The parts of an aggregate, and the expression that they are in the end. Raises ModelError."""
        name, text = str(call["function_name"]).lower(), text_of(self.con, call)
        model, at = self.query.model, call.get("query_location")
        if any(names_window(n) for n in call["arguments"] for n in [n["expression"]]) or call["order_bys"]["orders"]:
            raise model.refused(f"{text} cannot be kept.", "It names the window, or an order.", at=at, wrong=False)
        if name in ("count", "count_star") and not call["distinct"]:
            return f"coalesce(CAST({self._part(text, 'sum({})', call)} AS BIGINT), 0)"
        if name == "count":
            values = text_of(self.con, call | {"function_name": "list", "qualified_name": {"path": ["list"]}})
            return f"coalesce(len({self._part(values, _UNION, call)}), 0)"
        if call["distinct"] and name not in ("min", "max"):
            raise model.refused(f"{text} cannot be kept.", "Only count() takes DISTINCT.", at=at, wrong=False)
        if name in _ITSELF:
            return self._part(text, f"{name}({{}})", call)
        if name == "sum":
            return self._part(text, "sum({})", call)
        if name in ("avg", "mean"):
            total, many = (_called(self.con, call, n) for n in ("sum", "count"))
            of = self._part(many, "sum({})", call)
            return f"CAST({self._part(total, 'sum({})', call)} AS DOUBLE) / nullif({of}, 0)"
        raise model.refused(
            f"{name}() cannot be kept up event by event.",
            f"It needs all values of a group, or their order. There are: {', '.join(_KEPT)}.",
            at=at,
            wrong=False,
        )

    def _part(self, sql: str, merge: str, call: Node) -> str:
        for i, part in enumerate(self.parts):
            if part.sql == sql:
                return f"p{i}"
        of = text_of(self.con, _argument(call)) if call["arguments"] else ""
        self.parts.append(Part(sql, merge, str(call["function_name"]), of, call.get("query_location")))
        return f"p{len(self.parts) - 1}"


# Null when there is no value at all; sorted, so that what is remembered does not depend on the order of events.
_UNION = "list_sort(list_distinct(flatten(list({}))))"


def _called(con: duckdb.DuckDBPyConnection, call: Node, name: str) -> str:
    return text_of(con, call | {"function_name": name, "qualified_name": {"path": [name]}})


def _argument(call: Node) -> Node:
    found: Node = call["arguments"][0]["expression"]
    return found


def _expression(con: duckdb.DuckDBPyConnection, text: str) -> Node:
    found: Node = tree_of(con, f"SELECT {text}")["statements"][0]["node"]["select_list"][0]
    return found


def _column(name: str) -> Node:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": [name]}


def _same(one: Node, other: Node) -> bool:
    if one.get("class") == other.get("class") == "COLUMN_REF":
        a, b = ([str(c).lower() for c in n["column_names"]] for n in (one, other))
        return a[-len(b) :] == b or b[-len(a) :] == a
    return _canonical(one) == _canonical(other)


def _canonical(value: object) -> str:
    def bare(v: object) -> object:
        if isinstance(v, dict):
            return {k: bare(x) for k, x in v.items() if k not in ("alias", "query_location", "query_location_length")}
        return [bare(x) for x in v] if isinstance(v, list) else v

    return json.dumps(bare(value), sort_keys=True)
