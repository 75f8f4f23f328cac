"""`verify --repair`: put rows that differ right through the log, where every read model follows.

1. `verify` has compared a table in one snapshot of the source, at that snapshot's position in the lake's order.
2. The rows that differ are read in the same snapshots: what the source has becomes an `r`, what it lacks a `d`.
3. They are appended to the table's log, in chunks. Each bears the position as its place: behind all that the snapshot
   sees, before all that it does not, so that what is streamed meanwhile or later wins.

Idempotence: a table's repairs have offsets of their own, landed as Kafka's are, so a second repair that began from the
same state is fenced. Killed between two chunks, what is left differs still and is repaired by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cdc_lake.decode.inline import schema_id
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout, tables
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.land.store import DeltaStore
from cdc_lake.project.snapshot import TableState
from cdc_lake.query.found import Found
from cdc_lake.repair.images import KeyWriter, lake_image, source_image

_CHUNK_KEYS = 50_000
_CHECKED_KEYS = 200


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a table that differed: `repaired`, `would repair` or `refused`, with the reason.

    `rows` are those that were put right.
    """

    table: TableId
    outcome: str
    rows: int
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The shape of `verify --repair --json`."""
        return {"table": str(self.table), "outcome": self.outcome, "rows": self.rows, "reason": self.reason}


@dataclass(slots=True)
class Repairer:
    """Repairs tables of one source. `mend` takes what `Verifier.repair` found; `done` says what became of each."""

    settings: dict[str, str]
    dry_run: bool = False
    done: list[Repaired] = field(default_factory=list)

    def mend(self, found: Found) -> None:
        """Repair one table, or write down why it cannot be. Raises LakeError when the lake cannot be written."""
        waits = found.cut < found.position
        if found.report.ok and not waits:
            return
        report = found.report
        rows = report.missing + report.extra + report.different
        reason = _why_not(found)
        if reason is not None:
            self.done.append(Repaired(report.table, "refused", 0, reason))
            return
        if not self.dry_run and found.table is not None:
            _Writer(found, found.table, self.settings).write()
        if rows:
            self.done.append(Repaired(report.table, "would repair" if self.dry_run else "repaired", rows))


def _why_not(found: Found) -> str | None:
    again = f"read the whole table again: cdc-lake connector snapshot NAME {found.report.table}"
    if found.table is None or found.table.shapes is None:
        return f"the lake holds nothing of it; {again}"
    if found.table.shapes.keyed != any(p.key for p in found.comparison.columns):
        return f"its key in the lake is not its key in the source; {again} --type blocking"
    if found.report.missing and found.table.shapes.keyed and _key_writer(found, found.table) is None:
        return f"how the connector writes its key cannot be told, so no missing row can be added; {again}"
    return None


def _key_writer(found: Found, table: TableState) -> KeyWriter | None:
    """A writer of keys that agrees with the keys that the lake has; None when there is none."""
    if table.shapes is None:
        return None
    writer = KeyWriter.of(table.shapes.target.key_columns)
    rows = found.comparison.lake_rows
    if writer is None or rows is None:
        return None
    texts = {p.name: p.lake for p in found.comparison.columns}
    listed = ", ".join(texts[name] for name in writer.names)
    sample = found.comparison.con.execute(f"SELECT k, {listed} FROM ({rows}) l LIMIT {_CHECKED_KEYS}").fetchall()
    return writer if all(writer.write(values) == key for key, *values in sample) else None


@dataclass(slots=True)
class _Row:
    """A row to append: an `r` with the source's image, or a `d` with the lake's."""

    op: str
    key: str | None
    image: str


@dataclass(slots=True)
class _Writer:
    """Writes the repair of one table."""

    found: Found
    table: TableState
    settings: dict[str, str]

    def write(self) -> None:
        """Append all rows; then, in a row of its own that no view shows, that the table is right at the position.

        That last row lets the cut go on where rows of the table never came.
        """
        lake, source, name = self.found.state.lake, self.found.state.source, self.table.table
        path, options = layout.log_path(lake.root, source, name), dict(lake.options) if lake.options else None
        tp = TopicPartition(tables.repair_topic(source), 0)
        log = AppendTable(path, tables.LOG, store=DeltaStore(options))
        stored = log.take_over([tp]).get(tp)
        if stored != self.table.log.positions.get((tp.topic, tp.partition)):
            raise _overtaken(name)
        schema = self._record_schema(options)
        at = tables.REPAIR_OFFSETS if stored is None else stored
        for rows in [*self._chunks(), [_Row("x", None, "")]]:
            log.append(self._log_rows(rows, at, schema), [Span(tp, at, at + len(rows))])
            at += len(rows)

    def _record_schema(self, options: dict[str, str] | None) -> str:
        """Schemas first: rows must never be ahead of what explains them."""
        lake, source, name = self.found.state.lake, self.found.state.source, self.table.table
        definition = json.dumps(dict(self.found.entry), ensure_ascii=False)
        known = schema_id(definition, "repair")
        row = {
            "schema_id": known,
            "schema": name.schema,
            "table": name.name,
            "topic": tables.repair_topic(source),
            "kind": "repair",
            "definition": definition,
            "settings": json.dumps(self.settings),
            "first_partition": 0,
            "first_offset": tables.REPAIR_OFFSETS,
            "recorded_at": datetime.now(UTC),
        }
        schemas = AppendTable(layout.schemas_path(lake.root, source), tables.SCHEMAS, store=DeltaStore(options))
        schemas.append(pa.Table.from_pylist([row], tables.SCHEMAS), [], once=f"repair:{name}@{known}")
        return known

    def _chunks(self) -> Iterator[list[_Row]]:
        con, low = self.found.comparison.con, ""
        writer = _key_writer(self.found, self.table)
        while True:
            # Whole keys: one may miss rows and have others that are different.
            keys = con.execute(
                "SELECT DISTINCT k FROM differences WHERE k > ? ORDER BY k LIMIT ?", [low, _CHUNK_KEYS]
            ).fetchall()
            if not keys:
                return
            low, first = keys[-1][0], keys[0][0]
            wanted = con.execute("SELECT k, kind, n FROM differences WHERE k BETWEEN ? AND ?", [first, low]).fetchall()
            if self.table.shapes is not None and self.table.shapes.keyed:
                yield list(self._keyed(wanted, writer))
            else:
                yield list(self._bag(wanted))

    def _keyed(self, wanted: Sequence[tuple[str, str, int]], writer: KeyWriter | None) -> Iterator[_Row]:
        texts = {p.name: p.source for p in self.found.comparison.columns}
        names = writer.names if writer is not None else []
        there = [k for k, kind, _ in wanted if kind != "extra"]
        known = {h: (key, image) for h, key, image in self._lake_rows([k for k, n, _ in wanted if n != "missing"])}
        items = [source_image(self.found.entry), *(texts[n] for n in names)]
        for hashed, image, *values in self.found.comparison.in_source(there, items):
            key = known[hashed][0] if hashed in known else writer.write(values) if writer is not None else None
            yield _Row("r", key, image)
        for hashed, kind, _ in wanted:
            if kind == "extra":
                yield _Row("d", *known[hashed])

    def _bag(self, wanted: Sequence[tuple[str, str, int]]) -> Iterator[_Row]:
        """Of equal rows, as many as one side has more than the other."""
        more = {k: n for k, kind, n in wanted if kind == "missing"}
        less = {k: n for k, kind, n in wanted if kind == "extra"}
        images = dict(self.found.comparison.in_source(list(more), [source_image(self.found.entry)]))
        lake = {h: image for h, _, image in self._lake_rows(list(less))}
        for op, counts, found in (("r", more, images), ("d", less, lake)):
            for hashed, count in counts.items():
                yield from [_Row(op, None, found[hashed])] * count

    def _lake_rows(self, hashes: Sequence[str]) -> list[tuple[Any, ...]]:
        """Hash, key and image of rows of the lake."""
        if self.table.shapes is None:
            return []
        image = lake_image(self.found.entry, self.table.shapes.target.columns)
        return self.found.comparison.in_lake(hashes, ["l.k", image])

    def _log_rows(self, rows: Iterable[_Row], start: int, schema: str) -> pa.Table:
        side, now = self.found.side, datetime.now(UTC)
        return pa.Table.from_pylist(
            [
                {
                    "__op": row.op,
                    "__key": row.key,
                    "__before": row.image if row.op == "d" else None,
                    "__after": row.image if row.op == "r" else None,
                    "__source_ts": side.taken_at,
                    "__tx_order": self.found.position,
                    "__lsn": side.lsn_number,
                    "__snapshot": "repair",
                    "__topic": tables.repair_topic(self.found.state.source),
                    "__partition": 0,
                    "__offset": offset,
                    "__ingested_at": now,
                    "__schema_id": schema,
                }
                for offset, row in enumerate(rows, start)
            ],
            tables.LOG,
        )


def _overtaken(table: TableId) -> LakeError:
    return LakeError(
        f"{table} was repaired by another run meanwhile.",
        why="What was compared is no longer what the lake holds.",
        next="cdc-lake verify --repair  once more",
        code="repair_overtaken",
    )
