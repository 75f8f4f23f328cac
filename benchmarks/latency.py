"""From COMMIT in PostgreSQL to the end of the first query that sees the row: three rates, three flush intervals.

One program commits at the rate, in at most a hundred transactions per second; another opens a session each time that
something has landed and asks for the newest row. Source, Connect, broker, sink and both share the machine.
"""

from __future__ import annotations

import bisect
import multiprocessing
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg

import cdc_lake
from benchmarks import source
from benchmarks.report import Report, say, spread, wait
from cdc_lake.capture.connect import ConnectClient
from cdc_lake.config import load_config
from cdc_lake.local.stack import Stack
from cdc_lake.query.news import News

RATES, FLUSHES = (100, 1_000, 10_000), (0.2, 1.0, 5.0)
TRANSACTIONS, WARM_SECONDS, GRACE_SECONDS = 100, 8.0, 60.0
Look = tuple[float, int]


def run(ends: Any, _stack: Stack, report: Report) -> None:
    """`rows` are the seconds of each measurement."""
    table = report.table(
        f"Seconds from commit to visible, {report.rows} s each",
        **{
            "flush_seconds": "g",
            "changes/s asked": ",d",
            "reached": ",.0f",
            "p50": ".2f",
            "p99": ".2f",
            "worst": ".2f",
        },
    )
    name = f"latency{uuid.uuid4().hex[:8]}"
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-latency-"))
    try:
        dsn = _captured(ends, name)
        for flush in FLUSHES if report.full else FLUSHES[::2]:
            own, more = f"f{str(flush).replace('.', '')}", f"sink: {{flush_seconds: {flush}}}\n"
            config = source.project(ends, folder / own, dsn, f"{name}_c", name=own, client="auto", more=more)
            with _sinking(config):
                for rate in RATES:
                    table.add(flush, rate, *_measure(config, dsn, rate, report.rows))
    finally:
        source.remove(ends, name, ["c"])
        shutil.rmtree(folder, ignore_errors=True)
    report.note("To the end of the reader's query, the opening of its session included.")


def _captured(ends: Any, name: str) -> str:
    with psycopg.connect(ends.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    dsn = str(ends.dsn).rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(dsn, autocommit=True) as con:
        con.execute("CREATE TABLE probe (id bigint PRIMARY KEY, store int NOT NULL, note text)")
        con.execute("INSERT INTO probe VALUES (0, 0, 'first')")
        con.execute("CREATE PUBLICATION bench FOR TABLE probe")
    prefix = f"{name}_c"
    with ConnectClient(ends.connect_url) as client:
        client.put_config(prefix, source.settings(dsn, prefix, inline=True) | {"table.include.list": "public.probe"})
    wait(lambda: source.end_offset(ends.bootstrap, f"{prefix}.public.probe") > 0, "the snapshot")
    return dsn


@contextmanager
def _sinking(config: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "cdc_lake", "--config", str(config), "-q"]
    subprocess.run([*command, "sink", "run", "--until-caught-up"], check=True)
    subprocess.run([*command, "fold"], check=True)
    sink = subprocess.Popen([*command, "sink", "run"])
    try:
        yield
    finally:
        sink.send_signal(signal.SIGTERM)
        sink.wait()


def _measure(config: Path, dsn: str, rate: int, seconds: int) -> tuple[float, float, float, float]:
    """Changes per second that were committed, and p50, p99 and the greatest of the delays in seconds."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    reader = spawn.Process(target=_look, args=(config, theirs))
    reader.start()
    try:
        ours.recv()
        commits = _commit(dsn, rate, WARM_SECONDS + seconds)
        ours.send(commits[-1][1])
        if not ours.poll(GRACE_SECONDS + 5 * seconds):
            raise SystemExit("the last rows were never seen")
        looks: list[Look] = ours.recv()
    finally:
        reader.terminate()
        reader.join()
    since = commits[0][0] + WARM_SECONDS
    counted = [c for c in commits if c[0] >= since]
    newest = [key for _, key in looks]
    delays = [looks[bisect.bisect_left(newest, key)][0] - begun for begun, key in counted]
    spent = counted[-1][0] - counted[0][0]
    reached = (counted[-1][1] - counted[0][1]) / spent
    say(f"{rate}/s: {len(delays)} transactions, {len(looks)} looks")
    return reached, *spread(delays)


def _commit(dsn: str, rate: int, seconds: float) -> list[Look]:
    """Insert at the rate; of each transaction when its COMMIT was sent, and its greatest key."""
    each, done = max(1, rate // TRANSACTIONS), list[Look]()
    insert = "INSERT INTO probe SELECT i, i %% 400, md5(i::text) FROM generate_series(%s::bigint, %s::bigint) i"
    with psycopg.connect(dsn) as con:
        (key,) = con.execute("SELECT max(id) FROM probe").fetchone() or (0,)
        begun = time.monotonic()
        while (due := begun + len(done) * each / rate) < begun + seconds:
            # Those that are late are not made up for: the rate that was reached is told.
            time.sleep(max(0.0, due - time.monotonic()))
            con.execute(insert, (key + 1, key + each))
            key += each
            done.append((time.monotonic(), key))
            con.commit()
            if time.monotonic() > begun + 2 * seconds:
                break
    return done


def _look(config: Path, parent: Connection) -> None:
    """Ask for the newest row whenever something has landed, until the one that the parent names is seen."""
    news, looks, last = News(load_config(config)), list[Look](), None
    cdc_lake.connect(config, tables=["probe"]).close()
    parent.send("ready")
    while last is None or not looks or looks[-1][1] < last:
        if parent.poll(0.005):
            last = parent.recv()
        if news.arrived():
            con = cdc_lake.connect(config, tables=["probe"])
            (newest,) = con.execute("SELECT max(id) FROM probe").fetchone() or (0,)
            con.close()
            looks.append((time.monotonic(), newest))
    parent.send(looks)
