"""Folds of one table of N keys: what 100,000 recent, 100,000 random and 1,000,000 random changes cost to fold, and
what reading costs while they are not folded.

The log is written by hand, as the sink writes it; no stack is needed. Each fold runs in a process of its own, for its
peak memory. "Own" is what as many rows take in the fold's files. Reads are told in milliseconds and, as other work on
the machine changes those, compared with the folded table in CPU time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.report import Report, Table, say
from cdc_lake.config import Config
from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path, log_path, patch_path, schemas_path, transactions_path
from cdc_lake.land.store import WRITER
from cdc_lake.land.tables import LOG, SCHEMAS, TRANSACTIONS
from cdc_lake.project.fold import Folded, fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session

SOURCE, TABLE = "pos", TableId("public", "orders")
FIELDS = {"id": "int64", "customer": "int32", "status": "string", "total": "double", "note": "string"}
NARROW = "SELECT count(*), sum(customer) FROM {}"
WIDE = "SELECT count(*), sum(customer), max(status), sum(total), max(length(note)) FROM {}"
HISTORY = "SELECT count(*), sum(customer), count(__valid_to) FROM {}"
_CHUNK = 500_000
_START = "TIMESTAMPTZ '2026-11-24 00:00:00+00'"


class Feed:
    """The log of one table, written in chunks; transactions have ten changes each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.root, self.keys, self.offset, self.ends = str(folder / "lake"), 0, 0, 0
        self.con = duckdb.connect()
        self.con.execute(f"SELECT setseed({seed / 1000})").fetchall()
        self._describe()

    def snapshot(self, rows: int) -> None:
        """The table as it was found: one `r` for each key."""
        for first in range(0, rows, _CHUNK):
            self._land("r", f"SELECT i AS id FROM range({first}, {min(first + _CHUNK, rows)}) t(i)", transactions=False)
        self.keys = rows

    def recent(self, rows: int) -> None:
        """Half new keys, half updates among as many of the newest ones."""
        low, new = self.keys - rows, rows // 2
        self._land("u", f"SELECT {low} + (random() * {rows})::BIGINT % {rows} AS id FROM range({rows - new})")
        self._land("c", f"SELECT i AS id FROM range({self.keys}, {self.keys + new}) t(i)")
        self.keys += new

    def random(self, rows: int) -> None:
        """Updates of keys anywhere."""
        for _ in range(0, rows, _CHUNK):
            n = min(_CHUNK, rows)
            self._land("u", f"SELECT (random() * {self.keys})::BIGINT % {self.keys} AS id FROM range({n})")

    def _land(self, op: str, ids: str, *, transactions: bool = True) -> None:
        tx = ("(n // 10 + {0})::VARCHAR", "n % 10 + 1") if transactions else ("NULL::VARCHAR", "NULL::BIGINT")
        rows = self.con.sql(
            f"""SELECT '{op}' AS __op, '{{"id":' || id || '}}' AS __key, NULL::VARCHAR AS __before,
            '{{"id":' || id || ',"customer":' || (id * 7919 + n) % 100000 || ',"status":"'
                || ['new', 'paid', 'packed', 'sent', 'back'][(id + n) % 5 + 1] || '","total":' || (id % 100000) / 100
                || ',"note":"order ' || id || ' as of ' || n || '"}}' AS __after,
            {_START} + to_seconds(n // 10) AS __source_ts,
            {tx[0].format(self.ends)} AS __tx_id, {tx[1]} AS __tx_order, n + {self.offset} AS __lsn,
            {"'true'" if op == "r" else "NULL::VARCHAR"} AS __snapshot, '{SOURCE}.{TABLE}' AS __topic,
            0::INTEGER AS __partition, n + {self.offset} AS __offset, now() AS __ingested_at, 's1' AS __schema_id,
            NULL::VARCHAR AS __headers FROM (SELECT id, row_number() OVER () - 1 AS n FROM ({ids})) ORDER BY n"""
        ).to_arrow_table()
        write_deltalake(log_path(self.root, SOURCE, TABLE), rows.cast(LOG), mode="append", writer_properties=WRITER)
        self.offset += rows.num_rows
        if transactions:
            self._end(rows.num_rows)

    def _end(self, rows: int) -> None:
        ended = self.con.sql(
            f"""SELECT 'END' AS status, (i + {self.ends})::VARCHAR AS tx_id, 1000 + i + {self.ends} AS lsn,
            least(10, {rows} - i * 10) AS event_count,
            '[{{"data_collection":"{TABLE}","event_count":' || least(10, {rows} - i * 10) || '}}]' AS data_collections,
            {_START} + to_seconds(i) AS source_ts, '{SOURCE}.transaction' AS __topic, 0::INTEGER AS __partition,
            (i + {self.ends}) * 2 AS __offset, now() AS __ingested_at FROM range({(rows + 9) // 10}) t(i)"""
        ).to_arrow_table()
        write_deltalake(transactions_path(self.root, SOURCE), ended.cast(TRANSACTIONS), mode="append")
        self.ends += ended.num_rows

    def _describe(self) -> None:
        row = [{"field": n, "type": t, "optional": True} for n, t in FIELDS.items()]
        envelope = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": row}]}
        key = {"type": "struct", "fields": [{"field": "id", "type": "int64"}]}
        known = {
            "schema_id": "s1", "schema": TABLE.schema, "table": TABLE.name, "topic": f"{SOURCE}.{TABLE}",
            "kind": "connect", "definition": json.dumps(envelope), "key_definition": json.dumps(key),
            "settings": "{}", "first_partition": 0, "first_offset": 0, "recorded_at": None,
        }  # fmt: skip
        write_deltalake(schemas_path(self.root, SOURCE), pa.Table.from_pylist([known], SCHEMAS))


