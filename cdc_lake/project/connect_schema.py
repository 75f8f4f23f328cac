"""Schemas from the Connect schema that travels beside an event (`{"schema": …, "payload": …}`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.project.pgtypes import (
    GEOMETRIC_TYPES,
    TEXT_TYPES,
    PgType,
    is_known,
    lake_type,
    parse_propagated,
    parse_type,
)
from cdc_lake.project.schema import Column, TableSchema, checked
from cdc_lake.project.wire import Settings, binary_encoding, unknown_encoding

# Semantic name of a Connect schema -> encoding and the PostgreSQL type it stands for when no type is propagated.
_SEMANTIC = {
    "io.debezium.time.Date": ("date_days", "date"),
    "io.debezium.time.IsoDate": ("date_iso", "date"),
    "org.apache.kafka.connect.data.Date": ("date_days", "date"),
    "io.debezium.time.Time": ("time_ms", "time(3) without time zone"),
    "org.apache.kafka.connect.data.Time": ("time_ms", "time without time zone"),
    "io.debezium.time.MicroTime": ("time_us", "time without time zone"),
    "io.debezium.time.NanoTime": ("time_ns", "time without time zone"),
    "io.debezium.time.IsoTime": ("time_iso", "time without time zone"),
    "io.debezium.time.Timestamp": ("timestamp_ms", "timestamp(3) without time zone"),
    "org.apache.kafka.connect.data.Timestamp": ("timestamp_ms", "timestamp without time zone"),
    "io.debezium.time.MicroTimestamp": ("timestamp_us", "timestamp without time zone"),
    "io.debezium.time.NanoTimestamp": ("timestamp_ns", "timestamp without time zone"),
    "io.debezium.time.IsoTimestamp": ("timestamp_iso", "timestamp without time zone"),
    "io.debezium.time.ZonedTimestamp": ("tz_iso", "timestamp with time zone"),
    "io.debezium.time.ZonedTime": ("timetz", "time with time zone"),
    "io.debezium.time.Interval": ("interval_iso", "interval"),
    "io.debezium.time.MicroDuration": ("interval_us", "interval"),
    "io.debezium.time.NanoDuration": ("interval_ns", "interval"),
    "io.debezium.data.Json": ("json", "json"),
    "io.debezium.data.Uuid": ("text", "uuid"),
    "io.debezium.data.Xml": ("text", "xml"),
    "io.debezium.data.Enum": ("text", "text"),
    "io.debezium.data.Ltree": ("text", "ltree"),
    "io.debezium.data.Tsvector": ("text", "tsvector"),
    "io.debezium.data.geometry.Point": ("point", "point"),
    "io.debezium.data.geometry.Circle": ("geometry_base64", "circle"),
    "io.debezium.data.geometry.Line": ("geometry_base64", "line"),
    "io.debezium.data.VariableScaleDecimal": ("numeric_variable", "numeric"),
}

# PostgreSQL's own shapes share a schema with PostGIS's, whose values stay the structs that they are.
_GEOMETRY = "io.debezium.data.geometry.Geometry"
_POSTGIS = frozenset({"geometry", "geography"})

_PLAIN = {
    "int8": ("int", "smallint"),
    "int16": ("int", "smallint"),
    "int32": ("int", "integer"),
    "int64": ("int", "bigint"),
    "float32": ("float", "real"),
    "float64": ("float", "double precision"),
    "float": ("float", "real"),
    "double": ("float", "double precision"),
    "boolean": ("bool", "boolean"),
    "string": ("text", "text"),
    "bytes": ("base64", "bytea"),
    "struct": ("document", "json"),
    "map": ("document", "json"),
}


def schema_from_connect(table: TableId, value_schema: str, key_schema: str | None, settings: Settings) -> TableSchema:
    """The schema of a table as the envelope's inline Connect schema (JSON text) describes it.

    `settings` are the connector's modes; only `binary.handling.mode` matters here, for the wire names all others.
    With `column.propagate.source.type` the source's own types are in it; without, what the wire can tell (numeric
    sent as text stays text). Raises LakeError: not an envelope's schema, or columns that differ only in case.
    """
    row, key = _row_fields(table, value_schema), _key_names(key_schema)
    columns = []
    for field in row:
        resolved = _resolve(field, settings)
        if resolved is None:
            continue
        encoding, pg, lake = resolved
        position = key.index(field["field"]) + 1 if field["field"] in key else None
        columns.append(Column(field["field"], str(pg), lake, position, bool(field.get("optional")), encoding))
    return checked(TableSchema(table, tuple(columns), "connect"))


def _row_fields(table: TableId, value_schema: str) -> list[dict[str, Any]]:
    try:
        images = {f.get("field"): f for f in json.loads(value_schema)["fields"]}
        return list((images.get("after") or images["before"])["fields"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LakeError(
            f"The schema beside the events of {table} is not that of a Debezium envelope.",
            why="It has no field `after` or `before` that describes a row.",
            next="check the connector: single message transforms that flatten events are not for this tool",
            code="not_an_envelope",
        ) from None


def _key_names(key_schema: str | None) -> list[str]:
    parsed = json.loads(key_schema) if key_schema else None
    return [f["field"] for f in (parsed or {}).get("fields") or ()]


def _resolve(field: Mapping[str, Any], settings: Settings) -> tuple[str, PgType, str] | None:
    """Encoding, source type and lake type of a field; None for an array that the connector cannot write (`bit[]`)."""
    propagated = _propagated(field)
    if field["type"] != "array":
        if propagated is not None and propagated.array:
            return None
        encoding, pg = _wire(field, settings, propagated)
        lake = lake_type(pg)
        if _is_domain(propagated, field) and lake != "VARCHAR":
            return f"printed|{lake}|{encoding}", propagated or pg, "VARCHAR"
        return encoding, propagated or pg, lake
    known = propagated.element if propagated is not None and propagated.array else None
    if known is not None and known.name in GEOMETRIC_TYPES and field["items"]["type"] == "struct":
        return None
    encoding, pg = _wire(field["items"], settings, known)
    return f"[]{encoding}", propagated or PgType(pg.name, pg.modifiers, array=True), f"{lake_type(pg)}[]"


def _is_domain(propagated: PgType | None, field: Mapping[str, Any]) -> bool:
    """A user's type that is written as a built-in one. One written as bare bytes may be a composite instead."""
    return propagated is not None and not is_known(propagated) and (field["type"] != "bytes" or "name" in field)


