"""Which schema version of a table holds from which record on, and how that is written down in the lake."""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from cdc_lake.events import SchemaVersion, TableId, TopicPartition
from cdc_lake.land.tables import SCHEMAS

# Asks the source's catalogue what it says of the columns of these tables; a table it cannot tell of is left out.
AskColumns = Callable[[Sequence[TableId]], Mapping[TableId, str]]


class SchemaLog:
    """The versions that are written down. One that comes back after another is written down again.

    Idempotence: records that are read again after a crash add nothing.
    """

    def __init__(self, recorded: Iterable[SchemaVersion] = ()) -> None:
        self._held: dict[tuple[TableId, TopicPartition], list[tuple[int, str]]] = defaultdict(list)
        self._columns: set[tuple[TableId, str, str]] = set()
        for version in recorded:
            self._note(version)

    def fresh(self, versions: Iterable[SchemaVersion], ask: AskColumns | None = None) -> list[SchemaVersion]:
        """Those of `versions` that are not written down yet; from now on they count as such.

        `ask` is asked about the columns of their tables, and what it says goes with them.
        """
        found: list[SchemaVersion] = []
        for version in versions:
            if self._at(version) != version.id:
                self._note(version)
                found.append(version)
        sent = [v for v in found if v.kind == "connect"]
        told = ask(sorted({v.table for v in sent})) if ask is not None and sent else {}
        for version in sent:
            text = told.get(version.table)
            if text is not None and (version.table, version.id, text) not in self._columns:
                seen = replace(version, kind="columns", definition=text, key_definition=None)
                self._note(seen)
                found.append(seen)
        return found

    def _at(self, version: SchemaVersion) -> str | None:
        held = self._held[version.table, version.tp]
        place = bisect_right(held, version.first_offset, key=lambda entry: entry[0])
        return held[place - 1][1] if place else None

    def _note(self, version: SchemaVersion) -> None:
        if version.kind == "columns":
            self._columns.add((version.table, version.id, version.definition))
        else:
            insort(self._held[version.table, version.tp], (version.first_offset, version.id))


def version_rows(versions: Sequence[SchemaVersion], settings: Mapping[str, str]) -> pa.Table | None:
    """`versions` as rows of the lake's `schemas`; `settings` are the connector's modes. None for none."""
    if not versions:
        return None
    held, now = json.dumps(dict(settings)), datetime.now(UTC)
    rows = [
        {
            "schema_id": v.id,
            "schema": v.table.schema,
            "table": v.table.name,
            "topic": v.tp.topic,
            "kind": v.kind,
            "definition": v.definition,
            "key_definition": v.key_definition,
            "settings": held,
            "first_partition": v.tp.partition,
            "first_offset": v.first_offset,
            "recorded_at": now,
        }
        for v in versions
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS)


def recorded_versions(rows: pa.Table) -> list[SchemaVersion]:
    """The versions in rows of the lake's `schemas`."""
    return [
        SchemaVersion(
            row["schema_id"],
            TableId(row["schema"], row["table"]),
            row["kind"],
            row["definition"] if row["kind"] == "columns" else "",
            None,
            TopicPartition(row["topic"], row["first_partition"]),
            row["first_offset"],
        )
        for row in rows.to_pylist()
    ]
