"""Avro schemas as the Connect schemas that they were made of, with what is needed to read their records.

Connect's Avro converters leave what Avro has no word for in properties: `connect.name`, `connect.version`,
`connect.parameters`, `connect.default`, `connect.type`. A schema that no converter wrote has none of them, and means
what Avro says.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdc_lake.decode.codecs import UnreadableError

Mend = Callable[[Any], Any]

_PRIMITIVE = {
    "boolean": "boolean",
    "int": "int32",
    "long": "int64",
    "float": "float",
    "double": "double",
    "bytes": "bytes",
    "string": "string",
}
_NAMED = ("record", "error", "enum", "fixed")
_LOGICAL = {
    ("int", "date"): "org.apache.kafka.connect.data.Date",
    ("int", "time-millis"): "org.apache.kafka.connect.data.Time",
    ("long", "timestamp-millis"): "org.apache.kafka.connect.data.Timestamp",
}
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_PRECISION = "connect.decimal.precision"
_ANY_PRECISION = 64  # what a converter writes for a decimal that names none
_NAMELESS = ("io.confluent.connect.avro.ConnectDefault", "io.confluent.connect.avro.MapEntry")
_ESCAPE = re.compile(r"_u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class Translated:
    """One Avro type: its bare structure for the reader, the Connect schema, and what makes of a value that was read one
    that JSON can hold (None: it is one)."""

    plain: Any
    connect: dict[str, Any]
    mend: Mend | None = None


def translate(schema: Any, references: Sequence[Any] = (), *, unescape: bool = False) -> Translated:
    """`schema` (parsed JSON), whose named types may be in `references`. Raises UnreadableError."""
    translator = _Translator(unescape)
    for one in (*references, schema):
        translator.learn(one, "")
    return translator.type(schema, "")


class _Translator:
    def __init__(self, unescape: bool) -> None:
        self._unescape = unescape
        self._named: dict[str, tuple[dict[str, Any], str]] = {}
        self._done: dict[str, Translated] = {}
        self._open: list[str] = []

    def learn(self, schema: Any, space: str) -> None:
        """Take note of the named types in a schema."""
        if isinstance(schema, list):
            for one in schema:
                self.learn(one, space)
        if not isinstance(schema, dict):
            return
        if schema.get("type") in _NAMED:
            name = _full_name(schema, space)
            space = name.rpartition(".")[0]
            self._named.setdefault(name, (schema, space))
        inner = [schema.get("items"), schema.get("values"), *(f.get("type") for f in schema.get("fields") or ())]
        if isinstance(schema.get("type"), dict | list):
            inner.append(schema["type"])
        for one in inner:
            self.learn(one, space)

    def type(self, schema: Any, space: str, default: Any = None, doc: str | None = None) -> Translated:
        """Any type, with the default and the words of the field that has it."""
        if isinstance(schema, list):
            return self._union(schema, space, doc)
        schema = {"type": schema} if isinstance(schema, str) else schema
        kind = schema["type"]
        if isinstance(kind, dict | list):
            return self.type(kind, space, default, doc)
        if kind in _NAMED:
            return self._once(_full_name(schema, space), default, doc)
        if kind in ("array", "map"):
            return (self._array if kind == "array" else self._map)(schema, space, default, doc)
        if kind in _PRIMITIVE:
            return self._primitive(schema, default, doc)
        own = f"{space}.{kind}"
        return self._once(own if "." not in kind and own in self._named else kind, default, doc)

    def _once(self, name: str, default: Any, doc: str | None) -> Translated:
        if name not in self._named:
            raise _unsupported(f"it names the type {name}, which neither it nor its references define")
        if name in self._open:
            raise _unsupported(f"the type {name} is within itself")
        if name not in self._done:
            self._open.append(name)
            schema, space = self._named[name]
            self._done[name] = self._defined(name, schema, space)
            self._open.pop()
            found = self._done[name]
            plain = found.plain
            self._done[name] = Translated(plain["name"], found.connect, found.mend)
        else:
            found = self._done[name]
            plain = found.plain
        schema = self._named[name][0]
        return Translated(plain, _finished(dict(found.connect), schema, default, doc), found.mend)

    def _defined(self, name: str, schema: dict[str, Any], space: str) -> Translated:
        own = f"t{len(self._done) + len(self._open)}"
        title = schema.get("connect.name") or (name if name not in _NAMELESS else None)
        if schema["type"] == "enum":
            plain = {"type": "enum", "name": own, "symbols": schema["symbols"]}
            return Translated(plain, {"type": "string", "name": schema.get("connect.name")})
        if schema["type"] == "fixed":
            plain = {"type": "fixed", "name": own, "size": schema["size"]}
            return Translated(plain, _bytes(schema))
        fields, plains, mends = [], [], {}
        for field in schema["fields"]:
            read = self.type(field["type"], space, field.get("default"), field.get("doc"))
            called = self._name(field["name"])
            fields.append({**read.connect, "field": called})
            plains.append({"name": called, "type": read.plain})
            if read.mend is not None:
                mends[called] = read.mend
        connect = {"type": "struct", "fields": fields, "name": title}
        return Translated({"type": "record", "name": own, "fields": plains}, connect, _struct(mends))

    def _name(self, name: str) -> str:
        if not self._unescape:
            return name
        # What is beyond 16 bits was escaped in two parts.
        text = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), name)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _union(self, members: list[Any], space: str, doc: str | None) -> Translated:
        others = [m for m in members if m != "null" and not (isinstance(m, dict) and m.get("type") == "null")]
        if len(others) != 1:
            raise _unsupported("it has a union of other than one type and null, for which Connect has no schema")
        read = self.type(others[0], space, None, doc)
        mend = read.mend
        plain = [read.plain if m is others[0] else "null" for m in members]
        optional = None if mend is None else (lambda value: None if value is None else mend(value))
        return Translated(plain, {**read.connect, "optional": len(members) > 1}, optional)

    def _array(self, schema: dict[str, Any], space: str, default: Any, doc: str | None) -> Translated:
        read = self.type(schema["items"], space)
        plain, mend = {"type": "array", "items": read.plain}, read.mend
        fields = read.connect.get("fields") or ()
        if [f["field"] for f in fields] == ["key", "value"] and self._is_entry(schema["items"], space):
            key, value = ({k: v for k, v in f.items() if k != "field"} for f in fields)
            connect = _finished({"type": "map", "keys": key, "values": value}, schema, default, doc)
            mended = mend or (lambda entry: entry)
            return Translated(plain, connect, lambda entries: [list(mended(e).values()) for e in entries])
        connect = _finished({"type": "array", "items": read.connect}, schema, default, doc)
        return Translated(plain, connect, None if mend is None else lambda items: [mend(one) for one in items])

    def _is_entry(self, items: Any, space: str) -> bool:
        """Whether these are the pairs of a map whose keys are no texts."""
        if isinstance(items, str):
            items = self._named.get(f"{space}.{items}" if "." not in items else items, (None, ""))[0]
        entry = isinstance(items, dict) and (items.get("connect.internal.type"), items.get("name"))
        return bool(entry and "MapEntry" in entry)

    def _map(self, schema: dict[str, Any], space: str, default: Any, doc: str | None) -> Translated:
        read = self.type(schema["values"], space)
        mend = read.mend
        connect = {"type": "map", "keys": {"type": "string", "optional": False}, "values": read.connect}
        mended = None if mend is None else (lambda items: {name: mend(one) for name, one in items.items()})
        return Translated({"type": "map", "values": read.plain}, _finished(connect, schema, default, doc), mended)

    def _primitive(self, schema: dict[str, Any], default: Any, doc: str | None) -> Translated:
        kind = schema["type"]
        connect: dict[str, Any] = {"type": _PRIMITIVE[kind]}
        logical = _LOGICAL.get((kind, schema.get("logicalType", "")))
        if kind == "bytes":
            connect = _bytes(schema)
        elif logical is not None:
            connect |= {"name": logical, "version": 1}
        elif kind == "int" and schema.get("connect.type") in ("int8", "int16"):
            connect = {"type": schema["connect.type"]}
        return Translated(kind, _finished(connect, schema, default, doc), _float32 if kind == "float" else None)


def _full_name(schema: Mapping[str, Any], space: str) -> str:
    name, own = str(schema.get("name", "")), schema.get("namespace", space)
    return name if "." in name or not own else f"{own}.{name}"


def _bytes(schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema.get("logicalType") != "decimal":
        return {"type": "bytes"}
    precision = schema.get("precision", _ANY_PRECISION)
    parameters = {"scale": str(schema.get("scale", 0))}
    if precision != _ANY_PRECISION:
        parameters[_PRECISION] = str(precision)
    return {"type": "bytes", "name": _DECIMAL, "version": 1, "parameters": parameters}


def _finished(connect: dict[str, Any], schema: Mapping[str, Any], default: Any, doc: str | None) -> dict[str, Any]:
    """With what the converter left in properties, in the order in which Connect's JSON converter writes it."""
    body = {k: v for k, v in connect.items() if k in ("type", "items", "keys", "values", "fields")}
    parameters = {**connect.get("parameters", {}), **schema.get("connect.parameters", {})}
    # The converter's own order is that of its source: what it did not add itself comes as it was given.
    given = schema.get("connect.parameters", {})
    parameters = {**{k: parameters[k] for k in given}, **{k: v for k, v in parameters.items() if k not in given}}
    default = schema.get("connect.default", default)
    found = {
        "optional": False,
        "name": schema.get("connect.name") or connect.get("name"),
        "version": schema.get("connect.version", connect.get("version")),
        "doc": schema.get("connect.doc") or schema.get("doc") or doc,
        "parameters": parameters or None,
        "default": _default(body, default),
    }
    return {**body, **{k: v for k, v in found.items() if v is not None}}


def _default(connect: Mapping[str, Any], value: Any) -> Any:
    """Avro writes the bytes of a default as characters, Connect's JSON in base64."""
    if connect["type"] == "bytes" and isinstance(value, str):
        return base64.b64encode(value.encode("latin-1", "replace")).decode()
    if connect["type"] == "struct" and isinstance(value, dict):
        return {f["field"]: _default(f, value.get(f["field"])) for f in connect["fields"]}
    if connect["type"] == "array" and isinstance(value, list):
        return [_default(connect["items"], one) for one in value]
    return value


def _struct(mends: Mapping[str, Mend]) -> Mend | None:
    if not mends:
        return None
    pairs = tuple(mends.items())

    def mend(value: dict[str, Any]) -> dict[str, Any]:
        for name, one in pairs:
            value[name] = one(value[name])
        return value

    return mend


def _float32(value: float) -> float:
    """The shortest number that is the same float of 32 bits, of two digits at least, as Java writes it."""
    shortest = str(np.float32(value))
    if "e-4" in shortest and len(shortest.lstrip("-").partition("e")[0]) == 1:
        return float(f"{value:.1e}")
    return float(shortest)


def _unsupported(reason: str) -> UnreadableError:
    return UnreadableError("unsupported_schema", reason)
