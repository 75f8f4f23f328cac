"""As large as PostgreSQL allows, or as anybody should try: tables of 1,600 columns, values of 100 MB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Database, RunningStack
from tests.projects import Project, make_project

COLUMNS = 1_600
VALUE_BYTES = 100_000_000
# A record is its value and what JSON and the envelope put around it.
RECORD = str(VALUE_BYTES + (8 << 20))


@pytest.fixture
def project(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    settings = {
        "producer.override.max.request.size": RECORD,
        "producer.override.buffer.memory": str(2 * VALUE_BYTES),
        "topic.creation.default.max.message.bytes": RECORD,
    }
    with make_project(
        tmp_path / "extremes", database.dsn, stack.bootstrap, stack.connect_url, settings=settings
    ) as made:
        yield made


def test_a_table_of_1600_columns_is_the_same_in_the_lake(project: Project, database: Database) -> None:
    columns = ", ".join(f"c{i} int" for i in range(1, COLUMNS))
    values = ", ".join(f"i + {i}" for i in range(1, COLUMNS))
    database.execute(
        f"CREATE TABLE wide (id int PRIMARY KEY, {columns})",
        f"INSERT INTO wide SELECT i, {values} FROM generate_series(1, 40) i",
    )
    project.register()
    project.ok("sink", "run", "--until-caught-up")
    database.execute("UPDATE wide SET c1599 = NULL WHERE id = 7", "DELETE FROM wide WHERE id = 8")
    project.ok("sink", "run", "--until-caught-up")
    assert project.verify()["ok"]
    assert project.query("SELECT id, c1, c1598, c1599 FROM wide WHERE id IN (7, 8, 9) ORDER BY id") == [
        {"id": 7, "c1": 8, "c1598": 1605, "c1599": None},
        {"id": 9, "c1": 10, "c1598": 1607, "c1599": 1608},
    ]
    project.ok("fold")
    assert project.verify()["ok"]


@pytest.mark.slow
def test_a_value_of_100_mb_is_landed_and_carried_on_by_updates_that_leave_it_out(
    project: Project, database: Database
) -> None:
    piece = "0123456789abcdef"
    database.execute(
        "CREATE TABLE large (id int PRIMARY KEY, remark text, body text)",
        "ALTER TABLE large ALTER body SET STORAGE EXTERNAL",
        f"INSERT INTO large VALUES (1, 'new', repeat('{piece}', {VALUE_BYTES // len(piece)}))",
    )
    project.register()
    project.ok("sink", "run", "--until-caught-up")
    database.execute("UPDATE large SET remark = 'seen' WHERE id = 1")
    project.ok("sink", "run", "--until-caught-up")
    assert project.query("SELECT remark, length(body) AS size, left(body, 16) AS head FROM large") == [
        {"remark": "seen", "size": VALUE_BYTES, "head": piece}
    ]
    assert project.verify()["ok"]
    project.ok("fold")
    assert project.verify()["ok"]
    assert project.query("SELECT count(*) AS letters FROM lake.dead_letters") == [{"letters": 0}]
