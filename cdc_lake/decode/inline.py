"""Cut the payload out of records that carry their schema (`{"schema": …, "payload": …}`).

Connect's JsonConverter repeats the schema byte for byte in every record of a topic: about 4 KB before 600 B of data.
So the prefix is compared, not parsed: each distinct prefix is parsed once, and whole columns are cut at its length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

_OPEN = b'{"schema":'
_PAYLOAD = b',"payload":'
# A record with a new prefix costs a JSON parse. More distinct prefixes than this in one batch are not schemas.
_MAX_PREFIXES = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """Payloads of one batch, and for each row which schema it had (index into `schemas`; null: none); by row, the error
    class and the reason of what could not be read."""

    payloads: pa.Array
    schema_index: pa.Array
    schemas: tuple[str, ...]
    faults: Mapping[int, tuple[str, str]] = field(default_factory=dict)


class InlineSchemas:
    """Remembers the prefixes of one topic's keys or values."""

    def __init__(self) -> None:
        self._prefixes: dict[bytes, str | None] = {}
        self._last: bytes | None = None

    def cut(self, values: pa.Array, shared: bytes = b"") -> Cut:
        """Cut `values` (binary, null for tombstones) to their payloads; records without a schema pass as they are.

        `shared` is a prefix that all present values have and that was left off.
        """
        if shared:
            first = pc.index(pc.is_valid(values), True).as_py()
            prefix = self._prefix_of(shared + values[first].as_py())
            whole = prefix is None or not shared.startswith(prefix) or pc.min(pc.binary_length(values)).as_py() == 0
            if prefix is not None and not whole:
                self._last = prefix
                # The last brace closes what the prefix opened.
                rest = pc.binary_slice(values, 0, -1)
                return self._labelled(prepended(shared[len(prefix) :], rest), prefix)
            values = prepended(shared, values)
        if self._last is not None:
            matches = pc.starts_with(values, self._last)
            if pc.all(matches).as_py() is not False:
                return self._whole(values, self._last)
        return self._mixed(values)

    def _whole(self, values: pa.Array, prefix: bytes) -> Cut:
        return self._labelled(pc.binary_slice(values, len(prefix), -1), prefix)

    def _labelled(self, payloads: pa.Array, prefix: bytes) -> Cut:
        schema = self._prefixes[prefix]
        if schema is None:
            return Cut(payloads, pa.nulls(len(payloads), pa.int32()), ())
        index = pc.if_else(pc.is_valid(payloads), pa.scalar(0, pa.int32()), pa.scalar(None, pa.int32()))
        return Cut(payloads, index, (schema,))

    def _mixed(self, values: pa.Array) -> Cut:
        payloads, index = values, pa.nulls(len(values), pa.int32())
        schemas: list[str] = []
        pending = pc.fill_null(pc.starts_with(values, _OPEN), False)
        for _ in range(_MAX_PREFIXES):
            first = pc.index(pending, True).as_py()
            if first < 0:
                break
            prefix = self._prefix_of(values[first].as_py())
            if prefix is None:  # not what JsonConverter writes: left whole, for the envelope check to judge
                pending = pc.and_not(pending, pc.equal(values, values[first]))
                continue
            mask = pc.and_(pending, pc.fill_null(pc.starts_with(values, prefix), False))
            payloads = pc.if_else(mask, pc.binary_slice(values, len(prefix), -1), payloads)
            schema = self._prefixes[prefix]
            if schema is not None:
                index = pc.if_else(mask, pa.scalar(len(schemas), pa.int32()), index)
                schemas.append(schema)
            pending = pc.and_not(pending, mask)
            self._last = prefix
        return Cut(payloads, index, tuple(schemas))

    def _prefix_of(self, value: bytes) -> bytes | None:
        for prefix in self._prefixes:
            if value.startswith(prefix):
                return prefix
        try:
            text = value.decode("utf-8")
            _, end = json.JSONDecoder().raw_decode(text, len(_OPEN))
        except ValueError:
            return None
        schema = text[len(_OPEN) : end]
        prefix = _OPEN + schema.encode() + _PAYLOAD
        if not value.startswith(prefix):
            return None
        self._prefixes[prefix] = None if schema == "null" else schema
        return prefix


def prepended(prefix: bytes, values: pa.Array) -> pa.Array:
    """`values` with `prefix` before each that is there."""
    nothing = pa.scalar(b"", values.type)
    return pc.binary_join_element_wise(pa.scalar(prefix, values.type), values, nothing) if prefix else values


def schema_id(value_schema: str, key_schema: str | None) -> str:
    """A stable name of a schema version: equal schemas have equal ids, in every run and on every machine."""
    return hashlib.sha256(f"{value_schema}\0{key_schema or ''}".encode()).hexdigest()[:16]
