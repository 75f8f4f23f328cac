"""`cdc-lake verify` of one large table: time and peak memory, beside `SELECT *` into Arrow on both sides.

The change log is written as a sink leaves it after a snapshot, then folded; PostgreSQL is the stack's. Each figure is
of a process of its own. One row differs in the second round, so that rows of a bucket travel too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from benchmarks.launch import measured
from benchmarks.report import Report, say
from cdc_lake.capture.catalogue import read_catalogue
from cdc_lake.connector_file import load_connector
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout, tables
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.local.stack import Stack

ROOT = Path(__file__).parents[1]
TABLE = TableId("public", "sales")
COLUMNS = "sale_id bigint PRIMARY KEY, store_id int, status text, total numeric(10,2), note text, sold_at timestamptz"
ROWS = """SELECT i, i % 250, CASE i % 3 WHEN 0 THEN 'open' WHEN 1 THEN 'paid' ELSE 'shipped' END,
    (i % 100000)::numeric(10,2) / 4, md5(i::text), timestamptz '2026-01-01' + i * interval '1 second'
    FROM generate_series(1, {rows}) i"""
CHUNK = 500_000
# What a person would do instead, as far as having both sides in memory.
BASELINE = """
import sys, psycopg, pyarrow as pa, cdc_lake
with psycopg.connect(sys.argv[1]) as con, con.cursor("all") as cursor:
    cursor.itersize = 100_000
    cursor.execute("SELECT * FROM sales")
    names = [c.name for c in cursor.description]
    parts = []
    while rows := cursor.fetchmany(100_000):
        parts.append(pa.table(dict(zip(names, map(list, zip(*rows))))))
source = pa.concat_tables(parts)
lake = cdc_lake.connect(sys.argv[2]).sql("FROM sales").to_arrow_table()
print(source.num_rows, lake.num_rows, file=sys.stderr)
"""


def run(ends: Any, _stack: Stack, report: Report) -> None:
    rows = report.rows
    table = report.table(f"One table of {rows:,} rows, six columns", **{"what": "", "s": ",.1f", "peak MB": ",.0f"})
    with _project(ends, rows) as (dsn, config):
        command = [sys.executable, "-m", "cdc_lake", "--config", str(config)]
        table.add("`verify`, all equal", *_measured([*command, "-q", "verify"]))
        with psycopg.connect(dsn, autocommit=True) as con:
            con.execute("UPDATE sales SET total = -1 WHERE sale_id = 7")
        table.add("`verify`, one row differs", *_measured([*command, "-q", "verify", "--wait", "0"], code=3))
        table.add("`SELECT *` into Arrow, both sides", *_measured([sys.executable, "-c", BASELINE, dsn, str(config)]))


def _measured(command: list[str], code: int = 0) -> tuple[float, float]:
    """Seconds, and the peak of the process's memory in MB."""
    used = measured(command, code=code)
    return used.seconds, used.peak_mb


@contextmanager
def _project(ends: Any, rows: int) -> Iterator[tuple[str, Path]]:
    name = f"verify{uuid.uuid4().hex[:8]}"
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-verify-"))
    with psycopg.connect(ends.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    dsn = ends.dsn.rsplit("/", 1)[0] + f"/{name}"
    try:
        with psycopg.connect(dsn, autocommit=True) as con:
            con.execute(f"SET TimeZone = 'UTC'; CREATE TABLE sales ({COLUMNS})".encode())
            con.execute(f"INSERT INTO sales {ROWS.format(rows=rows)}".encode())
            con.execute("VACUUM ANALYZE sales")
        say(f"{rows:,} rows are in PostgreSQL")
        connector = json.loads((ROOT / "connectors" / "pos.json").read_text())
        connector["config"]["topic.prefix"] = name
        (folder / f"{name}.json").write_text(json.dumps(connector))
        config = folder / "cdc-lake.yaml"
        config.write_text(f"source: {{name: {name}, connector: {name}.json, dsn: '{dsn}'}}\n")
        _land(str(folder / "lake"), name, dsn, rows)
        subprocess.run([sys.executable, "-m", "cdc_lake", "--config", str(config), "-q", "fold"], check=True)
        say("the lake is landed and folded")
        yield dsn, config
    finally:
        with psycopg.connect(ends.dsn, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        shutil.rmtree(folder, ignore_errors=True)


def _land(root: str, source: str, dsn: str, rows: int) -> None:
    """The log of a snapshot, as the connector without inline schemas writes it."""
    (entry,) = read_catalogue(dsn, [TABLE])
    settings = load_connector(ROOT / "connectors" / "pos.json").decode_settings
    now = datetime.now(UTC)
    schema = {
        "schema_id": "sales",
        "schema": TABLE.schema,
        "table": TABLE.name,
        "kind": "catalogue",
        "definition": json.dumps(entry),
        "settings": json.dumps(settings),
        "recorded_at": now,
    }
    schemas = AppendTable(layout.schemas_path(root, source), tables.SCHEMAS)
    schemas.append(pa.Table.from_pylist([schema], tables.SCHEMAS), [])
    tp = TopicPartition(f"{source}.{TABLE}", 0)
    log = AppendTable(layout.log_path(root, source, TABLE), tables.LOG, description=json.dumps({"topics": [tp.topic]}))
    log.take_over([tp])
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for low in range(1, rows + 1, CHUNK):
            high = min(low + CHUNK, rows + 1)
            log.append(_events(con, tp.topic, low, high), [Span(tp, low - 1, high - 1)])


def _events(con: duckdb.DuckDBPyConnection, topic: str, low: int, high: int) -> pa.Table:
    image = """json_object('sale_id', i, 'store_id', i % 250,
        'status', CASE i % 3 WHEN 0 THEN 'open' WHEN 1 THEN 'paid' ELSE 'shipped' END,
        'total', ((i % 100000)::DECIMAL(12,2) / 4)::DECIMAL(10,2)::VARCHAR, 'note', md5(i::VARCHAR),
        'sold_at', strftime(TIMESTAMP '2026-01-01' + to_seconds(i), '%Y-%m-%dT%H:%M:%S.000000Z'))::VARCHAR"""
    own = {
        "__op": "'r'",
        "__key": "json_object('sale_id', i)::VARCHAR",
        "__after": image,
        "__source_ts": "now()",
        "__lsn": "1",
        "__snapshot": "'true'",
        "__topic": f"'{topic}'",
        "__partition": "0",
        "__offset": "i - 1",
        "__ingested_at": "now()",
        "__schema_id": "'sales'",
    }
    columns = ", ".join(f"{own.get(f.name, 'NULL')} AS {f.name}" for f in tables.LOG)
    return con.sql(f"SELECT {columns} FROM range({low}, {high}) t(i)").to_arrow_table().cast(tables.LOG)
