"""A batch's keys and values as payloads and schemas, whatever format each record has."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cdc_lake.decode.inline import Cut, InlineSchemas, prepended
from cdc_lake.decode.wire import MAGIC, WireFormat, begins_with_zero
from cdc_lake.events import RecordBatch

# What stands for a record that was not read: as a value no event, as a key no JSON.
_NO_EVENT, _NO_KEY = b"{}", b"-"


class Cutter:
    """Tells records with an inline schema, plain JSON, and those of a registry apart, and remembers the schemas of each
    topic's keys and values."""

    def __init__(self, wire: WireFormat) -> None:
        self._wire = wire
        self._values: dict[str, InlineSchemas] = {}
        self._keys: dict[str, InlineSchemas] = {}

    def values(self, batch: RecordBatch) -> Cut:
        """The payloads of a batch's values."""
        inline = self._values.setdefault(batch.tp.topic, InlineSchemas())
        if not batch.prefix.startswith(MAGIC):
            return self._cut(inline, batch.values, batch.prefix, _NO_EVENT)
        return self._cut(inline, prepended(batch.prefix, batch.values), b"", _NO_EVENT)

    def keys(self, batch: RecordBatch) -> Cut:
        """The payloads of a batch's keys."""
        return self._cut(self._keys.setdefault(batch.tp.topic, InlineSchemas()), batch.keys, b"", _NO_KEY)

    def _cut(self, inline: InlineSchemas, values: pa.Array, shared: bytes, unread: bytes) -> Cut:
        wire = begins_with_zero(values) if not shared else None
        rows = pc.indices_nonzero(wire).to_pylist() if wire is not None else []
        if not rows:
            return inline.cut(values, shared)
        found = self._wire.read(values, rows)
        texts = [unread if row in found.faults else text for row, text in zip(rows, found.payloads, strict=True)]
        read, index = pa.array(texts, values.type), pa.array(found.schema_index, pa.int32())
        definitions = tuple(found.definitions)
        if len(rows) == len(values):
            return Cut(read, index, definitions, found.faults)
        others = inline.cut(pc.if_else(wire, pa.scalar(None, values.type), values))
        index = pc.add(index, pa.scalar(len(others.schemas), pa.int32()))
        return Cut(
            pc.replace_with_mask(others.payloads, wire, read),
            pc.replace_with_mask(others.schema_index, wire, index),
            (*others.schemas, *definitions),
            found.faults,
        )
