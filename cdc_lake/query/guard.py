"""SQL of people who are asked to read and no more: one SELECT over what a session shows, in a session without doors.

Two barriers, each enough alone. The text is taken apart first: one statement, a SELECT, which names only relations of
the session and calls only table functions that read nothing. And the session that runs it reaches no file but the
lake's, no network and no extension, and its settings cannot be changed any more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from cdc_lake.errors import suggest
from cdc_lake.query.run import SqlError
from cdc_lake.query.session import Session
from cdc_lake.sqltext import literal

# Table functions that make rows of their arguments, or tell what there is in the catalogue.
TABLE_FUNCTIONS = frozenset(
    {
        *("range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"),
        *("duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions", "duckdb_types", "pragma_table_info"),
        "at",  # lake.at(table, moment)
    }
)
_READING = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"})
# Our own functions behind the views: nobody is to call them with arguments of their own.
_OWN = "cdc_lake_"
_MOST_TEXT = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take."""

    memory_mb: int = 512
    seconds: float = 10
    rows: int = 10_000


def close_doors(session: Session, places: Collection[str], limits: Limits) -> None:
    """Let the session's connection reach nothing but what lies below `places`, for good. The last line locks it."""
    con = session.connection
    allowed = ", ".join(literal(p.rstrip("/") + "/") for p in places)
    for line in (
        f"SET memory_limit = '{limits.memory_mb}MB'",
        f"SET max_temp_directory_size = '{limits.memory_mb}MB'",
        f"SET max_execution_time = {int(limits.seconds * 1000)}",
        "SET threads = 2",
        "SET python_enable_replacements = false",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET allow_community_extensions = false",
        f"SET allowed_directories = [{allowed}]",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        con.execute(line)


def limit_error(why: str) -> SqlError:
    """A query took more than it may."""
    return SqlError(
        "The query was ended.", why=why, next="ask for less: WHERE, LIMIT; or use cdc-lake sql", code="sql_limit"
    )


def check_select(session: Session, sql: str) -> None:
    """Raise SqlError unless `sql` is one SELECT that reads relations of the session and nothing else."""
    if len(sql) > _MOST_TEXT:
        raise _refused("The query is too long.", f"It has {len(sql):,} characters, and {_MOST_TEXT:,} are read.")
    con = session.connection
    try:
        found = con.extract_statements(sql)
    except duckdb.Error as error:
        first, _, rest = str(error).strip().partition("\n")
        raise SqlError(first.partition(": ")[2] or first, why=rest.strip(), next="correct the query") from None
    if len(found) != 1:
        raise _refused(f"{len(found)} statements were sent.", "One SELECT is asked at a time.")
    ((text,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(text)
    if tree["error"]:
        kind = str(found[0].type).rpartition(".")[2]
        raise _refused("Only a SELECT is run here.", f"This is {kind}: it may change or reach something.")
    known, local = _relations(con), _named_within(tree)
    for node in _nodes(tree):
        _check_node(node, known, local)


def _check_node(node: Mapping[str, Any], known: frozenset[str], local: frozenset[str]) -> None:
    kind = str(node.get("type", ""))
    if kind.endswith("_NODE") and kind not in _READING:
        raise _refused("Only a SELECT is run here.", f"There is a part in it that is none: {kind}.")
    if kind == "TABLE_FUNCTION":
        _check_function(str(node["function"].get("function_name", "")).lower())
    if kind == "FUNCTION" and str(node.get("function_name", "")).lower().startswith(_OWN):
        raise _refused(f"{node['function_name']} is not to be called.", "It works behind the views of the lake.")
    if kind == "BASE_TABLE":
        parts = [str(p) for p in (node["catalog_name"], node["schema_name"], node["table_name"]) if p]
        name = ".".join(p.lower() for p in parts)
        if name not in known and not (len(parts) == 1 and name in local):
            why = (
                suggest(name, [k for k in known if ".main." not in k])
                or "Here a query reads tables of the lake and nothing else."
            )
            raise SqlError(f"There is no table {'.'.join(parts)}.", why=why, next="cdc-lake tables")


def _check_function(name: str) -> None:
    if name and name not in TABLE_FUNCTIONS:
        listed = ", ".join(sorted(TABLE_FUNCTIONS))
        raise _refused(
            f"The table function {name} is not allowed here.", f"Those are allowed that read no file: {listed}"
        )


def _relations(con: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """What may be read, by every name that it has; in lower case."""
    rows = con.execute(
        """SELECT lower(database_name), lower(schema_name), lower(view_name) FROM duckdb_views()
        UNION ALL SELECT lower(database_name), lower(schema_name), lower(table_name) FROM duckdb_tables()"""
    ).fetchall()
    found: set[str] = set()
    for catalogue, schema, name in rows:
        if schema == "internal":
            continue
        found.add(f"{catalogue}.{schema}.{name}")
        if catalogue in ("current", "memory", "system"):
            found |= {name, f"{schema}.{name}"}
        if schema in ("main", "public"):
            found.add(f"{catalogue}.{name}")
    return frozenset(found)


def _named_within(tree: Any) -> frozenset[str]:
    """The names that a query gives to parts of itself (WITH)."""
    return frozenset(
        str(entry["key"]).lower() for node in _nodes(tree) for entry in (node.get("cte_map") or {}).get("map", ())
    ) | frozenset(str(node["cte_name"]).lower() for node in _nodes(tree) if node.get("cte_name"))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _refused(what: str, why: str) -> SqlError:
    return SqlError(what, why=why, next="ask with one SELECT; for everything else: cdc-lake sql", code="sql_refused")
