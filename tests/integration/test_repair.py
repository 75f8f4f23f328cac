"""`cdc-lake verify --repair` on the real stack: what differs is put right through the log; then `verify` is clean."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Database, RunningStack
from tests.projects import Project, make_project

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'very happy');
CREATE DOMAIN price AS numeric(10,2);
CREATE TABLE goods (id int PRIMARY KEY, name text, price numeric(8,2), tags text[], added timestamptz DEFAULT now());
CREATE TABLE stock (shop text, day date, good bigint, pieces int, PRIMARY KEY (shop, day, good));
CREATE TABLE visits (who text, page text);
ALTER TABLE visits REPLICA IDENTITY FULL;
CREATE TABLE kinds (id uuid PRIMARY KEY, a smallint, b oid, c numeric, d money, e real, f double precision, g boolean,
    h date, i time, j timetz, k timestamp(3), l timestamptz, m interval, n json, o jsonb, p bytea, q bit(5), r varbit,
    s point, t mood, u price, v inet, w int4range, x int[], y numeric(6,2)[], z text[], ä "char", "Q""u'%o%%s" char(4));
INSERT INTO goods SELECT i, 'good ' || i, i * 1.10, ARRAY['a', NULL, 'b' || i] FROM generate_series(1, 50) i;
INSERT INTO stock SELECT 'shop "' || i || E'\\n', date '1969-12-30' + i, i, 5 FROM generate_series(1, 9) i;
INSERT INTO visits SELECT 'w' || i % 3, 'p' || i % 5 FROM generate_series(1, 40) i;
INSERT INTO kinds (id) VALUES (gen_random_uuid());
"""
VALUES = """
INSERT INTO kinds VALUES (gen_random_uuid(), -32768, 4294967295, 'NaN', '-12.34', 'NaN', '-Infinity', true,
    '0044-03-15 BC', '24:00:00', '01:02:03.5+02', '2026-01-01 00:00:00.123', '0044-03-15 12:00:00.5+00 BC',
    '-1 mons +3 days -04:05:06.7',
    '{"a": [1, 2.50]}', '{"b": null}', '\\x00ff', B'01010', B'0011', '(1.5,-2)', 'very happy', 12.30, '10.0.0.1/8',
    '[1,5)', '{1,NULL,3}', '{1.10,NULL}', E'{"a,b",NULL,"","q\\\\"\\\\\\\\"}', 'x', 'ab'),
    (gen_random_uuid(), 1, 2, 123456789012345678901234567890.5, 1, 1e10, 1e300, false, 'infinity', '00:00', '00:00Z',
    'infinity', '-infinity', '1 year 2 mons -3 days', '[]', '[]', '', B'11111', '', '(1e20,0)', 'sad', -1, '::1',
    'empty', '{}', '{}', '{}', NULL, '')
"""


