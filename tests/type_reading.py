"""Reads recorded events of one column through the types of the lake, as a session does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from cdc_lake.events import TableId
from cdc_lake.project.types import (
    Column,
    TableSchema,
    lossy_expression,
    merged,
    printed_expression,
    raw_spec,
    schema_from_catalogue,
    schema_from_connect,
    typed_expression,
    unchanged_expression,
)
from cdc_lake.sqltext import ident, literal

TABLE = TableId("public", "t")
ID_FIELD = {"type": "int32", "optional": False, "field": "id"}


def envelope(field: Mapping[str, Any] | None) -> str:
    """The Connect schema of an envelope whose row has `id` and, when it is sent, the column of `field`."""
    row = {"type": "struct", "optional": True, "fields": [ID_FIELD, *([field] if field else [])]}
    images = [{**row, "field": "before"}, {**row, "field": "after"}]
    return json.dumps({"type": "struct", "fields": images, "name": "x.public.t.Envelope"})


KEY = json.dumps({"type": "struct", "fields": [ID_FIELD]})


def schemas(event: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, TableSchema]:
    """The schema of a recorded column from each origin."""
    wire = schema_from_connect(TABLE, envelope(event["field"]), KEY, {})
    entry = {"schema": TABLE.schema, "table": TABLE.name, "columns": [event["column"]], "replica_identity": "d"}
    catalogue = schema_from_catalogue(entry, settings)
    return {"connect": wire, "catalogue": catalogue, "merged": merged(wire, catalogue)}


def column_of(schema: TableSchema, name: str = "v") -> Column | None:
    """The column, when the schema has it."""
    return next((c for c in schema.columns if c.name == name), None)


def read(
    engine: duckdb.DuckDBPyConnection, schema: TableSchema, column: Column, values: Sequence[Any], sql: str
) -> list[Any]:
    """The answers of `sql` over one image for each value of `column`; `{raw}` and `{typed}` stand for its values."""
    raw = f"__image.{ident(column.name)}"
    images, spec = [json.dumps({column.name: value}) for value in values], literal(raw_spec(schema))
    text = sql.replace("{typed}", typed_expression(column, raw)).replace("{raw}", raw)
    parsed = f"SELECT json_transform(image, {spec}) AS __image FROM (SELECT unnest(?::VARCHAR[]) AS image)"
    answers = engine.execute(f"SELECT {text} FROM ({parsed}) AS log", [images]).fetchall()
    return [answer[0] if len(answer) == 1 else answer for answer in answers]


def printed_and_lossy(
    engine: duckdb.DuckDBPyConnection, schema: TableSchema, column: Column, values: Sequence[Any]
) -> list[tuple[str | None, bool, str]]:
    """Each value as PostgreSQL prints it, whether it is known to be lossy, and its DuckDB type."""
    printed = printed_expression(column, "{typed}")
    return read(engine, schema, column, values, f"{printed}, {lossy_expression(column, '{raw}')}, typeof({{typed}})")


def is_unchanged(
    engine: duckdb.DuckDBPyConnection, schema: TableSchema, column: Column, values: Sequence[Any], placeholder: str
) -> list[bool] | None:
    """What `unchanged_expression` says of each raw value; None when it says that it cannot tell."""
    sql = unchanged_expression(column, "{raw}", placeholder)
    return None if sql is None else read(engine, schema, column, values, sql)
