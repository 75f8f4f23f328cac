"""JSON behind the number of its schema: the record is there as it is, and the schema becomes the Connect schema that it
was made of.

Connect's JSON Schema converter writes the name as `title`, and in properties what JSON Schema has no word for:
`connect.type`, `connect.version`, `connect.parameters`, `connect.index`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cdc_lake.decode.codecs import UnreadableError

_TYPES = {"integer": "int64", "number": "double", "string": "string", "boolean": "boolean"}
# The converter's words for what Connect's JSON calls otherwise.
_CONNECT = {"float32": "float", "float64": "double"}


class JsonSchemaCodec:
    """Reads records of one JSON Schema."""

    def __init__(self, text: str, references: Sequence[tuple[str, str]] = ()) -> None:
        try:
            others = {name: json.loads(other) for name, other in references}
            connect = _Reader(json.loads(text), others).type({"$ref": "#"})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadableError("unsupported_schema", f"it is no JSON Schema of records: {error}") from None
        self.definition = json.dumps(connect, ensure_ascii=False, separators=(",", ":"))

    def payload(self, body: bytes) -> str | None:
        """The record as it came. Raises UnreadableError when it is not UTF-8."""
        return _text(body)


class PlainConnectCodec:
    """Reads records whose registered schema is Connect's own, as it would stand beside them."""

    def __init__(self, text: str) -> None:
        try:
            self.definition = json.dumps(dict(json.loads(text)), ensure_ascii=False, separators=(",", ":"))
        except (ValueError, TypeError) as error:
            raise UnreadableError("unsupported_schema", f"it is no Connect schema: {error}") from None

    def payload(self, body: bytes) -> str | None:
        """The record as it came. Raises UnreadableError when it is not UTF-8."""
        return _text(body)


def _text(body: bytes) -> str | None:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError("invalid_utf8", f"byte {error.start} behind the number is not UTF-8") from None
    return None if text == "null" else text


class _Reader:
    def __init__(self, document: Any, others: Mapping[str, Any]) -> None:
        self._others, self._open = {"": document, **others}, list[tuple[str, str]]()

    def type(self, schema: Any, within: str = "") -> dict[str, Any]:
        """The Connect schema of a JSON Schema that stands in the document called `within`."""
        if not isinstance(schema, dict):
            raise UnreadableError("unsupported_schema", f"{schema!r} stands where a schema should")
        if "$ref" in schema:
            return self._reference(schema, within)
        schema, nullable = _without_null(schema)
        if "$ref" in schema:
            return {**self._reference(schema, within), "optional": nullable}
        body = self._body(schema, within)
        found = {
            "optional": nullable,
            "name": schema.get("title"),
            "version": schema.get("connect.version"),
            "doc": schema.get("description") or schema.get("connect.doc"),
            "parameters": schema.get("connect.parameters"),
            "default": schema.get("default"),
        }
        return {**body, **{k: v for k, v in found.items() if v is not None}}

    def _reference(self, schema: Mapping[str, Any], within: str) -> dict[str, Any]:
        document, _, pointer = str(schema["$ref"]).partition("#")
        document = document or within
        if document not in self._others:
            raise UnreadableError("unsupported_schema", f"it refers to {document}, which is none of its references")
        place = (document, pointer)
        if place in self._open:
            raise UnreadableError("unsupported_schema", f"the type {schema['$ref']} is within itself")
        target = self._others[document]
        for part in pointer.split("/")[1:]:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        self._open.append(place)
        found = self.type(target, document)
        self._open.pop()
        return found

    def _body(self, schema: Mapping[str, Any], within: str) -> dict[str, Any]:
        kind, told = schema.get("type"), schema.get("connect.type")
        if told == "map" or (kind == "object" and "properties" not in schema and "additionalProperties" in schema):
            return self._map(schema, within)
        if kind == "object":
            return {"type": "struct", "fields": self._fields(schema, within)}
        if kind == "array":
            return {"type": "array", "items": self.type(schema.get("items", {"type": "string"}), within)}
        if told is not None:
            return {"type": _CONNECT.get(told, told)}
        if "enum" in schema or "const" in schema:
            return {"type": "string"}
        if kind not in _TYPES:
            raise UnreadableError("unsupported_schema", f"it has the type {kind!r}")
        return {"type": _TYPES[kind]}

    def _fields(self, schema: Mapping[str, Any], within: str) -> list[dict[str, Any]]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        last = len(properties)
        ordered = sorted(properties, key=lambda name: properties[name].get("connect.index", last))
        by_converter = any("connect.index" in one for one in properties.values())
        found = []
        for name in ordered:
            field = self.type(properties[name], within)
            # Connect says of each field whether it may be null; others, which fields have to be there.
            absent = not by_converter and name not in (schema.get("required") or ())
            found.append({**field, "optional": field["optional"] or absent, "field": name})
        return found

    def _map(self, schema: Mapping[str, Any], within: str) -> dict[str, Any]:
        if schema.get("type") == "array":  # keys that are no texts
            entry = {f.pop("field"): f for f in self.type(schema["items"], within)["fields"]}
            return {"type": "map", "keys": entry["key"], "values": entry["value"]}
        values = schema.get("additionalProperties")
        read = self.type(values if isinstance(values, dict) and values else {"type": "string"}, within)
        return {"type": "map", "keys": {"type": "string", "optional": False}, "values": read}


def _without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema of what is not null, and whether null is allowed beside it."""
    kind = schema.get("type")
    if isinstance(kind, list):
        rest = [one for one in kind if one != "null"]
        return {**schema, "type": rest[0] if len(rest) == 1 else rest}, "null" in kind
    for word in ("oneOf", "anyOf"):
        if word not in schema:
            continue
        others = [one for one in schema[word] if one.get("type") != "null"]
        if len(others) != 1:
            raise UnreadableError("unsupported_schema", "it has a choice of several types, for which Connect has none")
        outer = {k: v for k, v in schema.items() if k not in (word, "connect.index")}
        inner, null = _without_null(others[0])
        return {**outer, **inner}, null or len(others) < len(schema[word])
    return schema, False
