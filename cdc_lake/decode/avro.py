"""Avro records as the JSON that Connect's JSON converter writes of them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from cdc_lake.decode.avro_schema import translate
from cdc_lake.decode.codecs import UnreadableError
from cdc_lake.errors import ConfigError
from cdc_lake.extras import is_there

# A control character, behind an even number of backslashes.
_CONTROL = re.compile(r"(?<!\\)((?:\\\\)*)\\u00([01][0-9a-f])")


class AvroCodec:
    """Reads records of one writer's schema.

    Nothing is rounded: decimals and binary stay the bytes that they are (base64), a float of 32 bits is written as Java
    writes it, and what JSON has no number for is text (`"NaN"`).
    """

    def __init__(self, text: str, references: Sequence[tuple[str, str]] = (), *, unescape: bool = False) -> None:
        from fastavro import parse_schema, schemaless_reader

        try:
            found = translate(json.loads(text), [json.loads(one) for _, one in references], unescape=unescape)
            self._plain = parse_schema(found.plain)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadableError("unsupported_schema", f"it is no Avro schema: {error}") from None
        self._read, self._mend = schemaless_reader, found.mend
        self.definition = json.dumps(found.connect, ensure_ascii=False, separators=(",", ":"))

    def payload(self, body: bytes) -> str | None:
        """The record as compact JSON; None for null. Raises UnreadableError."""
        stream = io.BytesIO(body)
        try:
            value = self._read(stream, self._plain, None)
        except (EOFError, IndexError, ValueError, OverflowError, MemoryError, KeyError, TypeError) as error:
            raise UnreadableError("not_its_schema", f"the bytes are no record of it: {error or 'they end'}") from None
        if stream.tell() != len(body):
            raise UnreadableError("not_its_schema", f"{len(body) - stream.tell()} bytes are left behind the record")
        if value is None:
            return None
        if self._mend is not None:
            value = self._mend(value)
        try:
            text = _ENCODE(value)
        except ValueError:
            text = _ENCODE(_quoted(value))
        return _CONTROL.sub(lambda m: f"{m[1]}\\u00{m[2].upper()}", text) if "\\u00" in text else text


def require() -> None:
    """Raise ConfigError when what reads Avro is not installed."""
    if not is_there("fastavro"):
        raise ConfigError(
            "The configuration names a schema registry, and what reads Avro is not installed.",
            why="Python does not find fastavro.",
            next="pip install 'cdc-lake[registry]'",
            code="extra_missing",
        )


def _quoted(value: Any) -> Any:
    """With texts for the numbers that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _quoted(one) for name, one in value.items()}
    return [_quoted(one) for one in value] if isinstance(value, list) else value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


# What was just read holds no circle to look for.
_ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_base64
).encode
