"""`cdc-lake verify` against the real source: it is silent when all is equal, and names what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from deltalake import DeltaTable
from kafka import KafkaProducer

from cdc_lake.events import TableId
from cdc_lake.land import layout
from tests.integration.conftest import Database, RunningStack, wait_for
from tests.projects import Project, make_project

SCHEMA = """
CREATE TABLE goods (id int PRIMARY KEY, name text, price numeric(8,2), tags text[], added timestamptz DEFAULT now());
CREATE TABLE visits (who text, page text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO goods SELECT i, 'good ' || i, i * 1.10, ARRAY['a', NULL, 'b' || i] FROM generate_series(1, 50) i;
INSERT INTO visits SELECT 'w' || i % 3, 'p' || i % 5 FROM generate_series(1, 40) i;
"""


@pytest.fixture
def project(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    """Two captured tables, one without a key, all landed."""
    database.execute(*[s for s in SCHEMA.split(";") if s.strip()])
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as made:
        made.register()
        made.ok("sink", "run", "--until-caught-up")
        yield made


def _change(project: Project, *statements: str) -> None:
    with psycopg.connect(project.dsn, autocommit=True) as con:
        for statement in statements:
            con.execute(statement.encode())


def test_equal_sides_have_no_differences_before_and_after_a_fold(project: Project) -> None:
    done = project.run("--json", "verify")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["ok"]
    assert {t["table"]: (t["rows_source"], t["rows_lake"]) for t in report["tables"]} == {
        "public.goods": (50, 50),
        "public.visits": (40, 40),
    }
    project.ok("fold")
    _change(
        project,
        "UPDATE goods SET price = price + 1 WHERE id % 2 = 0",
        "DELETE FROM goods WHERE id < 5",
        "UPDATE visits SET page = 'home' WHERE who = 'w1'",
        "DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE who = 'w2' LIMIT 3)",
    )
    project.ok("sink", "run", "--until-caught-up")
    assert project.run("verify").returncode == 0
    project.ok("fold")
    assert project.run("verify").returncode == 0


def test_equal_sides_have_no_differences_when_older_changes_lie_in_a_tier(project: Project) -> None:
    with (project.folder / "cdc-lake.yaml").open("a") as config:
        config.write("retention: {classes: {standard: {log: forever, tier: {after: 1s, uri: ./cold}}}}\n")

    def moved() -> bool:
        project.ok("retention", "apply")
        return any((project.folder / "cold").rglob("*.parquet"))

    wait_for(moved, "changes of more than a second ago in the tier")
    _change(project, "UPDATE goods SET price = price + 1 WHERE id % 2 = 0", "DELETE FROM visits WHERE who = 'w2'")
    project.ok("sink", "run", "--until-caught-up")
    assert project.run("verify").returncode == 0
    project.ok("rebuild", "goods")
    assert project.run("verify").returncode == 0


def test_a_row_changed_by_hand_in_the_lake_is_found_with_key_and_column(project: Project) -> None:
    project.ok("fold")
    path = layout.current_path(str(project.folder / "lake"), project.name, TableId("public", "goods"))
    DeltaTable(path).update(predicate="id = 7", updates={"name": "'forged'"})
    DeltaTable(path).delete("id = 8")
    done = project.run("--json", "verify", "goods", "--wait", "1")
    assert done.returncode == 3
    (table,) = json.loads(done.stdout)["tables"]
    assert (table["missing"], table["extra"], table["different"]) == (1, 0, 1)
    by_kind = {e["kind"]: e for e in table["examples"]}
    assert by_kind["different"]["key"] == {"id": "7"}
    assert by_kind["different"]["columns"] == {"name": {"source": "good 7", "lake": "forged"}}
    assert by_kind["missing"]["key"] == {"id": "8"}


def test_a_row_changed_behind_the_connector_in_the_source_is_found(project: Project) -> None:
    _change(
        project,
        f'ALTER PUBLICATION "{project.name}" DROP TABLE goods',
        "UPDATE goods SET price = 0.01 WHERE id = 3",
        "DELETE FROM goods WHERE id = 4",
        f'ALTER PUBLICATION "{project.name}" ADD TABLE goods',
    )
    done = project.run("--json", "verify", "--wait", "1")
    assert done.returncode == 3
    table = next(t for t in json.loads(done.stdout)["tables"] if t["table"] == "public.goods")
    assert (table["missing"], table["extra"], table["different"]) == (0, 1, 1)
    words = project.run("verify", "--wait", "1")
    assert "public.goods id=3: different" in words.stderr
    assert "price: source '0.01', lake '3.30'" in words.stderr


def test_a_bag_counts_equal_rows(project: Project) -> None:
    _change(
        project,
        f'ALTER PUBLICATION "{project.name}" DROP TABLE visits',
        "INSERT INTO visits SELECT * FROM visits LIMIT 2",
        f'ALTER PUBLICATION "{project.name}" ADD TABLE visits',
    )
    done = project.run("--json", "verify", "visits", "--wait", "1")
    (table,) = json.loads(done.stdout)["tables"]
    assert (done.returncode, table["missing"], table["extra"]) == (3, 2, 0)


def test_a_misspelt_table_gets_the_near_one(project: Project) -> None:
    done = project.run("--json", "verify", "goodz")
    assert done.returncode == 2
    assert 'Did you mean "public.goods"?' in json.loads(done.stdout)["error"]["why"]


def test_a_source_that_is_away_is_named_without_its_password(project: Project) -> None:
    config = project.folder / "cdc-lake.yaml"
    config.write_text(config.read_text().replace(project.dsn, "postgresql://postgres:hunter2@127.0.0.1:9/x"))
    done = project.run("verify")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


@pytest.fixture
def auditor(project: Project, database: Database) -> Iterator[str]:
    """A role that may read the source, and nothing more; the project reads the source as this role."""
    name = f"auditor_{database.name[-12:]}"
    _change(project, f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'hunter2'", f'GRANT pg_read_all_data TO "{name}"')
    owner = urlsplit(project.dsn)
    there = owner._replace(netloc=f"{name}:hunter2@{owner.hostname}:{owner.port}")
    config = project.folder / "cdc-lake.yaml"
    config.write_text(config.read_text().replace(project.dsn, there.geturl()))
    yield name
    _change(project, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


def _mended(project: Project, message: str) -> None:
    """`verify` refuses with `message`; the SQL that it gives is run."""
    done = project.run("--json", "verify")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "permission_denied"), error
    assert message in error["message"]
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    _change(project, *error["next"].split("; "))


def test_a_missing_right_is_named_with_the_sql_that_grants_it(project: Project, auditor: str) -> None:
    _mended(project, f"The role {auditor} may not write to cdc_lake.heartbeat.")
    assert project.verify()["ok"]
    _change(project, f'REVOKE pg_read_all_data FROM "{auditor}"', "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    _change(project, f'GRANT SELECT (id, name) ON goods TO "{auditor}"')
    _mended(project, "may not read the whole of public.goods, public.visits.")
    assert project.verify()["ok"]
    _change(project, "ALTER TABLE goods ENABLE ROW LEVEL SECURITY")
    _mended(project, "may not read the whole of public.goods.")
    assert project.verify()["ok"]


def _cause(project: Project, table: str) -> str:
    report = json.loads(project.run("--json", "verify", table, "--wait", "1").stdout)
    return str(report["tables"][0]["cause"])


def test_a_difference_names_a_slot_that_is_gone(project: Project) -> None:
    project.ok("connector", "delete", project.name, "--drop-slot")
    _change(project, "UPDATE goods SET price = 1 WHERE id = 1")
    assert f"the replication slot {project.name} is gone" in _cause(project, "goods")


def test_a_difference_names_values_that_the_log_never_saw(project: Project) -> None:
    _change(project, "ALTER TABLE goods ALTER name SET STORAGE EXTERNAL")
    _change(
        project,
        f'ALTER PUBLICATION "{project.name}" DROP TABLE goods',
        "INSERT INTO goods VALUES (70, repeat('long ', 2000), 1, '{}')",
        f'ALTER PUBLICATION "{project.name}" ADD TABLE goods',
        "UPDATE goods SET price = 2 WHERE id = 70",
    )
    project.ok("sink", "run", "--until-caught-up")
    assert 'values that the log has never seen, for no event held them, in "name"' in _cause(project, "goods")


def test_a_difference_names_what_the_connector_loses_of_the_type(project: Project) -> None:
    _change(project, "ALTER TABLE goods ADD grid int[]", "UPDATE goods SET grid = '{{1,2},{3,4}}' WHERE id = 1")
    project.ok("sink", "run", "--until-caught-up")
    assert 'the connector\'s loss in "grid": an array of several dimensions' in _cause(project, "goods")


def test_a_difference_names_dead_letters_of_the_table(project: Project) -> None:
    producer = KafkaProducer(bootstrap_servers=project.bootstrap)
    producer.send(f"{project.name}.public.goods", b"{broken", b'{"id":71}')
    producer.close()
    _change(
        project,
        f'ALTER PUBLICATION "{project.name}" DROP TABLE goods',
        "INSERT INTO goods VALUES (71, 'lost', 1, '{}')",
        f'ALTER PUBLICATION "{project.name}" ADD TABLE goods',
    )
    project.ok("sink", "run", "--until-caught-up")
    assert "dead letters of it that wait for a decision: 1" in _cause(project, "goods")
