"""What a commit costs after ten thousand of them: a log that is appended to as the sink does.

The table is looked at anew before each commit, as the sink does. Checkpoints and the removal of old commits are those
of the product, and so is the maintenance that a sink begins after so many commits; its time is told apart. Commits are
made one after the other, and bear the times that they would bear if one was made every five seconds, as by default:
thousands of them within the minutes for which the product keeps them are made by no sink.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from benchmarks.report import Report
from cdc_lake.cli.caretaker import COMMITS
from cdc_lake.events import TopicPartition
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.land.tables import LOG
from cdc_lake.maintain.look import look
from cdc_lake.maintain.plan import Rules, plan
from cdc_lake.maintain.work import do

_ROWS, _STEPS, _APART_SECONDS = 100, 5, 5.0


def run(report: Report) -> None:
    table = report.table(
        f"{report.rows:,} commits of {_ROWS} rows on a local disk",
        **{
            "commits": ",d",
            "median, ms": ".1f",
            "CPU, ms": ".1f",
            "p99, ms": ".1f",
            "maintained, CPU ms": ".1f",
            "files": "d",
        },
    )
    rows = duckdb.execute(
        f"SELECT {', '.join(_VALUES.get(f.name, 'NULL') + ' AS ' + f.name for f in LOG)} FROM range({_ROWS}) t(i)"
    ).to_arrow_table()
    assert rows is not None
    tp = TopicPartition("pos.public.orders", 0)
    with tempfile.TemporaryDirectory(prefix="cdc-lake-commits-") as folder:
        log = AppendTable(f"{folder}/log", LOG, description="{}")
        log.take_over([tp])
        each = max(1, report.rows // _STEPS)
        for step in range(_STEPS):
            took, cpu, kept, files = list[float](), 0.0, 0.0, 0
            for number in range(step * each, (step + 1) * each):
                begun, busy = time.perf_counter(), time.process_time()
                log.append(rows.cast(LOG), [Span(tp, number * _ROWS, (number + 1) * _ROWS)])
                took.append((time.perf_counter() - begun) * 1000)
                cpu += time.process_time() - busy
                if number % COMMITS == 0:
                    _age(Path(folder, "log", "_delta_log"))
                    busy = time.process_time()
                    files = _maintain(f"{folder}/log")
                    kept += time.process_time() - busy
            late = sorted(took)[len(took) * 99 // 100]
            done = (step + 1) * each
            table.add(done, statistics.median(took), cpu / each * 1000, late, kept / each * 1000, files)


def _age(log: Path) -> None:
    """Give each commit and checkpoint the time that it would have."""
    files = [f for f in log.iterdir() if f.name[:20].isdecimal()]
    newest, now = max(int(f.name[:20]) for f in files), time.time()
    for file in files:
        made = now - (newest - int(file.name[:20])) * _APART_SECONDS
        os.utime(file, (made, made))


def _maintain(path: str) -> int:
    """What is due of the log; how many files it has then."""
    keep = timedelta(days=7)
    seen = look(path, None, keep)
    for step in plan("log", path, seen, Rules()) if seen is not None else []:
        do(path, None, step, keep)
    return len(DeltaTable(path).file_uris())


_VALUES = {
    "__op": "'c'",
    "__key": "json_object('id', i)::VARCHAR",
    "__after": "json_object('id', i, 'note', md5(i::VARCHAR))::VARCHAR",
    "__source_ts": "now()",
    "__lsn": "i",
    "__topic": "'pos.public.orders'",
    "__partition": "0",
    "__offset": "i",
    "__ingested_at": "now()",
    "__schema_id": "'s1'",
}
