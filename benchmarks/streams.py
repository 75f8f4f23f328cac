"""Events a second through a windowed aggregate and through a join with a table, beside those who do nothing else.

The topic is that of `benchmarks.volume`: updates in transactions of a hundred, a hundred events a millisecond.
"windows" counts them and sums their pieces by shop and second of the event's time; "join" looks up the region of the
shop of every large one. `cdc-lake` lands the topic in the lake first and answers from there: both processes count, and
its rows are in a Delta table, once each. Bytewax and Quix Streams only count what they make. Spark writes to Delta.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from kafka.admin import KafkaAdminClient

from benchmarks import peers, source, volume
from benchmarks.launch import measured
from benchmarks.report import Report, Table
from cdc_lake.local.stack import Stack

QUESTIONS = {
    "windows": """-- window: tumbling 1 second
SELECT store, window_start, count(*) AS orders, sum(quantity) AS pieces FROM changes.sales
WHERE __op = 'u' GROUP BY store, window_start
""",
    "join": """SELECT s.id, s.store, s.quantity, d.region FROM changes.sales s
JOIN current.shops d ON d.store = s.store WHERE s.__op = 'u' AND s.quantity >= 40
""",
}
_JOBS = Path(__file__).with_name("jobs")
_SCHEMA = "op string, source struct<ts_ms:bigint>, after struct<store:int,quantity:int>"
_PEERS = ("bytewax[kafka]==0.21.1", "quixstreams==3.28.1")


def run(ends: Any, _stack: Stack, report: Report) -> None:
    prefix, folder = f"streams{uuid.uuid4().hex[:8]}", Path(tempfile.mkdtemp(prefix="cdc-lake-streams-"))
    try:
        _shops(ends.bootstrap, prefix)
        volume.changes(ends.bootstrap, prefix, report.rows)
        for question in QUESTIONS:
            table = report.table(f"{report.rows:,} events, {question}", what="", **{"events/s": ",.0f", "rows": ",d"})
            _ours(table, ends, folder / question, prefix=prefix, question=question, events=report.rows)
            _theirs(table, ends.bootstrap, f"{prefix}.public.sales", question, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        admin = KafkaAdminClient(bootstrap_servers=ends.bootstrap)
        admin.delete_topics([t for t in admin.list_topics() if prefix in t])
        admin.close()
    report.note("cdc-lake: the events into the lake and the model's rows out of it, two processes one after the other.")


def _shops(bootstrap: str, prefix: str) -> None:
    """The small table: a snapshot of 400 shops."""
    row = "json_object('store', i - 1, 'region', 'region ' || ((i - 1) % 7))"
    event = volume.event_sql(prefix, "r", "shops", row=row)
    query = f"SELECT json_object('store', i - 1), {event} FROM (SELECT n + 1 AS i, n FROM ({{}}))"
    volume.produce(bootstrap, f"{prefix}.public.shops", 400, query)


def _ours(table: Table, ends: Any, folder: Path, *, prefix: str, question: str, events: int) -> None:
    folder.mkdir(parents=True)
    config = source.project(ends, folder, ends.dsn, prefix)
    (folder / "streams").mkdir()
    (folder / "streams" / f"{question}.sql").write_text(QUESTIONS[question])
    program = [sys.executable, "-m", "cdc_lake", "--config", str(config), "-q"]
    landing = measured([*program, "sink", "run", "--until-caught-up"]).seconds
    model = measured([*program, "stream", "run", "--until-caught-up"]).seconds
    asked = [*program, "--json", "query", f"SELECT count(*) AS n FROM streams.{question}"]
    rows = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)[0]["n"]
    table.add("cdc-lake: landing and model", events / (landing + model), rows)
    table.add("cdc-lake: the model alone", events / model, rows)


def _theirs(table: Table, bootstrap: str, topic: str, question: str, report: Report) -> None:
    python = peers.environment("streams", "Bytewax and Quix Streams", _PEERS)
    for name, job in (("Bytewax", "bytewax_job.py"), ("Quix Streams", "quix_job.py")):
        found = peers.job(name, [str(python), "-P", str(_JOBS / job), bootstrap, topic, question])
        if found["events"] != report.rows:
            raise SystemExit(f"{name} saw {found['events']} of {report.rows} events")
        table.add(name, report.rows / found["seconds"], found["rows"])
    if report.full and shutil.which("java"):
        found = peers.spark_job(bootstrap, topic, question, _SCHEMA)
        table.add("Spark structured streaming, warm", report.rows / found["warm"], found["rows"])
