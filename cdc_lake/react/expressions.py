"""The SQL in rules: which of it can be evaluated change by change, and where it is wrong."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from cdc_lake.errors import suggest
from cdc_lake.react.rulefile import Rule, RuleError, place_in

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"[^"]*\"""")
NO_COLUMN = re.compile(r'Referenced column "(.+?)" not found')
# Words that read the clock without brackets, where no column is called so.
_WORDS = {"current_timestamp", "current_time", "localtime", "localtimestamp"}
_ONCE = "Rules are evaluated change by change, and again on the past: both must give the same."


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression of a rule and where it stands in its file. `aggregates` says that it is one over many events."""

    rule: Rule
    path: tuple[int | str, ...]
    text: str
    aggregates: bool = False

    def refused(self, what: str, why: str, *, wrong: bool = False) -> RuleError:
        """An error about this expression: it is `wrong`, or cannot be evaluated incrementally."""
        name = ".".join(str(p) for p in self.path)
        return RuleError(
            f"{place_in(self.rule.file, self.path)}: `{name}`: {what}",
            why=why,
            next=f"edit {self.rule.file}, then: cdc-lake rules check",
            code="rule" if wrong else "rule_not_incremental",
        )


def expressions_of(rule: Rule) -> Iterator[Expression]:
    """All of a rule's SQL."""
    for name, text in rule.key.items():
        yield Expression(rule, ("key", name), text)
    for stream, one in rule.streams.items():
        at = ("streams", stream)
        for field in ("where", "time"):
            if getattr(one, field) is not None:
                yield Expression(rule, (*at, field), getattr(one, field))
        for field in ("key", "values"):
            for name, text in (getattr(one, field) or {}).items():
                yield Expression(rule, (*at, field, name), text)
    if rule.threshold is not None:
        yield Expression(rule, ("threshold", "when"), rule.threshold.when)
    if rule.count is not None and rule.count.having is not None:
        yield Expression(rule, ("count", "having"), rule.count.having, aggregates=True)
    if rule.anomaly is not None:
        yield Expression(rule, ("anomaly", "value"), rule.anomaly.value, aggregates=True)


def check_expressions(con: duckdb.DuckDBPyConnection, rule: Rule) -> None:
    """Raise RuleError for the first expression that does not parse, or that cannot be evaluated incrementally."""
    for one in expressions_of(rule):
        _check(con, one)


def _check(con: duckdb.DuckDBPyConnection, one: Expression) -> None:
    ((text,),) = con.execute("SELECT json_serialize_sql(?)", [f"SELECT\n{one.text}\nFROM t"]).fetchall()
    tree = json.loads(text)
    if tree["error"]:
        what = str(tree["error_message"]).partition("\n")[0]
        raise one.refused("it is no SQL expression.", _pointed(one.text, what, tree.get("position")), wrong=True)
    if not _is_one(tree):
        raise one.refused("it is no single SQL expression.", "It reads as more than one, or has a FROM.", wrong=True)
    for node in nodes_of(tree["statements"][0]["node"]["select_list"][0]):
        kind, name = node.get("class"), str(node.get("function_name") or "").lower()
        if kind == "SUBQUERY":
            raise one.refused("it holds a query of its own.", f"What that finds changes with other tables. {_ONCE}")
        if kind == "WINDOW":
            raise one.refused("it holds a window function.", "What it finds for a change depends on later ones.")
        if name and reads_clock(node, name):
            raise one.refused(f"{name}() gives another value each time.", _ONCE)
        if name in aggregates() and not one.aggregates:
            raise one.refused(f"{name}() is an aggregate.", "Only `count.having` is about many events.")


def _is_one(tree: dict[str, Any]) -> bool:
    node = tree["statements"][0]["node"] if len(tree["statements"]) == 1 else {}
    table = node.get("from_table") or {}
    plain = not any(node.get(k) for k in ("where_clause", "group_expressions", "having", "qualify", "modifiers"))
    items = node.get("select_list") or []
    return plain and len(items) == 1 and not items[0].get("alias") and table.get("table_name") == "t"


def aggregates() -> frozenset[str]:
    """The names of aggregates."""
    return functions()[0]


@functools.cache
def functions() -> tuple[frozenset[str], frozenset[str]]:
    """The names of aggregates, and of what gives another value each time."""
    with duckdb.connect() as con:
        rows = con.execute(
            """SELECT lower(function_name), bool_or(function_type = 'aggregate'),
            bool_or(stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')) AND NOT bool_or(stability = 'CONSISTENT')
            FROM duckdb_functions() GROUP BY ALL"""
        ).fetchall()
    return frozenset(n for n, aggregate, _ in rows if aggregate), frozenset(n for n, _, other in rows if other)


def reads_clock(node: dict[str, Any], name: str) -> bool:
    """Whether a call gives another value each time."""
    # With two arguments `age` is the time between them, with one until now.
    return name in functions()[1] or (name == "age" and len(node.get("arguments") or ()) == 1)


def nodes_of(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects in a parsed tree, each before what is in it."""
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes_of(inner)


def bind(con: duckdb.DuckDBPyConnection, one: Expression, relation: str, columns: Sequence[str]) -> str:
    """The type of an expression over `relation`. Raises RuleError for unknown columns and types that do not fit."""
    known = {c.lower() for c in columns}
    words = {w.lower() for w in re.findall(r"\b\w+\b", one.text)} & (functions()[1] | _WORDS) - known
    unquoted = _QUOTED.sub("", one.text)
    bare = [w for w in words if re.search(rf"\b{w}\b(?!\s*\()", unquoted, re.IGNORECASE)]
    if bare:
        raise one.refused(f"{bare[0]} gives another value each time.", _ONCE)
    try:
        return str(con.execute(f"DESCRIBE SELECT\n{one.text}\nFROM {relation}").fetchall()[0][1])
    except duckdb.Error as error:
        first = str(error).strip().partition("\n")[0]
        missing = NO_COLUMN.search(first)
        if missing is not None:
            why = suggest(missing[1], columns) or f"There are: {', '.join(c for c in columns if c[:2] != '__')}"
            raise one.refused(f"there is no column {missing[1]}.", why, wrong=True) from None
        why = first.partition(": ")[2] or first
        raise one.refused("it does not fit the table's columns.", why, wrong=True) from None


def _pointed(text: str, what: str, position: Any) -> str:
    """The parser's words, and a caret below the place they mean."""
    start = int(position) - len("SELECT\n") if str(position or "").isdigit() else -1
    if start >= len(text):
        return f"It ends too early: {text}"
    if not 0 <= start <= len(text) or "\n" in text:
        return f"{what}: {text}"
    return f"{what}\nHere:\n{text}\n{' ' * start}^"