def _propagated(field: Mapping[str, Any]) -> PgType | None:
    parameters = field.get("parameters") or {}
    name = parameters.get("__debezium.source.column.type")
    if not name:
        return None
    length, scale = (parameters.get(f"__debezium.source.column.{part}") for part in ("length", "scale"))
    return parse_propagated(name, int(length) if length else None, int(scale) if scale else None)


def _wire(field: Mapping[str, Any], settings: Settings, known: PgType | None) -> tuple[str, PgType]:
    """How a scalar was written, and the type that decides how it is shown."""
    semantic, parameters = field.get("name"), field.get("parameters") or {}
    if semantic == "org.apache.kafka.connect.data.Decimal":
        return _decimal(parameters, known)
    if semantic == "io.debezium.data.Bits":
        length = parameters.get("length", "0")
        varying = known is not None and known.name == "bit varying"
        return ("varbits", known) if varying and known else (f"bits:{length}", PgType("bit", (int(length),)))
    if semantic == _GEOMETRY and known is not None and known.name not in _POSTGIS:
        return "geometry_base64", _shown(known, PgType("text"))
    if semantic in _SEMANTIC:
        encoding, spelling = _SEMANTIC[semantic]
        return encoding, _shown(known, parse_type(spelling))
    encoding, spelling = _PLAIN.get(field["type"], ("document", "json"))
    if known is None:
        return encoding, parse_type(spelling)
    return _refined(encoding, known, parse_type(spelling), settings)


def _shown(known: PgType | None, wire: PgType) -> PgType:
    """The propagated type where it shows values as the wire's type does; a domain's name says less than the wire."""
    return known if known is not None and lake_type(known) == lake_type(wire) else wire


def _decimal(parameters: Mapping[str, str], known: PgType | None) -> tuple[str, PgType]:
    scale = int(parameters.get("scale", "0"))
    precision = int(parameters.get("connect.decimal.precision", "38"))
    encoding = f"numeric_base64:{scale}"
    if known is not None and known.name == "money":
        return encoding, known
    return encoding, PgType("numeric", (max(precision, scale), scale))


def _refined(encoding: str, known: PgType, wire: PgType, settings: Settings) -> tuple[str, PgType]:
    """What bare strings, numbers and bytes mean once the source's type is known."""
    if known.name in ("numeric", "money"):
        return {"text": "numeric_text", "float": "float"}.get(encoding, encoding), known
    if known.name in ("bit", "bit varying") and encoding == "bool":
        return "bit", known
    if encoding in ("text", "base64"):
        return _refined_text(encoding, known, settings)
    return encoding, _shown(known, wire)


def _refined_text(encoding: str, known: PgType, settings: Settings) -> tuple[str, PgType]:
    if known.name == "bytea":
        return (binary_encoding(settings) if encoding == "text" else "base64"), known
    if encoding == "base64":
        return unknown_encoding(known.name, encoding), known
    return "text", known if known.name in TEXT_TYPES else PgType("text")
