"""What identity, order and the cut cost: the same changes with transaction metadata and without, landed and read.

Two connectors capture one table, one with `provide.transaction.metadata` and one without. Without it a sink has no
transactions to land and a reader has no cut to keep: rows are ordered by offset alone. Changes are made in
transactions of ten rows. Rates are of rows of the table; each is the median of runs that take turns. CPU seconds tell
the cost also where other work runs beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

import cdc_lake
from benchmarks import source
from benchmarks.report import Report, say, wait
from cdc_lake.capture.connect import ConnectClient
from cdc_lake.local.stack import Stack

FORMS = ("with", "without")
ROUNDS, LOOKS, ROWS_EACH = 5, 9, 10
ROWS = 400_000
CHANGE = f"""DO $$ BEGIN
    FOR i IN 0..%s LOOP
        UPDATE sales SET quantity = quantity + 1 WHERE id BETWEEN i * {ROWS_EACH} + 1 AND (i + 1) * {ROWS_EACH};
        COMMIT;
    END LOOP;
END $$"""
QUESTION = "SELECT count(*), sum(quantity), sum(price), max(sold_at) FROM sales"


def run(ends: Any, _stack: Stack, report: Report) -> None:
    """The rates of landing and the times of reading, with and without. Rows beyond 400,000 are not used."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-promises-"))
    try:
        _measure(ends, name, folder, report)
    finally:
        _remove(ends, name)
        shutil.rmtree(folder, ignore_errors=True)


def _measure(ends: Any, name: str, folder: Path, report: Report) -> None:
    rows = min(report.rows, ROWS)
    dsn = source.database(ends.dsn, name, rows)
    loaded = rows * 10 // 11
    changed = loaded // ROWS_EACH * ROWS_EACH
    for form in FORMS:
        _register(ends, dsn, f"{name}_{form}", metadata=form == "with")
    _wait_for_events(ends, name, loaded)
    kept = {form: _project(ends, dsn, folder / f"read_{form}", f"{name}_{form}") for form in FORMS}
    for config in kept.values():
        _command(config, "sink", "run", "--until-caught-up")
        _command(config, "fold")
    with psycopg.connect(dsn, autocommit=True) as con:
        con.execute((CHANGE % (loaded // ROWS_EACH - 1)).encode())
    _wait_for_events(ends, name, loaded + changed)
    for form in FORMS:
        with ConnectClient(ends.connect_url) as client:
            client.delete(f"{name}_{form}")
    took: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for number in range(ROUNDS):
        for form in FORMS:
            config = _project(ends, dsn, folder / f"land_{form}_{number}", f"{name}_{form}")
            took[form].append(_command(config, "sink", "run", "--until-caught-up"))
            say(f"landing {form} transaction metadata: {(loaded + changed) / took[form][-1][0]:,.0f} rows/s")
    for config in kept.values():
        _command(config, "sink", "run", "--until-caught-up")
    _tell_landing(report, {form: _medians(found) for form, found in took.items()}, loaded + changed)
    _tell_reading(report, _read(kept), loaded)


def _medians(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(seconds for seconds, _ in found), median(cpu for _, cpu in found)


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def _since(before: tuple[float, float]) -> tuple[float, float]:
    now = _now()
    return now[0] - before[0], now[1] - before[1]


def _read(kept: dict[str, Path]) -> dict[str, tuple[float, ...]]:
    """Seconds and CPU seconds to open a session, and those of the query in it."""
    opened: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    asked: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    answers = set()
    for _ in range(LOOKS):
        for form, config in kept.items():
            begun = _now()
            con = cdc_lake.connect(config, tables=["sales"])
            opened[form].append(_since(begun))
            ready = _now()
            answers.add(con.execute(QUESTION).fetchone())
            asked[form].append(_since(ready))
            con.close()
    if len(answers) != 1:
        raise SystemExit(f"the two lakes differ: {answers}")
    return {form: (*_medians(opened[form]), *_medians(asked[form])) for form in FORMS}


def _tell_landing(report: Report, took: dict[str, tuple[float, float]], rows: int) -> None:
    columns = {"transaction metadata": "", "rows/s": ",.0f", "CPU µs a row": ".2f"}
    table = report.table("Landing, transactions of ten rows", **columns)
    for form in FORMS:
        table.add(form, rows / took[form][0], took[form][1] / rows * 1e6)
    rate, cpu = (1 - took["without"][i] / took["with"][i] for i in (0, 1))
    report.note(f"Identity, order and cut cost {rate:.1%} of the rate of landing, and {cpu:.1%} of its CPU time.")


def _tell_reading(report: Report, took: dict[str, tuple[float, ...]], loaded: int) -> None:
    table = report.table(
        f"Reading {loaded:,} folded rows, each changed once since",
        **{"a cut": "", "session opened, s": ".3f", "its CPU, s": ".3f", "query, s": ".3f", "CPU, s": ".3f"},
    )
    for form in FORMS:
        table.add(form, *took[form])
    seconds, cpu = (took["with"][i] / took["without"][i] - 1 for i in (2, 3))
    whole = {form: took[form][1] + took[form][3] for form in FORMS}
    report.note(
        f"Reading at the cut costs {seconds:.1%} of the query's time, {cpu:.1%} of its CPU time, and "
        f"{whole['with'] / whole['without'] - 1:.1%} of the CPU time with the opening."
    )


def _register(ends: Any, dsn: str, prefix: str, *, metadata: bool) -> None:
    with ConnectClient(ends.connect_url) as client:
        config = source.settings(dsn, prefix, inline=False)
        client.put_config(prefix, config | {"provide.transaction.metadata": str(metadata).lower()})


def _wait_for_events(ends: Any, name: str, events: int) -> None:
    topics = [f"{name}_{form}.public.sales" for form in FORMS]
    wait(lambda: all(source.end_offset(ends.bootstrap, t) >= events for t in topics), f"{events:,} events")


def _project(ends: Any, dsn: str, folder: Path, prefix: str) -> Path:
    return source.project(ends, folder, dsn, prefix, name=folder.name, metadata=prefix.endswith("with"))


def _command(config: Path, *arguments: str) -> tuple[float, float]:
    """Run it to its end; the seconds and the CPU seconds that it took."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "cdc_lake", "--config", str(config), "-q", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: status {status}")
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime


def _remove(ends: Any, name: str) -> None:
    source.remove(ends, name, FORMS)
