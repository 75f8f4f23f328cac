"""Promise: each change is kept once, also when the connector stops between the changes of an open transaction."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.integration.conftest import Database, RunningStack, wait_for
from tests.integration.test_repair import sink
from tests.projects import Project, make_project

# Heartbeats are transactions too: each would move the place at which the connector is to go on.
SILENT = {"heartbeat.interval.ms": "0"}
ROWS = [{"id": i, "n": int(i < 5)} for i in range(1, 6)]


def has_ended(project: Project, tx_id: str) -> bool:
    """Whether the lake has the END of a transaction."""
    project.ok("sink", "run", "--until-caught-up")
    return bool(project.query(f"SELECT 1 FROM lake.transactions WHERE status = 'END' AND tx_id = '{tx_id}'"))


def has_row(project: Project, key: int) -> bool:
    project.ok("sink", "run", "--until-caught-up")
    return bool(project.query(f"SELECT 1 FROM till WHERE id = {key}"))


def interleave(open_one: psycopg.Connection, other: psycopg.Connection) -> str:
    """Change rows on either side of another transaction's commit, so that the second change begins where the commit's
    record ends: at the same LSN. Returns the other transaction's id."""
    open_one.execute("UPDATE till SET n = n + 1 WHERE id = 1")
    other.execute("UPDATE till SET n = n + 1 WHERE id = 2")
    row = other.execute("SELECT pg_current_xact_id()::text").fetchone()
    other.commit()
    open_one.execute("UPDATE till SET n = n + 1 WHERE id = 3")
    open_one.execute("UPDATE till SET n = n + 1 WHERE id = 4")
    assert row is not None
    return str(row[0])


def test_a_transaction_that_was_open_when_the_connector_stopped_is_whole_afterwards(
    stack: RunningStack, database: Database, tmp_path: Path
) -> None:
    """Debezium before 3.7.0 takes the one LSN for the other and leaves out what came before it (debezium/dbz#76). Its
    END then counts the rest as the whole, so that no cut could wait for it."""
    database.execute(
        "CREATE TABLE till (id int PRIMARY KEY, n int)", "INSERT INTO till SELECT i, 0 FROM generate_series(1, 4) i"
    )
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url, SILENT) as project:
        project.register()
        with psycopg.connect(database.dsn) as open_one, psycopg.connect(database.dsn) as other:
            committed = interleave(open_one, other)
            wait_for(lambda: has_ended(project, committed), "the other transaction to be captured")
            project.ok("connector", "stop", project.name)
            open_one.commit()
        project.ok("connector", "resume", project.name)
        database.execute("INSERT INTO till VALUES (5, 0)")
        wait_for(lambda: has_row(project, 5), "what came later")
        assert project.query("FROM till ORDER BY id") == ROWS
        with sink(project):
            assert project.verify()["ok"]
