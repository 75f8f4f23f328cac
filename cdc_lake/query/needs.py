"""Which views a session needs: DuckDB binds a view when it is made, for a whole lake that takes longer than a query."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import duckdb

from cdc_lake.errors import UsageError, suggest
from cdc_lake.events import TableId

CATALOGUES = ("current", "changes", "history")
# Whether the view of a table in a catalogue is needed.
Needs = Callable[[str, TableId], bool]
# A relation as a query names it: catalogue and schema as far as they are there, the name last; in lower case.
_Name = tuple[str, ...]


def everything(_catalogue: str, _table: TableId) -> bool:
    """All views: nobody knows what will be asked."""
    return True


def needs_of_tables(names: Sequence[str], tables: Collection[TableId]) -> Needs:
    """All views of the tables called `names`: `orders` is `public.orders`. Raises UsageError for an unknown one."""
    known = {str(t).lower(): t for t in tables} | {t.name.lower(): t for t in tables if t.schema == "public"}
    for name in names:
        if name.lower() not in known:
            raise UsageError(f"There is no table {name}.", why=suggest(name, list(known)), next="cdc-lake tables")
    wanted = {known[n.lower()] for n in names}
    return lambda _, table: table in wanted


def needs_of_sql(con: duckdb.DuckDBPyConnection, sql: str, tables: Collection[TableId]) -> Needs:
    """The views that `sql` reads, all of them where its text does not tell: it calls table functions (which may look
    up others by name), names something that is no table of the lake, or is not made of SELECT statements alone."""
    named = _relations(con, sql)
    if named is None:
        return everything
    relations, local = named

    def reads(name: _Name, catalogue: str, table: TableId) -> bool:
        parts = {catalogue, table.schema.lower()}
        return name[-1] == table.name.lower() and (set(name[:-1]) <= parts if name[:-1] else catalogue == "current")

    def known(name: _Name) -> bool:
        own = name[0] in ("lake", "streams") and len(name) > 1
        return own or name in local or any(reads(name, c, t) for c in CATALOGUES for t in tables)

    if not all(map(known, relations)):
        return everything
    return lambda catalogue, table: any(reads(name, catalogue, table) for name in relations)


def _relations(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[set[_Name], set[_Name]] | None:
    """The relations in the text, and the names that it gives itself (WITH)."""
    try:
        # To the end: with rows left to read, a connection can do nothing else.
        ((text,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    except duckdb.Error:
        return None
    tree = json.loads(text)
    if tree["error"]:
        return None
    relations, local = set[_Name](), set[_Name]()
    for node in _nodes(tree):
        kind = node.get("type")
        if kind in ("TABLE_FUNCTION", "SHOW_REF"):
            return None
        if kind == "BASE_TABLE":
            parts = (node["catalog_name"], node["schema_name"], node["table_name"])
            relations.add(tuple(p.lower() for p in parts if p))
        local.update((entry["key"].lower(),) for entry in (node.get("cte_map") or {}).get("map", ()))
    return relations, local


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(inner)