def run(report: Report) -> None:
    """The figures for a table of as many keys as the report has rows."""
    rows = report.rows
    folds = report.table(
        f"Folds of a table of {rows:,} keys",
        **{
            "of": "",
            "s": ".1f",
            "rows written": ",d",
            "MB": ".1f",
            "files": "d",
            "× own bytes": ".1f",
            "peak MB": ",d",
        },
    )
    reads = report.table(
        "Reads, ms, and times the CPU of all folded",
        **{"of": "", "narrow": ",.0f", "narrow, ×": ".1f", "wide": ",.0f", "wide, ×": ".1f", "history": ",.0f"},
    )
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-bench-fold-"))
    try:
        feed = Feed(folder, seed=7)
        feed.snapshot(rows)
        say(f"{rows:,} keys are in the log")
        first = fold_apart("benchmarks.fold", folder)
        own = first["bytes"] / max(first["rows"], 1)
        tell_fold(folds, "the first", first, None)
        base = _read(reads, folder, "all folded")
        few = min(100_000, rows // 10)
        steps: list[tuple[str, Callable[[int], None], int]] = [
            ("recent", feed.recent, few), ("random", feed.random, few), ("random again", feed.random, few),
            ("random", feed.random, few * 10),
        ]  # fmt: skip
        for name, change, count in steps:
            change(count)
            _read(reads, folder, f"tail of {count:,} {name}", base)
            tell_fold(folds, f"{count:,} {name}", fold_apart("benchmarks.fold", folder), own * count)
            _read(reads, folder, f"{count:,} {name} folded", base)
        report.note(
            "A history is written once there is one: the fold of the first changes writes a line for each key, too."
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fold_once(root: str, files: Callable[[str], dict[str, int]], rows: Callable[[Folded], int]) -> None:
    """Fold what is new; print as JSON what it took, the data files being those that `files` gives (path to bytes)."""
    before, begun = files(root), time.monotonic()
    (done,) = list[Folded](fold_source(Lake(root), SOURCE, lambda _table: True))
    if done.error is not None:
        raise SystemExit(str(done.error.why))
    written = {p: s for p, s in files(root).items() if p not in before}
    # Not getrusage: what it says of a new process begins with what its parent held.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    print(
        json.dumps(
            {"rows": rows(done), "bytes": sum(written.values()), "files": len(written), "rss_mb": round(peak)}
            | {"seconds": time.monotonic() - begun}
        )
    )


def fold_apart(module: str, folder: Path) -> dict[str, Any]:
    """What `fold_once` of a benchmark says, in a process of its own."""
    out = subprocess.run([sys.executable, "-m", module, str(folder / "lake")], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def tell_fold(table: Table, name: str, took: dict[str, Any], own: float | None) -> None:
    """Add what `fold_apart` found; `own` are the bytes that as many rows take in the fold's files."""
    times = took["bytes"] / own if own else None
    table.add(name, took["seconds"], took["rows"], took["bytes"] / 1e6, took["files"], times, took["rss_mb"])


def data_files(*folders: str) -> dict[str, int]:
    """The data files of tables, each with its bytes."""
    found = (p for folder in folders for p in Path(folder).rglob("*.parquet") if "_delta_log" not in p.parts)
    return {str(p): p.stat().st_size for p in found}


def _files(root: str) -> dict[str, int]:
    """Those of `current`; `benchmarks.history` tells of the other one."""
    return data_files(current_path(root, SOURCE, TABLE), patch_path(root, SOURCE, TABLE))


def _read(table: Table, folder: Path, name: str, base: tuple[float, float] | None = None) -> tuple[float, float]:
    """Add what reading costs; the CPU seconds of both queries, for later reads to be compared with."""
    session = open_session(Config.model_validate({"lake": {"uri": str(folder / "lake")}, "root": folder}))
    con = session.connection
    con.execute("SET enable_progress_bar = false")
    try:
        narrow, wide = (best(con, q.format("orders")) for q in (NARROW, WIDE))
        small = con.execute("SELECT rows_landed < 3_000_000 FROM lake.tables").fetchone() == (True,)
        history = best(con, HISTORY.format("history.public.orders"), times=1)[0] * 1000 if small else None
    finally:
        session.close()
    cells = [narrow[0] * 1000, base and narrow[1] / base[0], wide[0] * 1000, base and wide[1] / base[1]]
    table.add(name, *cells, history)
    return narrow[1], wide[1]


def best(con: duckdb.DuckDBPyConnection, query: str, times: int = 3) -> tuple[float, float]:
    """The least seconds of a query, and the least of all cores together."""
    found = []
    for _ in range(times):
        begun, busy = time.perf_counter(), time.process_time()
        con.execute(query).fetchall()
        found.append((time.perf_counter() - begun, time.process_time() - busy))
    return min(s for s, _ in found), min(b for _, b in found)


if __name__ == "__main__":
    fold_once(sys.argv[1], _files, lambda done: done.rows)
