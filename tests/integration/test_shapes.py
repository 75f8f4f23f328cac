"""What commands that need the stack print with `--json` is what json.schema.json says, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Database, RunningStack
from tests.projects import Project, make_project
from tests.shapes import check_shape

pytestmark = pytest.mark.stack


@pytest.fixture
def project(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    database.execute(
        "CREATE TABLE goods (id int PRIMARY KEY, name text, price numeric(8,2))",
        "INSERT INTO goods SELECT i, 'good ' || i, i * 1.10 FROM generate_series(1, 50) i",
    )
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as made:
        yield made


def says(project: Project, command: str, *more: str, exit_code: int = 0) -> dict[str, Any]:
    """The document that a command prints, which has its shape and no other field."""
    done = project.run("--json", *command.split(), *more)
    assert done.returncode == exit_code, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    check_shape(command, document)
    return document


def test_commands_that_need_the_stack_print_their_shapes(project: Project) -> None:
    name, file = project.name, f"connectors/{project.name}.json"
    says(project, "connector plugins")
    assert says(project, "connector validate", file)["ok"]
    assert says(project, "connector register", file, "--dry-run")["changed"]
    assert says(project, "connector register", file)["streaming"]
    says(project, "connector list")
    assert says(project, "connector status", name)["error"] is None
    # The rows of the snapshot, and heartbeats.
    assert says(project, "sink run", "--until-caught-up")["events"] >= 50
    says(project, "connector offsets", name)
    says(project, "connector snapshot", name, "public.goods")
    assert says(project, "connector restart", name)["reading"]
    says(project, "connector pause", name)
    assert says(project, "connector resume", name)["reading"]
    assert says(project, "verify")["ok"]
    with psycopg.connect(project.dsn, autocommit=True) as con:
        con.execute("UPDATE goods SET price = price + 1 WHERE id = 1")
    assert not says(project, "verify", "--wait", "0", exit_code=3)["ok"]
    says(project, "connector stop", name)
    assert says(project, "connector delete", name, "--dry-run")["deleted"] is False
    assert says(project, "connector delete", name, "--drop-slot")["deleted"]


def test_the_retailer_prints_its_shapes(project: Project) -> None:
    assert says(project, "shop load", "--rows", "500")["loaded"]
    assert says(project, "shop trade", "--seconds", "1")["transactions"]
    assert says(project, "shop order", "--seconds", "1", "--rate", "20", "--speed", "600")["events"]
    assert says(project, "shop scan", "--seconds", "1", "--rate", "20", "--speed", "600")["messages"]
