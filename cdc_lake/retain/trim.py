"""Take the rows of a log that stand at or before a position away, and put starting rows in their place: one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import LakeError, first_line, is_disk_full
from cdc_lake.events import TopicPartition
from cdc_lake.land.starts import START, start_of, start_topic, start_transactions
from cdc_lake.land.tables import LOG
from cdc_lake.project.files import scan
from cdc_lake.project.life import Life
from cdc_lake.project.snapshot import SourceState
from cdc_lake.project.starts import starts_sql
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.retain.place import Places
from cdc_lake.retain.rewriting import Rewriting, batches, overtaken
from cdc_lake.sqltext import literal


@dataclass(frozen=True, slots=True)
class Touched:
    """A data file of which `gone` of its `rows` go."""

    number: int
    path: str
    rows: int
    gone: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Trim:
    """What a log loses when it begins at `position`: `gone` changes and their `bytes` in the files `touched`, and how
    many rows stay as `starts` in the DuckDB table `relation`; `starts_before` were starting rows already."""

    position: int
    touched: tuple[Touched, ...]
    kept: Mapping[TopicPartition, int]
    gone: int
    starts: int
    starts_before: int
    relation: str

    @property
    def bytes(self) -> int:
        """Bytes of the rows that are taken away, by their share of their files."""
        return sum(t.bytes * t.gone // max(t.rows, 1) for t in self.touched)


def find_trim(con: duckdb.DuckDBPyConnection, state: SourceState, places: Places, position: int) -> Trim | None:
    """What goes and what stays at `position`; None when nothing goes that is not a starting row."""
    table = places.table
    gone = places.one("count(*)", f"place <= {position} AND NOT start")
    if gone == 0 or table.shapes is None or position <= table.log.start:
        return None
    relation = f"{places.name}_starts"
    life = Life(table.shapes, tuple(table.log.paths), timeline_sql(state.transactions), position, start=table.log.start)
    con.execute(
        f"""CREATE OR REPLACE TABLE {relation} AS SELECT *, row_number() OVER (ORDER BY k, step) AS number
        FROM ({starts_sql(life)})"""
    )
    (starts,) = con.execute(f"SELECT count(*) FROM {relation}").fetchone() or (0,)
    touched = con.execute(
        f"""SELECT f, count(*), count(*) FILTER (place <= {position}) AS gone FROM {places.name} GROUP BY f
        HAVING gone > 0 ORDER BY f"""
    ).fetchall()
    listed = table.log.files
    files = tuple(Touched(f, listed[f].path, n, g, listed[f].bytes) for f, n, g in touched)
    before = places.one("count(*)", "start")
    return Trim(position, files, places.kept_offsets(position), gone, starts, before, relation)


def do_trim(con: duckdb.DuckDBPyConnection, state: SourceState, places: Places, trim: Trim) -> None:
    """Write the rows that stay and commit them in place of the files. Needs `lock.sole_rewriter`.

    1. Write the starting rows, and of each file that loses only some of its rows the others, where it lies.
    2. Open a fresh handle: what was read must be there still. What was appended meanwhile stays.
    3. Commit the new files, the removal of the old ones and the start of the log at once.
    Killed before the commit, nothing has changed but for files that belong to nobody. Raises LakeError.
    """
    work = Rewriting(state.lake, state.source, places.table.table, places.table.log)
    reach("retention:before-write")
    try:
        work.write(_starts(con, state, places, trim), cold=False)
        for file in trim.touched:
            work.drop(file.path, file.bytes)
            if file.gone < file.rows:
                work.write(_others(con, places, trim, file), cold=work.in_tier(file.path))
        _check(trim, work.rows)
        reach("retention:before-commit")
        work.commit(
            start_transactions(trim.position, trim.kept),
            fits=lambda log: start_of(log) == places.table.log.start,
            landed=lambda log: start_of(log) == trim.position,
            overtaken=overtaken(places.table.table, "removed"),
        )
    except (DeltaError, OSError, pa.ArrowException, duckdb.Error) as error:
        raise _explained(work.path, error) from error
    reach("retention:after-commit")


def _starts(con: duckdb.DuckDBPyConnection, state: SourceState, places: Places, trim: Trim) -> Iterator[pa.RecordBatch]:
    files = scan([t.path for t in trim.touched])
    values = {
        "__op": "s.op",
        "__key": "s.k",
        "__before": "NULL::VARCHAR",
        "__tx_id": "NULL::VARCHAR",
        "__tx_order": f"{trim.position}::BIGINT",
        "__snapshot": literal(START),
        "__topic": literal(start_topic(state.source)),
        # Below zero, the last of them -1.
        "__offset": f"(s.number - {trim.starts + 1})::BIGINT",
        "__headers": """CASE WHEN l.__offset < 0 THEN l.__headers ELSE json_object('__cdc_lake.start',
            json_object('op', l.__op, 'tx_id', l.__tx_id, 'topic', l.__topic, 'offset', l.__offset))::VARCHAR END""",
    }
    items = ", ".join(f"{values.get(n, f'l.{n}')} AS {n}" for n in LOG.names)
    return batches(
        con,
        f"""SELECT {items} FROM {trim.relation} s JOIN {files} l
        ON l.__topic = s.top AND l.__partition = s.part AND l.__offset = s.off ORDER BY s.number""",
    )


def _others(con: duckdb.DuckDBPyConnection, places: Places, trim: Trim, file: Touched) -> Iterator[pa.RecordBatch]:
    """The rows of a file that stay, in their order."""
    return batches(
        con,
        f"""SELECT {", ".join(f"l.{n}" for n in LOG.names)}
        FROM read_parquet([{literal(file.path)}], hive_partitioning=false, file_row_number=true) l
        JOIN {places.name} p ON p.f = {file.number} AND p.n = l.file_row_number
        WHERE p.place > {trim.position} ORDER BY p.n""",
    )


def _check(trim: Trim, written: int) -> None:
    """No image may be lost: each starting row was found, and each row that stays was written."""
    wanted = trim.starts + sum(t.rows - t.gone for t in trim.touched)
    if wanted != written:
        raise LakeError(
            f"{written:,} rows were written where {wanted:,} should stay, so nothing was removed.",
            why="The log holds a record twice, or a data file changed while it was read.",
            next="cdc-lake doctor; then cdc-lake retention apply once more",
            code="retention_failed",
        )


def _explained(path: str, error: Exception) -> LakeError:
    full = is_disk_full(error)
    return LakeError(
        f"The older rows of {path} could not be removed.",
        why=first_line(error),
        next="free space on the disk, then: cdc-lake retention apply" if full else "cdc-lake retention apply once more",
        code="disk_full" if full else "retention_failed",
    )
