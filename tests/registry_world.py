"""What a schema registry's side of Kafka does, in small: Connect's data written with its converters, and a registry.

`avro_of` and `json_schema_of` are what Connect's converters make of a schema; the tests on the stack hold them against
a real converter.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import fastavro

from cdc_lake.registry.schemas import Refused, RegisteredSchema

_AVRO = {"int8": "int", "int16": "int", "int32": "int", "int64": "long", "float": "float", "double": "double"}
_AVRO_LOGICAL = {
    "org.apache.kafka.connect.data.Date": "date",
    "org.apache.kafka.connect.data.Time": "time-millis",
    "org.apache.kafka.connect.data.Timestamp": "timestamp-millis",
}
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass
class FakeRegistry:
    """Schemas by number, as a sink's registry has them; `away` says in words that it does not answer."""

    known: dict[int, RegisteredSchema] = field(default_factory=dict)
    away: str = ""
    wanted: set[int] = field(default_factory=set)

    def add(self, kind: str, text: str, references: tuple[tuple[str, str], ...] = ()) -> int:
        """The number of a schema."""
        number = len(self.known) + 1
        self.known[number] = RegisteredSchema(number, kind, text, references)
        return number

    def want(self, numbers: Collection[int]) -> None:
        self.wanted |= set(numbers)

    def awaits(self) -> str:
        return self.away if self.wanted else ""

    def get(self, number: int) -> RegisteredSchema | Refused:
        assert not self.away, "what is decoded has been waited for"
        return self.known.get(number) or Refused("unknown_schema", f"the registry has no schema {number}")


def avro_of(connect: Mapping[str, Any], seen: set[str] | None = None) -> Any:
    """The Avro schema that Connect's converter writes for a Connect schema."""
    seen = set() if seen is None else seen
    bare = _bare_avro(connect, seen)
    if isinstance(bare, dict) or any(k in connect for k in ("name", "version", "doc", "parameters", "default")):
        bare = bare if isinstance(bare, dict) else {"type": bare}
        bare |= {f"connect.{k}": connect[k] for k in ("doc", "version", "parameters", "name") if connect.get(k)}
        if "default" in connect:
            bare["connect.default"] = _avro_default(connect, connect["default"])
    if isinstance(bare, dict) and bare.get("type") == "seen":
        bare = bare["name"]
    if not connect.get("optional"):
        return bare
    return [bare, "null"] if "default" in connect else ["null", bare]


def _avro_default(connect: Mapping[str, Any], value: Any) -> Any:
    return base64.b64decode(value).decode("latin-1") if connect["type"] == "bytes" else value


def _bare_avro(connect: Mapping[str, Any], seen: set[str]) -> Any:
    kind, name, parameters = connect["type"], connect.get("name"), connect.get("parameters") or {}
    if kind == "struct":
        return _record(connect, seen)
    if kind == "array":
        return {"type": "array", "items": avro_of(connect["items"], seen)}
    if kind == "map":
        return {"type": "map", "values": avro_of(connect["values"], seen)}
    if name == _DECIMAL:
        precision = int(parameters.get("connect.decimal.precision", 64))
        return {"type": "bytes", "scale": int(parameters["scale"]), "precision": precision, "logicalType": "decimal"}
    bare = _AVRO.get(kind, kind)
    if name in _AVRO_LOGICAL:
        return {"type": bare, "logicalType": _AVRO_LOGICAL[name]}
    return {"type": bare, "connect.type": kind} if kind in ("int8", "int16") else bare


def _record(connect: Mapping[str, Any], seen: set[str]) -> dict[str, Any]:
    full = connect.get("name") or f"ConnectDefault{len(seen) + 1 if seen else ''}"
    space, _, own = full.rpartition(".")
    if full in seen:
        return {"type": "seen", "name": full}
    seen.add(full)
    fields = []
    for one in connect["fields"]:
        entry = {"name": one["field"], "type": avro_of(one, seen)}
        if one.get("optional") or "default" in one:
            entry["default"] = _avro_default(one, one["default"]) if "default" in one else None
        fields.append(entry)
    return {"type": "record", "name": own, "fields": fields} | ({"namespace": space} if space else {})


def avro_value(connect: Mapping[str, Any], value: Any) -> Any:
    """What is written in Avro for a value of Connect's JSON."""
    if value is None:
        return None
    writes: dict[str, Callable[[], Any]] = {
        "bytes": lambda: base64.b64decode(value),
        "float": lambda: float(_NUMBERS.get(value, value)),
        "double": lambda: float(_NUMBERS.get(value, value)),
        "struct": lambda: {f["field"]: avro_value(f, value[f["field"]]) for f in connect["fields"]},
        "array": lambda: [avro_value(connect["items"], one) for one in value],
        "map": lambda: {k: avro_value(connect["values"], one) for k, one in value.items()},
    }
    return writes[connect["type"]]() if connect["type"] in writes else value


def avro_bytes(schema: Any, value: Any) -> bytes:
    """A record as fastavro writes it, without its logical types: the value is what they stand for."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(_without_logical(schema)), value)
    return out.getvalue()


def _without_logical(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _without_logical(v) for k, v in schema.items() if k not in ("logicalType", "default")}
    return [_without_logical(one) for one in schema] if isinstance(schema, list) else schema


def wire(number: int, body: bytes) -> bytes:
    """A record behind the number of its schema."""
    return struct.pack(">bI", 0, number) + body


def json_schema_of(connect: Mapping[str, Any], index: int | None = None) -> dict[str, Any]:
    """The JSON Schema that Connect's converter writes for a Connect schema."""
    kind = connect["type"]
    names = {"string": "string", "boolean": "boolean", "bytes": "string", "float": "number", "double": "number"}
    body: dict[str, Any] = {"type": names.get(kind, "integer")}
    if kind in ("int8", "int16", "int32", "int64", "bytes"):
        body["connect.type"] = kind
    elif kind in ("float", "double"):
        body["connect.type"] = {"float": "float32", "double": "float64"}[kind]
    elif kind == "struct":
        properties = {f["field"]: json_schema_of(f, i) for i, f in enumerate(connect["fields"])}
        # The converter keeps no order but that of the index.
        body = {"type": "object", "properties": dict(sorted(properties.items()))}
    elif kind == "array":
        body = {"type": "array", "items": json_schema_of(connect["items"])}
    elif kind == "map":
        body = {
            "type": "object",
            "connect.type": "map",
            "additionalProperties": json_schema_of(connect["values"]),
        }
    if connect.get("name"):
        body["title"] = connect["name"]
    body |= {f"connect.{k}": connect[k] for k in ("version", "parameters") if k in connect}
    if "default" in connect:
        body["default"] = connect["default"]
    if connect.get("optional"):
        body = {"oneOf": [{"type": "null"}, body]}
    return body if index is None else {**body, "connect.index": index}
