"""Values that begin with byte 0 and the number of their schema, as Confluent's serializers write them.

::

    0 │ number of the schema, 4 bytes, the highest first │ the record, written with that schema

JSON never begins with byte 0, so each record says for itself what it is: a topic may change its format in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cdc_lake.decode.avro import require
from cdc_lake.decode.codecs import Codec, UnreadableError, codec_of
from cdc_lake.registry.schemas import Refused, Schemas

MAGIC = b"\0"
_HEAD = 5
_SHORT = Refused("not_wire_format", "it begins with byte 0 and ends before the number of its schema")
_NO_REGISTRY = "name one with `registry.url` in cdc-lake.yaml, then replay it"


@dataclass(slots=True)
class WireRecords:
    """Records of one column: for each its payload as JSON and the place of its schema in `definitions` (None: it is
    null, or unread); by row, why one was not read."""

    payloads: list[bytes | None] = field(default_factory=list)
    schema_index: list[int | None] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)


class WireFormat:
    """Reads records through a registry; None: the configuration names none, and they are refused."""

    def __init__(self, schemas: Schemas | None = None, *, unescape: bool = False) -> None:
        self.schemas, self._unescape = schemas, unescape
        self._codecs: dict[int, Codec | Refused] = {}

    def read(self, values: pa.Array, rows: Sequence[int]) -> WireRecords:
        """The records of a column in these rows, each of which begins with byte 0. `faults` has them by row."""
        found = WireRecords()
        places: dict[int, int] = {}
        for row, value in zip(rows, values.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
            number = int.from_bytes(value[1:_HEAD])
            codec = self._codecs.get(number) or (self._made(number) if len(value) >= _HEAD else _SHORT)
            payload = None
            if isinstance(codec, Refused):
                found.faults[row] = (codec.error_class, codec.reason)
            else:
                try:
                    payload = codec.payload(value[_HEAD:])
                except UnreadableError as error:
                    found.faults[row] = (error.error_class, f"schema {number}: {error.reason}")
            if payload is None or isinstance(codec, Refused):
                found.payloads.append(None)
                found.schema_index.append(None)
                continue
            if number not in places:
                places[number] = len(found.definitions)
                found.definitions.append(codec.definition)
            found.payloads.append(payload.encode())
            found.schema_index.append(places[number])
        return found

    def _made(self, number: int) -> Codec | Refused:
        """The codec of a number, kept for ever: a schema never changes. One that is not there may come to be."""
        if self.schemas is None:
            return Refused("no_registry", f"it needs the schema {number} of a registry; {_NO_REGISTRY}")
        schema = self.schemas.get(number)
        if isinstance(schema, Refused):
            return schema
        try:
            codec: Codec | Refused = codec_of(schema, unescape=self._unescape)
        except UnreadableError as error:
            codec = Refused(error.error_class, f"schema {number} of the registry cannot be read: {error.reason}")
        self._codecs[number] = codec
        return codec


def wire_format(schemas: Schemas | None, settings: Mapping[str, str]) -> WireFormat:
    """Reads what a connector with these settings sends. Raises ConfigError when what the registry needs is missing."""
    if schemas is not None:
        require()
    return WireFormat(schemas, unescape=settings.get("field.name.adjustment.mode") == "avro_unicode")


def numbers(values: pa.Array, prefix: bytes = b"") -> set[int]:
    """The schemas that a column's records need; `prefix` is what was left off each of them."""
    if prefix:
        return {int.from_bytes(prefix[1:_HEAD])} if prefix.startswith(MAGIC) else set()
    heads = pc.unique(pc.binary_slice(values, 0, _HEAD)).to_pylist()
    return {int.from_bytes(head[1:]) for head in heads if head is not None and head[:1] == MAGIC and len(head) == _HEAD}


def begins_with_zero(values: pa.Array) -> pa.Array:
    """Which values are of this format; never null."""
    return pc.fill_null(pc.starts_with(values, MAGIC), False)
