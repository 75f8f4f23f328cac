"""What the connector loses before the log sees it, found by sending every type through Debezium 3.7.

None of this can be repaired at read. `unsent` columns have no place in the lake; `caveats` are words for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc_lake.project.pgtypes import GEOMETRIC_TYPES, TEXT_TYPES, PgType, is_known, parse_type

# Arrays of these never arrive: the connector leaves the column out, or sends null for every value.
_UNSENT_ARRAYS = frozenset(
    {"money", "name", "interval", "bit", "bit varying", "xml", "point", "refcursor"} | GEOMETRIC_TYPES
)
# An omitted value of an array of these arrives as a mark; of every other array as null.
_MARKED_ARRAYS = frozenset(
    {"text", "character varying", "character", "json", "jsonb", "bytea", "integer", "bigint", "date", "uuid"}
)

# Large values of these have no mark either.
_UNMARKED = frozenset({"path", "polygon"})

_BY_TYPE = {
    "date": (
        "a snapshot sends a date before Christ as one after, and one of 5 to 14 October 1582 shifted by ten days",
    ),
    "time with time zone": ("the zone is lost: the value arrives in UTC",),
    "interval": (
        "infinity arrives as zero",
        "2147483648 hours or more stop the connector for good: keep such values out of the source",
    ),
    "bit varying": ("leading zeros are lost",),
    "polygon": ("a last point that repeats the first is lost",),
}
_BY_ELEMENT = {
    "numeric": "an array with NaN or infinity in it arrives as null",
    "time without time zone": "microseconds are cut to milliseconds",
    "time with time zone": "the zone is lost: values arrive in UTC",
}


def unsent(entry: Mapping[str, Any]) -> dict[str, str]:
    """Columns of a table's catalogue entry that the connector never sends, each with the reason."""
    found: dict[str, str] = {}
    for column in entry["columns"]:
        pg = parse_type(column.get("base_type") or column["type"])
        array = pg.array or parse_type(column["type"]).array
        if column.get("generated") in ("v", "virtual"):
            found[column["name"]] = "PostgreSQL computes a virtual column at read and replicates no value of it"
        elif array and column.get("element_typtype") != "d" and pg.name in _UNSENT_ARRAYS:
            found[column["name"]] = f"the connector cannot write {column['type']}"
    return found


def unchanged_as_null(pg: PgType) -> bool:
    """Whether a large value that an update leaves out arrives as null, not as a mark.

    Nothing then tells it from a null that was set, and a NOT NULL column stops the connector. REPLICA IDENTITY FULL on
    the table makes every value arrive.
    """
    if pg.array:
        return pg.name not in _MARKED_ARRAYS
    return pg.name in _UNMARKED or (pg.name in ("bit", "bit varying") and pg.modifiers != (1,))


def caveats(source_type: str) -> tuple[str, ...]:
    """What the connector loses of a type (PostgreSQL's spelling), a sentence each; empty for most."""
    pg = parse_type(source_type)
    if not pg.array:
        return _BY_TYPE.get(pg.name, ()) + _unchanged(pg)
    found = ["an array of several dimensions arrives as nulls"]
    if pg.name in _BY_ELEMENT:
        found.append(_BY_ELEMENT[pg.name])
    if not is_known(pg) and pg.name not in TEXT_TYPES:
        found.append("an array with a null in it arrives as null")
    return (*found, *_unchanged(pg))


def _unchanged(pg: PgType) -> tuple[str, ...]:
    if not unchanged_as_null(pg):
        return ()
    return (
        "a large value that an update does not touch arrives as null, or stops the connector where null is not "
        "allowed, unless the table has REPLICA IDENTITY FULL",
    )
