"""The columns of a table of events: the attributes of CloudEvents first, then the fields of the data as they were first
seen.

`definition` of a version (see `decode.fields`) is a list of fields and kinds. Versions only grow, but two sinks may
have seen different fields: a table has those of all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from cdc_lake.events import TableId
from cdc_lake.project.pgtypes import lake_type, parse_type
from cdc_lake.project.schema import Column, TableSchema

# What every table of events has, in this order, whether an event had it yet or not.
ATTRIBUTES = ("id", "source", "type", "subject", "time", "correlationid", "causationid", "traceparent", "partitionkey")
_LAST = ("specversion", "datacontenttype", "dataschema", "kafka_partition", "kafka_offset")
_KEY = {"source": 1, "id": 2}
_ENCODINGS = {"boolean": "bool", "bigint": "int", "double precision": "float", "text": "text", "json": "document"}


class Version(Protocol):
    """A version as the lake's `schemas` has it."""

    @property
    def kind(self) -> str:
        """`events`, if it is one of a table of events."""

    @property
    def definition(self) -> str:
        """Its fields."""

    @property
    def recorded(self) -> tuple[Any, int]:
        """When it was written down."""


def schema_of_events(table: TableId, rows: Sequence[Version]) -> TableSchema | None:
    """The schema of a table of events by all versions of its fields; None for a table of something else."""
    versions = sorted((r for r in rows if r.kind == "events"), key=lambda r: r.recorded)
    if not versions:
        return None
    kinds: dict[str, str] = {}
    names: dict[str, str] = {}
    for version in versions:
        for name, kind in json.loads(version.definition)["fields"]:
            shown = names.setdefault(name.lower(), name)
            if shown == name:
                kinds[name] = _wider(kinds.get(name, ""), kind)
    own = [n for n in (*kinds, *_LAST) if n in kinds and n not in ATTRIBUTES]
    ordered = [*ATTRIBUTES, *(n for n in own if n not in _LAST), *(n for n in _LAST if n in own)]
    return TableSchema(table, tuple(_column(n, kinds.get(n) or "text") for n in dict.fromkeys(ordered)), "events")


def _column(name: str, kind: str) -> Column:
    if name == "time":
        return Column(name, "timestamptz", "TIMESTAMP WITH TIME ZONE", None, True, "tz_iso")
    kind = "text" if name in ATTRIBUTES else kind
    position = _KEY.get(name)
    return Column(name, kind, lake_type(parse_type(kind)), position, position is None, _ENCODINGS[kind])


def _wider(one: str, other: str) -> str:
    """The kind that holds values of both; empty is that of nulls."""
    if one == other or not other or not one:
        return one or other
    if {one, other} == {"bigint", "double precision"}:
        return "double precision"
    return "text"