@pytest.fixture
def project(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    """Captured tables with and without a key, all landed and folded."""
    database.execute(*[s for s in SCHEMA.split(";\n") if s.strip()])
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as made:
        made.register()
        made.ok("sink", "run", "--until-caught-up")
        made.ok("fold")
        yield made


@contextmanager
def sink(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """A sink that runs meanwhile."""
    running = project.start("sink", "run")
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


def change(project: Project, *statements: str) -> None:
    with psycopg.connect(project.dsn, autocommit=True) as con:
        for statement in statements:
            con.execute(statement.encode())


def behind_the_connector(project: Project, tables: Sequence[str], *statements: str) -> None:
    """Changes that the connector never sends: the way events are lost."""
    listed = ", ".join(tables)
    change(
        project,
        f'ALTER PUBLICATION "{project.name}" DROP TABLE {listed}',
        *statements,
        f'ALTER PUBLICATION "{project.name}" ADD TABLE {listed}',
    )


def lose_rows(project: Project) -> None:
    behind_the_connector(
        project,
        ["goods", "stock", "visits", "kinds"],
        "UPDATE goods SET price = 0.01, tags = '{}' WHERE id = 3",
        "DELETE FROM goods WHERE id IN (4, 5)",
        "INSERT INTO goods VALUES (60, 'new', 6, NULL), (61, NULL, NULL, '{x}')",
        "DELETE FROM stock WHERE good = 2",
        "UPDATE stock SET pieces = 0 WHERE good = 3",
        "INSERT INTO stock VALUES (E'sh\\\\op \\t \\x1f ü', '2026-02-28', 9007199254740993, 1)",
        "INSERT INTO visits VALUES ('w0', 'p0'), ('x', 'y'), ('x', 'y')",
        "DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE who = 'w2' LIMIT 2)",
        VALUES,
    )


def repair(project: Project, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = project.run("--json", "verify", "--repair", *arguments)
    return done.returncode, json.loads(done.stdout)


def test_rows_that_differ_are_put_right_and_a_second_verify_is_clean(project: Project) -> None:
    lose_rows(project)
    with sink(project):
        code, report = repair(project, "--dry-run")
        assert code == 3
        assert {r["outcome"] for r in report["repair"]} == {"would repair"}
        assert not project.verify()["ok"]
        code, report = repair(project)
        assert (code, report["ok"]) == (0, True), report
        assert {r["table"]: r["rows"] for r in report["repair"]} == {
            "public.goods": 5,
            "public.stock": 3,
            "public.visits": 5,
            "public.kinds": 2,
        }
        code, report = repair(project)
        assert (code, report["repair"]) == (0, [])
    marks = project.query(
        "SELECT __topic, __op, count(*)::INT AS n FROM changes.public.goods WHERE __tx_id IS NULL "
        "AND __topic LIKE '%:repair' GROUP BY ALL ORDER BY __op"
    )
    assert [(m["__op"], m["n"]) for m in marks] == [("d", 2), ("r", 3)]
    assert project.verify()["ok"]
    project.ok("fold")
    assert project.verify()["ok"]
    project.ok("rebuild", "goods")
    project.ok("rebuild", "visits")
    assert project.verify()["ok"]


def test_what_is_streamed_after_a_repair_wins_over_it_whether_or_not_it_is_folded(project: Project) -> None:
    lose_rows(project)
    with sink(project):
        assert repair(project)[0] == 0
        change(
            project,
            "UPDATE goods SET price = 9 WHERE id IN (3, 60)",
            "DELETE FROM goods WHERE id = 61",
            "INSERT INTO goods VALUES (4, 'reborn', 4, NULL)",
            "UPDATE stock SET pieces = 7",
            "DELETE FROM visits",
        )
        assert project.verify()["ok"]
        project.ok("fold")
        assert project.verify()["ok"]


def test_as_of_shows_the_old_rows_before_a_repair_and_the_right_ones_after_it(project: Project) -> None:
    lose_rows(project)
    with sink(project):
        change(project, "UPDATE goods SET name = 'touched' WHERE id = 50")
        assert project.verify()["position"]["reached"]
        before = project.query("SELECT max(tx_id::BIGINT)::VARCHAR AS tx FROM lake.transactions")[0]["tx"]
        change(project, "UPDATE goods SET name = 'touched again' WHERE id = 50")
        assert repair(project)[0] == 0
        after = project.query("SELECT tx_id FROM lake.cut")[0]["tx_id"]
    query = "SELECT id, price FROM goods WHERE id IN (3, 4, 60) ORDER BY id"

    def as_of(tx: str) -> list[tuple[int, str]]:
        rows = json.loads(project.ok("query", query, "--as-of", f"tx:{tx}", "--format", "json"))
        return [(r["id"], r["price"]) for r in rows]

    for _ in range(2):
        assert as_of(before) == [(3, "3.30"), (4, "4.40")]
        assert as_of(after) == [(3, "0.01"), (60, "6.00")]
        versions = project.query("SELECT __op, price, __ended_by FROM history.public.goods WHERE id = 3 ORDER BY price")
        assert [(v["__op"], v["price"], v["__ended_by"]) for v in versions] == [("r", "0.01", None), ("r", "3.30", "r")]
        gone = project.query("SELECT __ended_by FROM history.public.goods WHERE id = 4")
        assert gone == [{"__ended_by": "d"}]
        project.ok("fold")


def test_a_repair_that_is_killed_is_finished_by_the_next_and_counts_once(project: Project) -> None:
    lose_rows(project)
    with sink(project):
        # The first commit is a schema, the second the rows of a table.
        for point in ("land:before-commit:2", "land:after-write:2", "land:after-commit:2"):
            killed = project.run("verify", "--repair", env={"CDC_LAKE_CRASH_AT": point})
            assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert repair(project)[0] == 0
    assert project.verify()["ok"]


def test_a_repair_without_a_running_connector_or_sink_is_refused_with_the_way_out(project: Project) -> None:
    lose_rows(project)
    done = project.run("--json", "verify", "--repair", "--wait", "1")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "repair_not_reached")
    project.ok("connector", "stop", project.name)
    done = project.run("--json", "verify", "--repair")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "connector_not_running")
    assert error["next"] == f"cdc-lake connector resume {project.name}"


def test_a_misspelt_table_repairs_nothing(project: Project) -> None:
    lose_rows(project)
    with sink(project):
        done = project.run("--json", "verify", "--repair", "goodz")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "no_such_table")
        assert len(project.verify()["tables"][0]["examples"]) > 0
