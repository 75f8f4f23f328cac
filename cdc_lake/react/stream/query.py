"""A model's SQL taken apart: the streams and tables it reads, what it selects, groups and keeps; or why it cannot be
kept up incrementally."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb

from cdc_lake.config_source import EVENTS
from cdc_lake.react.expressions import aggregates, nodes_of, reads_clock
from cdc_lake.react.stream.modelfile import Model

Node = dict[str, Any]
WINDOW_COLUMNS = ("window_start", "window_end")
# What a query may not have beside its SELECT, FROM, WHERE, GROUP BY and HAVING, and why.
_FOREIGN = {
    "ORDER_MODIFIER": ("ORDER BY", "Rows are added as they come about; sort them when you read them."),
    "LIMIT_MODIFIER": ("LIMIT", "Which rows are the first is known when all have been seen, which never happens."),
    "DISTINCT_MODIFIER": ("DISTINCT", "It would have to remember every row for ever. Group within a window."),
}
_ONCE = "A model is evaluated change by change, and again when it is replayed: both must give the same."


@dataclass(frozen=True, slots=True)
class Source:
    """One relation of FROM. `on` is the condition it is joined by, empty for the first one."""

    alias: str
    kind: Literal["changes", "current"]
    table: str
    left: bool
    on: str
    at: int
    condition: Node | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One expression of the SELECT list, and the name it was given (else None)."""

    node: Node
    name: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """A model's query. `names` are, in lower case, all names that it uses as columns; `own`, by alias, what an event of
    a stream must meet by itself to be in any row."""

    model: Model
    sources: tuple[Source, ...]
    items: tuple[Item, ...]
    where: str
    groups: tuple[Node, ...]
    having: Node | None
    names: frozenset[str]
    own: Mapping[str, str]

    @property
    def streams(self) -> tuple[Source, ...]:
        """The sources whose changes are followed."""
        return tuple(s for s in self.sources if s.kind == "changes")

    @property
    def tables(self) -> tuple[Source, ...]:
        """The sources that are read as of an event's position."""
        return tuple(s for s in self.sources if s.kind == "current")

    @property
    def timed(self) -> bool:
        """Whether event time decides about its rows, so that an event can come too late."""
        return self.model.window is not None or len(self.streams) > 1


def text_of(con: duckdb.DuckDBPyConnection, node: Node) -> str:
    """An expression as SQL, without its alias."""
    select = copy.deepcopy(_BARE)
    select["statements"][0]["node"]["select_list"] = [node | {"alias": ""}]
    ((text,),) = con.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(select)]).fetchall()
    return str(text).removeprefix("SELECT ")


