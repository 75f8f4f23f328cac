"""Rows that came without a schema, by what the source's catalogue says of their tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow.compute as pc

from cdc_lake.decode.inline import schema_id
from cdc_lake.decode.records import TableRows
from cdc_lake.events import SchemaVersion, TableId, TopicPartition

# How soon the source is asked again for a table that its catalogue did not have, or when it was away.
_SECONDS = 30.0


class Catalogue:
    """Entries of the source's catalogue, asked for when a table is met that they do not have. `ask` gives all entries,
    none when the source is away; None: there is no source to ask."""

    def __init__(self, ask: Callable[[], Mapping[TableId, str]] | None) -> None:
        self._ask, self._next = ask, 0.0
        self._entries: Mapping[TableId, str] = {}

    def described(self, rows: Sequence[TableRows]) -> tuple[list[TableRows], list[SchemaVersion]]:
        """`rows` with the catalogue's version where they had none and it is at hand, and these versions."""
        plain = {t.table for t in rows if t.rows["__schema_id"].null_count}
        if plain - self._entries.keys() and self._ask is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS
            self._entries = self._ask()
        described, versions = [], []
        for part in rows:
            entry = self._entries.get(part.table)
            if part.table not in plain or entry is None:
                described.append(part)
                continue
            tp = TopicPartition(part.topic, part.rows["__partition"][0].as_py())
            first = part.rows["__offset"][0].as_py()
            version = SchemaVersion(schema_id(entry, None), part.table, "catalogue", entry, None, tp, first)
            versions.append(version)
            ids = pc.fill_null(part.rows["__schema_id"], version.id)
            column = part.rows.schema.get_field_index("__schema_id")
            described.append(TableRows(part.topic, part.table, part.rows.set_column(column, "__schema_id", ids)))
        return described, versions
