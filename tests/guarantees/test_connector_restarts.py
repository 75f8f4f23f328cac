"""Promise: each change is kept once, also when the connector stops between the changes of an open transaction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
from kafka import KafkaConsumer, TopicPartition

from cdc_lake.capture.connect import ConnectClient
from tests.integration.conftest import Database, RunningStack, wait_for
from tests.integration.test_repair import sink
from tests.projects import Project, make_project

# Heartbeats are transactions too: each would move the place at which the connector is to go on.
OFFSETS = "cdc-lake-connect-offsets"
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


def restart_meanwhile(project: Project, database: Database, between: Callable[[], None]) -> None:
    """Stop the connector behind the end of one transaction while another is open; `between` comes before its start."""
    database.execute(
        "CREATE TABLE till (id int PRIMARY KEY, n int)", "INSERT INTO till SELECT i, 0 FROM generate_series(1, 4) i"
    )
    project.register()
    with psycopg.connect(database.dsn) as open_one, psycopg.connect(database.dsn) as other:
        committed = interleave(open_one, other)
        wait_for(lambda: has_ended(project, committed), "the other transaction to be captured")
        project.ok("connector", "stop", project.name)
        between()
        open_one.commit()
    project.ok("connector", "resume", project.name)
    database.execute("INSERT INTO till VALUES (5, 0)")
    wait_for(lambda: has_row(project, 5), "what came later")


def test_a_transaction_that_was_open_when_the_connector_stopped_is_whole_afterwards(
    stack: RunningStack, database: Database, tmp_path: Path
) -> None:
    """Debezium before 3.7.0 takes the one LSN for the other and leaves out what came before it (debezium/dbz#76). Its
    END then counts the rest as the whole, so that no cut could wait for it."""
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url, SILENT) as project:
        restart_meanwhile(project, database, lambda: None)
        assert project.query("FROM till ORDER BY id") == ROWS
        with sink(project):
            assert project.verify()["ok"]


def test_what_debezium_leaves_out_behind_a_begin_is_found_and_put_right(
    stack: RunningStack, database: Database, tmp_path: Path
) -> None:
    """Debezium 3.7.0 still does so behind a BEGIN whose position was stored when it died."""
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url, SILENT) as project:
        restart_meanwhile(project, database, lambda: pretend_begin(stack.connect_url, project.name))
        seen = project.query("FROM till ORDER BY id")
        with sink(project):
            assert project.verify()["ok"] == (seen == ROWS), "it tells whether something is wrong"
            project.ok("verify", "--repair")
            assert project.verify()["ok"]
        assert project.query("FROM till ORDER BY id") == ROWS


def pretend_begin(connect_url: str, name: str) -> None:
    """Have Connect go on as if the last record whose position it stored had been a BEGIN."""
    with ConnectClient(connect_url) as client:
        (found,) = client.offsets(name)
    found["offset"]["messageType"] = "BEGIN"
    httpx.patch(f"{connect_url}/connectors/{name}/offsets", json={"offsets": [found]}).raise_for_status()


def test_no_position_at_the_beginning_of_a_transaction_is_ever_stored(
    stack: RunningStack, database: Database, tmp_path: Path
) -> None:
    """The connector's transforms drop the records of BEGIN, and Connect stores no position of what is dropped."""
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as project:
        database.execute("CREATE TABLE till (id int PRIMARY KEY, n int)")
        project.register()
        for i in range(200):
            database.execute(f"INSERT INTO till VALUES ({i}, 0)")
        wait_for(lambda: has_row(project, 199), "the last row")
        ended = project.query("SELECT status, count(*) AS n FROM lake.transactions GROUP BY ALL")
        assert [row["status"] for row in ended] == ["END"]
        assert ended[0]["n"] >= 200
        stored = [
            json.loads(value) for key, value in records(stack.bootstrap, OFFSETS) if project.name in key and value
        ]
        assert {"INSERT", "COMMIT"} & {offset.get("messageType") for offset in stored}
        assert "BEGIN" not in {offset.get("messageType") for offset in stored}


def records(bootstrap: str, topic: str) -> list[tuple[str, str]]:
    """Keys and values of all records in a topic."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)
        found: list[tuple[str, str]] = []
        while any(consumer.position(p) < ends[p] for p in parts):
            for batch in consumer.poll(timeout_ms=500).values():
                found += [(str(r.key), (r.value or b"").decode()) for r in batch]
        return found
    finally:
        consumer.close()
