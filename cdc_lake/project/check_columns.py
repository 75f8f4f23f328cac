"""Checks of the captured columns: what the connector loses of their types, before it is lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cdc_lake.checks import Check, listed, ok, warn
from cdc_lake.events import TableId
from cdc_lake.project.limits import unchanged_as_null, unsent
from cdc_lake.project.pgtypes import parse_type
from cdc_lake.sqltext import ident


def check_columns(catalogue: Sequence[Mapping[str, Any]], full: Collection[TableId]) -> list[Check]:
    """Judge the catalogue's entries of the captured tables (see `capture.catalogue.read_catalogue`).

    `full` are the tables with REPLICA IDENTITY FULL.
    """
    return [_unsent(catalogue), _unchanged(catalogue, full)]


def _unsent(catalogue: Sequence[Mapping[str, Any]]) -> Check:
    found = [(_id(entry), *lost) for entry in catalogue for lost in unsent(entry).items()]
    if not found:
        return ok("columns.unsent", "every column is sent")
    virtual = {(_id(entry), c["name"]) for entry in catalogue for c in entry["columns"] if c.get("generated")}
    return warn(
        "columns.unsent",
        listed((f"{table}.{column}: {reason}" for table, column, reason in found), 10),
        why="The lake has no such column, in `current` as in `changes`.",
        fix=" ".join(_sendable(table, column, (table, column) in virtual) for table, column, _ in found[:20]),
    )


def _sendable(table: TableId, column: str, virtual: bool) -> str:
    """The statement that makes a column one that is sent."""
    alter, name = f"ALTER TABLE {ident(table.schema)}.{ident(table.name)}", ident(column)
    if virtual:
        return f"{alter} DROP COLUMN {name}, ADD COLUMN {name} … GENERATED ALWAYS AS (…) STORED;"
    return f"{alter} ALTER COLUMN {name} TYPE text[] USING {name}::text[];"


def _unchanged(catalogue: Sequence[Mapping[str, Any]], full: Collection[TableId]) -> Check:
    found: dict[TableId, list[str]] = {}
    for entry in catalogue:
        if (table := _id(entry)) not in full:
            lost = unsent(entry)
            columns = [c["name"] for c in entry["columns"] if c["name"] not in lost and _arrives_as_null(c)]
            if columns:
                found[table] = columns
    if not found:
        return ok("columns.unchanged", "a large value that an update does not touch is known as such in every column")
    return warn(
        "columns.unchanged",
        listed((f"{table}.{column}" for table, columns in found.items() for column in columns), 10),
        why="A large value there that an update does not touch arrives as null, which nothing tells from a null that "
        "was set; where null is not allowed the connector stops.",
        fix=" ".join(f"ALTER TABLE {ident(t.schema)}.{ident(t.name)} REPLICA IDENTITY FULL;" for t in found),
    )


def _arrives_as_null(column: Mapping[str, Any]) -> bool:
    # A domain over an array and an array of a domain are written as the base type is.
    own, base = parse_type(column["type"]), parse_type(column.get("base_type") or column["type"])
    return unchanged_as_null(own if own.array and not base.array else base)


def _id(entry: Mapping[str, Any]) -> TableId:
    return TableId(entry["schema"], entry["table"])
