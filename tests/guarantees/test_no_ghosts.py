"""Promise: what a complete snapshot does not have has ended; each row counts once, however often it is read again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from cdc_lake.capture.connect import ConnectClient
from tests.integration.conftest import RunningStack, fresh_database, own_stack, wait_for
from tests.projects import Project, make_project

SCHEMA = """
CREATE TABLE goods (id int PRIMARY KEY, name text, story text);
ALTER TABLE goods ALTER story SET STORAGE EXTERNAL;
CREATE TABLE visits (who text, page text);
ALTER TABLE visits REPLICA IDENTITY FULL;
CREATE TABLE once (id int PRIMARY KEY);
INSERT INTO goods SELECT i, 'good ' || i, repeat('story ' || i || ' ', 500) FROM generate_series(1, 60) i;
INSERT INTO visits SELECT 'w' || i % 3, 'p' || i % 5 FROM generate_series(1, 40) i;
INSERT INTO once VALUES (1);
"""
AWAY = (
    "DELETE FROM goods WHERE id <= 20",
    "UPDATE goods SET name = 'changed meanwhile' WHERE id = 30",
    "INSERT INTO goods VALUES (100, 'made meanwhile', NULL)",
    "DELETE FROM visits WHERE who = 'w1'",
    "INSERT INTO visits VALUES ('w0', 'p0')",
)


@pytest.fixture
def away(project: Project) -> Project:
    """All landed, folded, streamed on, and then the connector was stopped while the source went on."""
    execute(project, *[s for s in SCHEMA.split(";\n") if s.strip()])
    project.register()
    land(project)
    project.ok("fold")
    execute(project, "UPDATE goods SET name = 'streamed' WHERE id > 50", "DELETE FROM visits WHERE who = 'w2'")
    with psycopg.connect(project.dsn) as con:
        lsn = str(con.execute("SELECT pg_current_wal_lsn()").fetchall()[0][0])
    streamed(project, lsn)
    land(project)
    return project


def execute(project: Project, *statements: str) -> None:
    with psycopg.connect(project.dsn, autocommit=True) as con:
        for statement in statements:
            con.execute(statement.encode())


def streamed(project: Project, lsn: str) -> None:
    """Wait until the connector has sent, and told PostgreSQL so, all up to `lsn`."""

    def confirmed() -> bool:
        with psycopg.connect(project.dsn, autocommit=True) as con:
            row = con.execute(
                "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                (lsn, project.name),
            ).fetchone()
            return bool(row and row[0])

    wait_for(confirmed, "the connector to have sent the changes")


def land(project: Project) -> None:
    project.ok("sink", "run", "--until-caught-up")


def read_again(project: Project, count: int) -> None:
    """Land until the last row of `count` more snapshots of the last table is there."""
    query = (
        "SELECT count(*)::INT AS n FROM changes.public.once "
        "WHERE __op = 'r' AND __lsn IS NOT NULL AND __topic NOT LIKE '%:repair'"
    )

    def there() -> bool:
        land(project)
        return bool(project.query(query)[0]["n"] >= 1 + count)

    wait_for(there, "the snapshot to land", seconds=120)
    land(project)


def check(project: Project) -> None:
    """Equal to the source: as it is, folded, and made anew from the log; and `history` shows just that as of now."""
    report = project.verify()
    assert report["ok"], report
    execute(project, "UPDATE goods SET name = 'after' WHERE id = 40", "INSERT INTO visits VALUES ('after', 'after')")
    with psycopg.connect(project.dsn) as con:
        lsn = str(con.execute("SELECT pg_current_wal_lsn()").fetchall()[0][0])
    streamed(project, lsn)
    land(project)
    for step in ("fold", "rebuild"):
        for table in ("goods", "visits"):
            project.ok(step, table)
        report = project.verify()
        assert report["ok"], report
        for table, key in (("goods", "id, name"), ("visits", "who, page")):
            now = rows(project, f"SELECT {key} FROM {table} ORDER BY ALL")
            history = rows(project, f"SELECT {key} FROM history.public.{table} WHERE __valid_to IS NULL ORDER BY ALL")
            assert now == history


def rows(project: Project, query: str) -> list[tuple[Any, ...]]:
    return [tuple(r.values()) for r in project.query(query)]


def test_keys_that_were_deleted_while_the_connector_was_away_end_with_its_new_snapshot(away: Project) -> None:
    before = rows(away, "SELECT id, name FROM goods ORDER BY id")
    tx = away.query("SELECT tx_id FROM lake.cut")[0]["tx_id"]
    # A snapshot stands behind the last transaction before it; without another one that would be this one itself.
    execute(away, "UPDATE goods SET name = name WHERE id = 42")

    def moved() -> bool:
        away.ok("sink", "run", "--until-caught-up")
        return bool(away.query("SELECT tx_id FROM lake.cut")[0]["tx_id"] != tx)

    wait_for(moved, "a later transaction in the lake")
    away.ok("connector", "delete", away.name, "--drop-slot")
    execute(away, *AWAY)
    away.register()
    read_again(away, 1)
    check(away)
    as_of = json.loads(
        away.ok("query", "SELECT id, name FROM goods ORDER BY id", "--as-of", f"tx:{tx}", "--format", "json")
    )
    assert [tuple(r.values()) for r in as_of] == before
    ended = away.query("SELECT count(*)::INT AS n FROM history.public.goods WHERE id <= 20 AND __ended_by = 'd'")
    assert ended == [{"n": 20}]


def test_a_blocking_snapshot_of_tables_counts_each_row_once_and_ends_what_is_gone(away: Project) -> None:
    listed = "goods, visits"
    execute(away, f'ALTER PUBLICATION "{away.name}" DROP TABLE {listed}', *AWAY)
    execute(away, f'ALTER PUBLICATION "{away.name}" ADD TABLE {listed}')
    away.ok("connector", "snapshot", away.name, "goods", "visits", "once", "--type", "blocking")
    read_again(away, 1)
    check(away)


@pytest.mark.stack
def test_a_first_snapshot_that_is_killed_and_begun_again_counts_each_row_once(tmp_path: Path) -> None:
    with (
        own_stack(tmp_path / "stack") as stack,
        fresh_database(stack) as database,
        make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as project,
    ):
        kill_and_check(project, stack)


def kill_and_check(project: Project, stack: RunningStack) -> None:
    execute(project, *[s for s in SCHEMA.split(";\n") if s.strip()])
    execute(project, "INSERT INTO visits SELECT 'w' || i, repeat('x', 300) FROM generate_series(1, 400000) i")
    log = project.folder / "lake" / project.name / "log" / "public" / "visits" / "_delta_log"
    running = project.start("sink", "run")
    # It would wait for the end of the snapshot.
    registering = project.start("connector", "register", f"connectors/{project.name}.json")
    try:
        wait_for(log.exists, "rows of the snapshot to land")
        worker = psutil.Process(stack.stack.status()["connect"]["pid"])
        worker.kill()
        worker.wait(timeout=20)
        stack.stack.up()
        with ConnectClient(stack.connect_url) as client:
            wait_for(lambda: (s := client.find_status(project.name)) is not None and s.running, "the connector")
        report = wait_for(lambda: (r := project.verify())["ok"] and r, "the lake to be equal", seconds=420)
    finally:
        registering.kill()
        running.send_signal(signal.SIGTERM)
        registering.wait()
        running.wait()
    assert next(t for t in report["tables"] if t["table"] == "public.visits")["rows_lake"] == 400_040
    marks = project.query(
        "SELECT count(DISTINCT __lsn)::INT AS runs FROM changes.public.visits WHERE __op = 'r' AND __lsn IS NOT NULL"
    )
    assert marks == [{"runs": 2}], "the snapshot was over before it was killed"
    project.ok("fold")
    assert project.verify()["ok"]
