"""The retail shop trades while its sink lands, folds and keeps the lake in shape: memory, files and commit times.

`rows` are the minutes, ten of them a line. Memory is the resident set of the sink's process.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from benchmarks.freshness import trading
from benchmarks.report import Report, say
from cdc_lake.config import load_config
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.local.retail.workload import Workload
from cdc_lake.local.stack import Stack

RATE, EACH_MINUTES, SAMPLE_SECONDS = 50, 10, 10.0


def run(ends: Any, _stack: Stack, report: Report) -> None:
    minutes = report.rows
    names = {
        "transactions/s": ",.0f",
        "RSS, MB": ",.0f",
        "greatest, MB": ",.0f",
        "log versions": ",d",
        "log files": ",d",
    }
    table = report.table(f"{minutes} minutes of the retail workload at {RATE} transactions/s", minute="d", **names)
    with trading(ends) as (config, dsn, sink):
        workload = Workload(dsn, rate=RATE, workers=2)
        workload.start()
        try:
            begun, seen = time.monotonic(), 0
            for step in range(1, max(1, minutes // EACH_MINUTES) + 1):
                upto = begun + min(step * EACH_MINUTES, minutes) * 60
                found = _samples(sink.pid, upto)
                done = workload.stats().transactions
                version, files = _log(config)
                rate = (done - seen) / (min(EACH_MINUTES, minutes) * 60)
                table.add(step * min(EACH_MINUTES, minutes), rate, found[-1], max(found), version, files)
                seen = done
        finally:
            workload.stop()
    rss = [row[2] for row in table.rows if isinstance(row[2], float)]
    report.note(f"From the first line to the last, the sink's resident set changed by {rss[-1] - rss[0]:+,.0f} MB.")


def _samples(pid: int, upto: float) -> list[float]:
    """The resident set every ten seconds, in MB, the last one at `upto`."""
    found = []
    while True:
        found.append(_rss(pid))
        left = upto - time.monotonic()
        if left <= 0:
            return found
        time.sleep(min(SAMPLE_SECONDS, left))


def _rss(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        raise SystemExit("the sink has ended") from None
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def _log(config: Path) -> tuple[int, int]:
    """The version of the orders' log, and how many files it has."""
    settings = load_config(config)
    table = DeltaTable(log_path(settings.lake_uri, settings.all_sources[0].name, TableId("public", "orders")))
    say(f"version {table.version()}")
    return table.version(), len(table.file_uris())
