"""How much of a log two questions skip: "this key's history" and "this hour's changes": `python -m benchmarks layout`.

The log of one table with a fifth as many keys as events, all of them changed again and again, at 25,000 events an
hour: landed in eight commits an hour, as a sink does, and maintained once a day, up to files of an hour each. What a
question reads is told by DuckDB's own log of reads: a file counts as skipped when none of its pages was read, and
"bytes" are all that were asked for, footers and Bloom filters too. Opening the session is not counted.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from deltalake import write_deltalake

from benchmarks.fold import SOURCE, TABLE, Feed
from benchmarks.report import Report, Table, say
from cdc_lake.config import Config
from cdc_lake.land.layout import log_path
from cdc_lake.land.store import WRITER
from cdc_lake.land.tables import LOG
from cdc_lake.maintain.plan import Rules
from cdc_lake.maintain.run import Job, maintain
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import Session, open_session
from cdc_lake.query.versions import row_history

HOUR, COMMITS = 25_000, 8
_START = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"


class Hours(Feed):
    """A log whose clock goes on by an hour every `HOUR` events; one change in fifty is a delete."""

    def hour(self, number: int, keys: int) -> None:
        rows = HOUR // COMMITS
        for part in range(COMMITS):
            at = f"{_START} + INTERVAL 1 MICROSECOND * ({number * HOUR + part * rows} + n) * {3_600_000_000 // HOUR}"
            found = self.con.sql(
                f"""SELECT CASE WHEN n % 50 = 49 THEN 'd' ELSE 'u' END AS __op, '{{"id":' || id || '}}' AS __key,
                CASE WHEN n % 50 = 49 THEN '{{"id":' || id || '}}' END AS __before,
                CASE WHEN n % 50 < 49 THEN '{{"id":' || id || ',"customer":' || hash(n) % 100000 || ',"status":"sent",'
                    || '"total":' || (hash(id + n) % 100000) / 100 || ',"note":"' || md5(n::VARCHAR || id) || '"}}' END
                    AS __after, {at} AS __source_ts, ({self.ends} + n // 10)::VARCHAR AS __tx_id,
                n % 10 + 1 AS __tx_order, n + {self.offset} AS __lsn, NULL::VARCHAR AS __snapshot,
                '{SOURCE}.{TABLE}' AS __topic, 0::INTEGER AS __partition, n + {self.offset} AS __offset,
                {at} AS __ingested_at, 's1' AS __schema_id, NULL::VARCHAR AS __headers
                FROM (SELECT i AS n, (random() * {keys})::BIGINT % {keys} AS id FROM range({rows}) t(i)) ORDER BY n"""
            ).to_arrow_table()
            write_deltalake(
                log_path(self.root, SOURCE, TABLE), found.cast(LOG), mode="append", writer_properties=WRITER
            )
            self.offset += rows
            self._end(rows)


def run(report: Report) -> None:
    """The figures for a log of about five times as many events as the report has rows."""
    rows = report.rows
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-bench-layout-"))
    try:
        feed, hours = Hours(folder, seed=7), max(20, 5 * rows // HOUR)
        for number in range(hours):
            feed.hour(number, rows)
            if number % 24 == 23 or number == hours - 1:
                _maintain(folder)
        say(f"{feed.offset:,} events are in the log")
        table = report.table(
            f"A log of {feed.offset:,} events",
            **{"question": "", "rows": ",d", "s": ".2f", "files": "d", "skipped": ".1%", "bytes read": ".1%"},
        )
        _ask(table, folder, hours)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _maintain(folder: Path) -> None:
    rules = Rules(target_bytes=_hour_bytes(folder) * 11 // 10, fold=False)
    failed = [r for r in maintain(Job(Lake(str(folder / "lake")), lambda _table: True, rules), say) if r.failed]
    if failed:
        raise SystemExit(str(failed[0].error))


def _hour_bytes(folder: Path) -> int:
    first = sorted(_log(folder).glob("*.parquet"), key=lambda p: p.stat().st_mtime)[:COMMITS]
    return sum(p.stat().st_size for p in first)


def _log(folder: Path) -> Path:
    return Path(log_path(str(folder / "lake"), SOURCE, TABLE))


def _ask(table: Table, folder: Path, hours: int) -> None:
    config = Config.model_validate({"lake": {"uri": str(folder / "lake")}, "root": folder})
    at = f"{_START} + INTERVAL {hours // 2} HOUR"
    one = f"SELECT * FROM changes.{TABLE} WHERE __ingested_at >= {at} AND __ingested_at < {at} + INTERVAL 1 HOUR"
    questions: dict[str, Callable[[Session], int]] = {
        "a key's history": lambda s: len(row_history(s, str(TABLE), "4711").versions),
        "an hour's changes": lambda s: len(s.connection.execute(one).fetchall()),
    }
    for name, question in questions.items():
        session = open_session(config, tables=[str(TABLE)])
        try:
            _tell(table, name, session, question)
        finally:
            session.close()


def _tell(table: Table, name: str, session: Session, question: Callable[[Session], int]) -> None:
    con = session.connection
    files = {p: Path(p).stat().st_size for s in session.sources for t in s.tables for p in t.log.paths}
    con.execute("CALL enable_logging('FileSystem')")
    con.execute("CALL truncate_duckdb_logs()")
    begun = time.perf_counter()
    found = question(session)
    seconds = time.perf_counter() - begun
    con.execute("CALL disable_logging()")
    reads = _reads(con, files)
    read = sum(_reads_pages(path, files[path], spans) for path, spans in reads.items())
    asked = sum(size for spans in reads.values() for _, size in spans)
    table.add(name, found, seconds, len(files), 1 - read / len(files), asked / sum(files.values()))


def _reads(con: duckdb.DuckDBPyConnection, files: dict[str, int]) -> dict[str, list[tuple[int, int]]]:
    rows = con.execute("SELECT path, pos, bytes FROM duckdb_logs_parsed('FileSystem') WHERE op = 'READ'").fetchall()
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for path, pos, size in rows:
        if path in files:
            found[path].append((int(pos), int(size)))
    return found


def _reads_pages(path: str, size: int, spans: list[tuple[int, int]]) -> bool:
    """Whether any read but that of the end, which holds the footer, reaches a page."""
    groups = (pq.read_metadata(path).row_group(i) for i in range(pq.read_metadata(path).num_row_groups))
    chunks = [g.column(i) for g in groups for i in range(g.num_columns)]
    pages = [(c.dictionary_page_offset or c.data_page_offset, c.total_compressed_size) for c in chunks]
    inner = [(at, n) for at, n in spans if at + n < size]
    return any(at < start + length and start < at + n for at, n in inner for start, length in pages)
