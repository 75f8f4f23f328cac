"""The lake at a glance, for `tables` and `status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from cdc_lake.config import Config
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import DeadLetters
from cdc_lake.maintain.shape import Asked, Shape, shapes_of
from cdc_lake.project.cache import Cache
from cdc_lake.project.order import Cut
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.query.doubts import Doubts, read_doubts
from cdc_lake.query.lake_views import foldable
from cdc_lake.query.session import open_lake, read_sources


def overview(
    config: Config, ends: Mapping[tuple[str, int], int] | None = None, cache: Cache | None = None
) -> dict[str, Any]:
    """Sources, tables and the cut, as `status --json` has them.

    `ends` are Kafka's end offsets per (topic, partition); without them, `lag_records` is None. `lag_seconds` is the age
    of the newest landed row where records are waiting, 0 where none are, None when that is not known. Of dead
    letters, those that await a decision count. Who asks again and again hands the same `cache` each time.
    Raises LakeError when a table of the lake cannot be read.
    """
    con = duckdb.connect()
    try:
        sources = read_sources(con, config, cache)
    finally:
        con.close()
    return overview_of(config, sources, ends)


def overview_of(
    config: Config, sources: Sequence[SourceState], ends: Mapping[tuple[str, int], int] | None = None
) -> dict[str, Any]:
    """The same of sources that were read already. Raises LakeError when dead letters cannot be read."""
    now = datetime.now(UTC)
    lake = open_lake(config)
    letters = {s.source: DeadLetters(lake.root, s.source, lake.options).waiting() for s in sources}
    cuts = {s.source: s.cut.as_dict() for s in sources}
    counts = {s.source: len(s.tables) for s in sources}
    return {
        "sources": [
            {
                "name": s.name,
                "tables": counts.get(s.name, 0),
                "dead_letters": letters[s.name].total() if s.name in letters else 0,
            }
            for s in config.all_sources
        ],
        "tables": [_row(s.source, t, ends, now, letters[s.source]) for s in sources for t in s.tables],
        "cut": next(iter(cuts.values()), Cut().as_dict()) if len(cuts) < 2 else cuts,
    }


# Of a source and tables: their numbers (`pg_class.oid`) there, those that exist; None when it cannot be asked.
AskNumbers = Callable[[str, Sequence[TableId]], Mapping[TableId, int] | None]


def table_rows(config: Config, ask: AskNumbers = lambda _source, _tables: None) -> list[dict[str, Any]]:
    """A row per table, for a person: key, rows landed and unfolded, last landing, what no event told, an error if any,
    and its shape: files, bytes, share of small files, oldest version of its log, what `maintain` does next.

    `ask` tells which of them the source still has.
    Raises LakeError when a table of the lake cannot be read.
    """
    con = duckdb.connect()
    try:
        rows, sources = [], read_sources(con, config)
        for source in sources:
            captured = [t.table for t in source.tables if config.captures(t.table)]
            numbers = ask(source.source, captured) if captured else None
            for table in source.tables:
                doubts = read_doubts(con, table)
                if numbers is not None and table.table in captured:
                    doubts = doubts.beside(numbers.get(table.table))
                rows.append(_listed(source, table, doubts))
        asked = [Asked(s.source, t.table, foldable(t)) for s in sources for t in s.tables]
        shapes = shapes_of(open_lake(config), asked)
        return [row | _shape(shape) for row, shape in zip(rows, shapes, strict=True)]
    finally:
        con.close()


@dataclass(frozen=True, slots=True)
class Examined:
    """A source's part of the lake, for `doctor`."""

    cut: dict[str, Any]
    doubts: dict[TableId, Doubts]


def examine_sources(config: Config) -> dict[str, Examined]:
    """The cut of each source, and what no event told of its tables.

    Raises LakeError when a table of the lake cannot be read.
    """
    con = duckdb.connect()
    try:
        sources = read_sources(con, config)
        empty = {config.all_sources[0].name: Examined(Cut().as_dict(), {})}
        return {
            s.source: Examined(s.cut.as_dict(), {t.table: read_doubts(con, t) for t in s.tables}) for s in sources
        } or empty
    finally:
        con.close()


def _listed(source: SourceState, table: TableState, doubts: Doubts) -> dict[str, Any]:
    return {
        "table": str(table.table),
        "source": source.source,
        "key": [c.name for c in table.shapes.target.key_columns] if table.shapes is not None else None,
        "rows_landed": table.log.rows,
        "unfolded": table.tail.facts.placed + table.tail.facts.free,
        "last_landed": _last_landed(table),
        **doubts.as_dict(str(table.table)),
        "note": table.error.message if table.error is not None else doubts.words or None,
        "error": table.error.message if table.error is not None else None,
    }


def _shape(shape: Shape | None) -> dict[str, Any]:
    due = {"action": shape.due, "why": shape.why} if shape is not None and shape.due else None
    return {
        "files": shape.files if shape is not None else None,
        "bytes": shape.bytes if shape is not None else None,
        "small_file_ratio": round(shape.small_file_ratio, 3) if shape is not None else None,
        "oldest_readable_version": shape.oldest_version if shape is not None else None,
        "next_due": due,
    }


def _last_landed(table: TableState) -> str | None:
    newest = table.log.newest()
    return _instant(newest.ingested_us).isoformat(timespec="seconds") if newest is not None else None


def _instant(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def _row(
    source: str,
    table: TableState,
    ends: Mapping[tuple[str, int], int] | None,
    now: datetime,
    letters: Mapping[str, int],
) -> dict[str, Any]:
    records = _lag(table, ends) if ends is not None else None
    newest = table.log.newest()
    age = (now - _instant(newest.ingested_us)).total_seconds() if newest is not None else None
    topics = {topic for topic, _ in table.log.positions}
    return {
        "table": str(table.table),
        "source": source,
        "rows_landed": table.log.rows,
        "last_landed": _last_landed(table),
        "rows_unfolded": table.tail.facts.placed + table.tail.facts.free,
        "dead_letters": sum(letters[topic] for topic in topics),
        "lag_records": records,
        "lag_seconds": None if records is None else (age if records else 0),
        "error": table.error.message if table.error is not None else None,
    }


def _lag(table: TableState, ends: Mapping[tuple[str, int], int]) -> int:
    """Records in Kafka behind the last landed one, over all partitions of the table's topics."""
    landed = table.log.positions
    topics = {topic for topic, _ in landed}
    return sum(max(0, end - landed.get(tp, 0)) for tp, end in ends.items() if tp[0] in topics)
