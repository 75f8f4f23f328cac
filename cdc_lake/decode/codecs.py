"""How the bytes behind a schema's number become what Connect's JSON converter would have written of the same record.

A codec is made once of each schema. What it yields is the converter's `payload` and `schema`, so that whatever comes
behind it (types, folds, `changes`, `verify`) sees no difference between formats.
"""

from __future__ import annotations

from typing import Protocol

from cdc_lake.registry.schemas import RegisteredSchema


class Codec(Protocol):
    """Reads what was written with one schema."""

    @property
    def definition(self) -> str:
        """The schema as Connect's JSON converter writes it beside a payload."""

    def payload(self, body: bytes) -> str | None:
        """The record as compact JSON; None for null. Raises UnreadableError when `body` does not fit the schema."""


class UnreadableError(Exception):
    """Bytes or a schema that cannot be read: the error class of the dead letter, and the reason in words."""

    def __init__(self, error_class: str, reason: str) -> None:
        super().__init__(reason)
        self.error_class, self.reason = error_class, reason


def codec_of(schema: RegisteredSchema, *, unescape: bool = False) -> Codec:
    """The codec of a schema. Raises UnreadableError.

    `unescape`: the names of fields are written with `_uXXXX` for what Avro's names cannot hold, as Debezium's
    `field.name.adjustment.mode=avro_unicode` does.
    """
    from cdc_lake.decode.avro import AvroCodec
    from cdc_lake.decode.json_schema import JsonSchemaCodec, PlainConnectCodec

    match schema.kind:
        case "AVRO":
            return AvroCodec(schema.text, schema.references, unescape=unescape)
        case "JSON":
            return JsonSchemaCodec(schema.text, schema.references)
        case "KCONNECT":
            return PlainConnectCodec(schema.text)
    raise UnreadableError("unsupported_schema", f"its type is {schema.kind}; what can be read is Avro and JSON Schema")