def tree_of(con: duckdb.DuckDBPyConnection, sql: str) -> Node:
    """What DuckDB's parser makes of a text, or its error."""
    ((text,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    found: Node = json.loads(text)
    return found


with duckdb.connect() as _con:
    _BARE = tree_of(_con, "SELECT 1")


def parse(con: duckdb.DuckDBPyConnection, model: Model) -> Query:
    """Take a model's query apart. Raises ModelError: it is no query, or cannot be kept up incrementally."""
    node = _select(con, model)
    _refuse_foreign(model, node)
    sources = tuple(_sources(con, model, node["from_table"]))
    items = tuple(Item(i, i["alias"] or None) for i in node["select_list"])
    where = text_of(con, node["where_clause"]) if node.get("where_clause") else ""
    _refuse_functions(model, node)
    names = frozenset(str(c).lower() for n in nodes_of(node) for c in n.get("column_names") or ())
    times = frozenset(w.lower() for _, text in model.times for w in _words(con, text))
    own = _own(con, sources, node)
    query = Query(model, sources, items, where, _groups(node, items), node.get("having"), names | times, own)
    _refuse_shape(query, node)
    return query


def _own(con: duckdb.DuckDBPyConnection, sources: tuple[Source, ...], node: Node) -> dict[str, str]:
    """By alias, the conditions on one source alone that an event must meet to be in any row.

    What WHERE says of the right side of a LEFT JOIN is none: it is asked of rows without one, too.
    """
    if len(sources) == 1:
        return {sources[0].alias: f"({text_of(con, node['where_clause'])})"} if node.get("where_clause") else {}
    found: dict[str, list[str]] = {s.alias: [] for s in sources}
    parts = [(s.alias, c) for s in sources[1:] for c in _conjuncts(s.condition)]
    parts += [(s.alias, c) for s in sources if not s.left for c in _conjuncts(node.get("where_clause"))]
    for alias, part in parts:
        named: list[list[str]] = [n["column_names"] for n in nodes_of(part) if n.get("class") == "COLUMN_REF"]
        if named and all(len(n) == 2 and n[0].lower() == alias.lower() for n in named):
            found[alias].append(text_of(con, part))
    return {alias: " AND ".join(f"({t})" for t in texts) for alias, texts in found.items() if texts}


def _conjuncts(node: Node | None) -> list[Node]:
    if not node:
        return []
    if node.get("type") == "CONJUNCTION_AND":
        return [c for child in node["children"] for c in _conjuncts(child)]
    return [node]


def _words(con: duckdb.DuckDBPyConnection, text: str) -> list[str]:
    tree = tree_of(con, f"SELECT\n{text}\n")
    return [str(c) for n in nodes_of(tree) for c in n.get("column_names") or ()]


def _select(con: duckdb.DuckDBPyConnection, model: Model) -> Node:
    tree = tree_of(con, model.sql)
    if tree["error"]:
        at = int(tree["position"]) if str(tree.get("position") or "").isdigit() else None
        raise model.refused("it is no SELECT that DuckDB can read.", str(tree["error_message"]), at=at)
    if len(tree["statements"]) != 1:
        raise model.refused(f"it holds {len(tree['statements'])} statements.", "A model is one SELECT.")
    node: Node = tree["statements"][0]["node"]
    if node["type"] != "SELECT_NODE":
        raise model.refused(
            "it puts several queries together.", "A model is one SELECT; write one model for each.", wrong=False
        )
    return node


def _refuse_foreign(model: Model, node: Node) -> None:
    for modifier in node["modifiers"]:
        what, why = _FOREIGN.get(modifier["type"], (modifier["type"], "A model has none."))
        raise model.refused(f"it has {what}.", why, wrong=False)
    if node["cte_map"]["map"]:
        raise model.refused("it has a WITH.", "A model is one SELECT; write one model for each part.", wrong=False)
    for key, what in (("sample", "a sample"), ("qualify", "QUALIFY")):
        if node.get(key):
            raise model.refused(f"it has {what}.", f"Which rows that keeps depends on later ones. {_ONCE}", wrong=False)
    if len(node.get("group_sets") or ()) > 1:
        raise model.refused("it has grouping sets.", "Write one model for each grouping.", wrong=False)


def _sources(con: duckdb.DuckDBPyConnection, model: Model, tree: Node) -> Iterator[Source]:
    """The relations of FROM, from left to right."""
    if tree["type"] == "EMPTY":
        raise model.refused("it reads nothing.", "FROM names what it follows, as changes.orders.")
    if tree["type"] == "JOIN":
        yield from _sources(con, model, tree["left"])
        plain = tree["ref_type"] == "REGULAR" and tree["join_type"] in ("INNER", "LEFT") and tree["condition"]
        if not plain or tree["right"]["type"] == "JOIN":
            raise model.refused(
                "it joins in a way that a model cannot.",
                "There are JOIN … ON and LEFT JOIN … ON, one behind the other; no USING, comma, FULL or nested join.",
                at=tree.get("query_location"),
                wrong=False,
            )
        on = text_of(con, tree["condition"])
        found = _source(model, tree["right"], left=tree["join_type"] == "LEFT", on=on)
        yield replace(found, condition=tree["condition"])
    else:
        yield _source(model, tree, left=False, on="")


def _source(model: Model, tree: Node, *, left: bool, on: str) -> Source:
    if tree["type"] != "BASE_TABLE" or tree.get("at_clause") or tree.get("column_name_alias") or tree.get("sample"):
        raise model.refused(
            "FROM has something that is no table.",
            "A model reads changes.<table>, events.<table> and current.<table>, each with a plain alias at most.",
            at=tree.get("query_location"),
            wrong=False,
        )
    path = [p for p in (tree["catalog_name"], tree["schema_name"], tree["table_name"]) if p]
    kind, rest = (path[0].lower(), path[1:]) if len(path) > 1 else ("current", path)
    if kind == EVENTS and len(path) == 2:
        kind, rest = "changes", path
    if kind not in ("changes", "current"):
        kind, rest = ("current", path) if len(path) == 2 and kind not in ("history", "lake", "streams") else ("", path)
    if not kind:
        raise model.refused(
            f"it reads {'.'.join(path)}.",
            "A model reads changes.<table>, events.<table>, and current.<table> as it was at each event.",
            at=tree.get("query_location"),
            wrong=False,
        )
    alias = tree["alias"] or tree["table_name"]
    found: Literal["changes", "current"] = "changes" if kind == "changes" else "current"
    return Source(alias, found, ".".join(rest), left, on, int(tree.get("query_location") or 0))


def _refuse_functions(model: Model, node: Node) -> None:
    allowed = [*node["select_list"], node.get("having")]
    inside = {id(n) for part in allowed if part for n in nodes_of(part)}
    for one in nodes_of(node):
        kind, name, at = one.get("class"), str(one.get("function_name") or "").lower(), one.get("query_location")
        if kind == "SUBQUERY":
            raise model.refused("it holds a query of its own.", f"What that finds changes. {_ONCE}", at=at, wrong=False)
        if kind == "WINDOW":
            why = "What it gives for a row depends on later ones. Use a window of event time: `-- window: …`"
            raise model.refused("it holds a window function.", why, at=at, wrong=False)
        if kind == "STAR":
            why = "The columns of a model must not change with those of its tables: name them."
            raise model.refused("it selects *.", why, at=at, wrong=False)
        words = [str(c).lower() for c in one.get("column_names") or ()]
        if (name and reads_clock(one, name)) or (len(words) == 1 and words[0] in _CLOCKS):
            raise model.refused(f"{name or words[0]} gives another value each time.", _ONCE, at=at, wrong=False)
        if name in aggregates() and id(one) not in inside:
            raise model.refused(f"{name}() stands where no aggregate may.", "Only SELECT and HAVING have any.", at=at)


_CLOCKS = {"current_timestamp", "current_time", "current_date", "localtime", "localtimestamp"}


def _groups(node: Node, items: tuple[Item, ...]) -> tuple[Node, ...]:
    """What it groups by, with ordinals, aliases and ALL as the expressions that they mean."""
    if node["aggregate_handling"] == "FORCE_AGGREGATES":
        return tuple(i.node for i in items if not has_aggregate(i.node))
    named: Mapping[str, Node] = {i.name.lower(): i.node for i in items if i.name}
    return tuple(_meant(g, named, items) for g in node.get("group_expressions") or ())


def _meant(group: Node, named: Mapping[str, Node], items: tuple[Item, ...]) -> Node:
    number = (group.get("literal") or {}).get("text", "") if group.get("class") == "CONSTANT" else ""
    if str(number).isdigit() and 0 < int(number) <= len(items):
        return items[int(number) - 1].node
    names: list[str] = group.get("column_names") or []
    return named.get(str(names[0]).lower(), group) if len(names) == 1 else group


def has_aggregate(node: Node) -> bool:
    """Whether an expression holds an aggregate."""
    return any(str(n.get("function_name") or "").lower() in aggregates() for n in nodes_of(node))


def names_window(node: Node) -> bool:
    """Whether an expression is `window_start` or `window_end`, and nothing else."""
    return str((node.get("column_names") or [""])[-1]).lower() in WINDOW_COLUMNS


def _refuse_shape(query: Query, node: Node) -> None:
    """Refuse what would have to remember for ever, or has no meaning."""
    model, streams = query.model, query.streams
    grouped = bool(query.groups) or query.having is not None or any(has_aggregate(i.node) for i in query.items)
    if query.sources[0].kind != "changes":
        raise model.refused(
            f"it begins with the table {query.sources[0].table}.",
            f"A model follows changes: FROM changes.{query.sources[0].table}, with tables joined to them.",
            at=query.sources[0].at,
        )
    if len({s.alias.lower() for s in query.sources}) < len(query.sources):
        raise model.refused("two of its relations have one name.", "Give each an alias of its own.")
    if grouped and model.window is None:
        why = "A group that never ends is remembered for ever. Say which windows: `-- window: tumbling 1 hour`"
        raise model.refused("it has an aggregate without a window.", why, wrong=False)
    if model.window is not None and not (grouped and any(names_window(g) for g in query.groups)):
        why = "Rows of a window come together when it ends: GROUP BY window_start, or leave out `window`."
        raise model.refused("it has a window that it does not group by.", why)
    for group in query.groups:
        inner = [n for n in nodes_of(group) if names_window(n)]
        if inner and not names_window(group):
            why = "Group by window_start itself, and compute with it in SELECT."
            raise model.refused("it groups by an expression of the window.", why, at=group.get("query_location"))
    if node.get("where_clause") and any(names_window(n) for n in nodes_of(node["where_clause"])):
        raise model.refused("WHERE names the window.", "Windows are known when they end: use HAVING.")
    _refuse_joins(query, streams)
    known = {s.alias.lower() for s in streams}
    for alias, _ in model.times:
        if (alias or streams[0].alias).lower() not in known or (not alias and len(streams) > 1):
            why = f"Say of which stream: `-- time {streams[0].alias}: …`; there are: {', '.join(sorted(known))}"
            raise model.refused(f"`time {alias}` is of no stream.", why)


def _refuse_joins(query: Query, streams: tuple[Source, ...]) -> None:
    model = query.model
    if len(streams) > 2:
        raise model.refused("it joins more than two streams.", "Two can be joined within a span.", wrong=False)
    if len(streams) == 2 and model.within is None:
        why = "Each event would wait for the other for ever. Say how far apart they may be: `-- within: 1 hour`"
        raise model.refused("it joins two streams without a span.", why, wrong=False)
    if len(streams) == 2 and model.window is not None:
        raise model.refused(
            "it aggregates over a join of streams.", "Its parts come at different times. Join only.", wrong=False
        )
    if any(s.kind == "changes" for s in query.sources[len(streams) :]):
        raise model.refused("a table stands before a stream.", "Join the streams first, then tables.")
    if len(streams) < 2 and model.within is not None:
        raise model.refused("it has a span but only one stream.", "`within` is for a join of two streams.")
    if any(s.left for s in streams) and query.tables:
        why = "Whether an event stays alone is known later, when the table is another one. Leave the table out."
        raise model.refused("it joins a stream by LEFT JOIN, and a table.", why, wrong=False)
