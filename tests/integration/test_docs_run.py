"""What README and docs tell people to type really runs: in a project of its own, on the real stack."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from cdc_lake.config import load_config
from cdc_lake.local.retail import loader
from cdc_lake.local.retail.rows import Size
from cdc_lake.query.session import open_session
from cdc_lake.sqltext import ident
from tests.integration.conftest import RunningStack, wait_for
from tests.receivers import taking_all
from tests.unit.test_docs import (
    COMMAND_LINES,
    FOREIGN,
    MODELS,
    OF_EVENTS,
    QUERIES,
    ROOT,
    RULES,
    Block,
    of_kind,
    write_rule,
)

pytestmark = pytest.mark.stack

# Not run here: commands that need a terminal, never end, or are about another place than a captured project. Each is
# parsed by tests/unit/test_docs.py; most have integration tests of their own.
NOT_HERE = re.compile(
    r"^(make|docker|cd|export|pip|uv|python) |^PYTHON="
    r"|^cdc-lake (sql|demo|up|down|shop|init .*--dsn|--install-completion|status --watch|serve(?! --views))\b"
    r"|^cdc-lake sink run( --(tables|accept-gap|metrics|log) .*)?$"
    r"|^cdc-lake query .* FROM events\."
)
LINES = list(dict.fromkeys(line for b, line in COMMAND_LINES if b not in OF_EVENTS and not NOT_HERE.search(line)))


@dataclass(frozen=True, slots=True)
class Project:
    """A folder as `make demo` leaves it: a small retailer, captured and landed."""

    folder: Path
    name: str
    dsn: str

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """A command line as a shell would run it, with `cdc-lake` of this environment."""
        program = f"{shlex.quote(sys.executable)} -m cdc_lake"
        return subprocess.run(
            ["/bin/sh", "-c", re.sub(r"(^|\| )cdc-lake ", rf"\1{program} ", line)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @contextlib.contextmanager
    def sink(self) -> Iterator[None]:
        """A sink that runs meanwhile, for what the pages say is done beside one."""
        command = [sys.executable, "-m", "cdc_lake", "-q", "sink", "run"]
        with subprocess.Popen(command, cwd=self.folder, stderr=subprocess.DEVNULL) as running:
            try:
                yield
            finally:
                running.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def project(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    name = f"docs_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {ident(name)}".encode())
    made = Project(tmp_path_factory.mktemp("project"), name, urlsplit(stack.dsn)._replace(path=f"/{name}").geturl())
    receivers = contextlib.ExitStack()
    try:
        fill(made.dsn)
        receiver = receivers.enter_context(taking_all())
        write(made, stack, receiver)
        for line in ("connector register connectors/pos.json", "sink run --until-caught-up", "fold"):
            done = made.run(f"cdc-lake {line}")
            assert done.returncode == 0, done.stderr
        yield made
    finally:
        receivers.close()
        made.run(f"cdc-lake connector delete {name} --drop-slot")
        with psycopg.connect(stack.dsn, autocommit=True) as admin:
            wait_for(lambda: not slots(admin, name), "the slot to be dropped")
            admin.execute(f"DROP DATABASE {ident(name)} WITH (FORCE)".encode())


def slots(admin: psycopg.Connection[tuple[object, ...]], database: str) -> list[tuple[object, ...]]:
    return admin.execute("SELECT slot_name FROM pg_replication_slots WHERE database = %s", [database]).fetchall()


def fill(dsn: str) -> None:
    loader.create_schema(dsn)
    loader.load(dsn, Size.for_rows(400))
    with psycopg.connect(dsn) as source:
        source.execute("UPDATE orders SET status = 'returned' WHERE order_id = (SELECT max(order_id) FROM orders)")


def write(project: Project, stack: RunningStack, receiver: str) -> None:
    connector = json.loads((ROOT / "connectors" / "pos.json").read_text())
    connector["name"] = project.name
    connector["config"] |= dict.fromkeys(("topic.prefix", "slot.name", "publication.name"), project.name)
    (project.folder / "connectors").mkdir()
    (project.folder / "connectors" / "pos.json").write_text(json.dumps(connector))
    settings = {
        "source": {"name": project.name, "connector": "connectors/pos.json", "dsn": project.dsn},
        "kafka": {"bootstrap": stack.bootstrap},
        "connect": {"url": stack.connect_url},
        "streams": {"outputs": {"finance": {"url": receiver}}},
    }
    (project.folder / "cdc-lake.yaml").write_text(json.dumps(settings))
    for block in (b for b in (*RULES, *MODELS) if b not in OF_EVENTS):
        write_rule(block, project.folder)


def output_of(line: str) -> list[str]:
    """What a page shows below a command, if it shows anything."""
    for block in of_kind("console"):
        lines = block.text.splitlines()
        if f"$ {line}" in lines:
            below = lines[lines.index(f"$ {line}") + 1 :]
            shown = list(takewhile(lambda text: not text.startswith("$ "), below))
            if shown:
                return shown
    return []


def first_line(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0].split() if lines else []


def test_there_is_something_to_run() -> None:
    assert len(LINES) > 10


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_documentation_runs_and_prints_what_is_shown(project: Project, line: str) -> None:
    with project.sink() if "--repair" in line else contextlib.nullcontext():
        done = project.run(re.sub(r"\bpos\b(?!\.json)", project.name, line) if " query" not in line else line)
    shown = output_of(line)
    slip = bool(shown) and shown[0].startswith("Error: ")
    assert done.returncode == (2 if slip and "usage" in done.stderr else 1 if slip else 0), done.stderr
    if slip:
        assert done.stderr.splitlines() == shown
    elif shown:
        assert first_line(done.stdout) == shown[0].split()


@pytest.mark.parametrize("block", [b for b in QUERIES if b not in OF_EVENTS], ids=str)
def test_a_query_of_the_documentation_answers(project: Project, block: Block) -> None:
    session = open_session(load_config(project.folder / "cdc-lake.yaml"))
    try:
        session.connection.execute(block.text).fetchall()
    finally:
        session.close()


@pytest.mark.parametrize("block", [b for b in of_kind("sql") if "-- postgresql" in b.text], ids=str)
def test_statements_for_the_source_are_taken_by_postgresql(stack: RunningStack, block: Block) -> None:
    name = f"docs_{uuid.uuid4().hex[:8]}"
    statements = [s for s in block.text.replace("cdc_lake_pos", name).split(";") if s.strip()]
    with psycopg.connect(stack.dsn, autocommit=True) as source:
        if "ALTER SYSTEM" in block.text:
            for statement in [*statements, "ALTER SYSTEM RESET wal_level"]:
                source.execute(statement.encode())
            return
        source.execute(f"CREATE DATABASE {ident(name)}".encode())
    try:
        dsn = urlsplit(stack.dsn)._replace(path=f"/{name}").geturl()
        loader.create_schema(dsn)
        with psycopg.connect(dsn) as source:
            for statement in statements:
                source.execute(statement.encode())
            source.rollback()
    finally:
        with psycopg.connect(stack.dsn, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {ident(name)} WITH (FORCE)".encode())


@pytest.mark.parametrize("block", [b for b in of_kind("python") if b not in FOREIGN], ids=str)
def test_a_python_block_runs_in_the_project(project: Project, block: Block) -> None:
    program = block.text.replace("lake/pos/", f"lake/{project.name}/")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project.folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_containers_shop_fills_an_empty_database_and_trades(project: Project, stack: RunningStack) -> None:
    name = f"shop_{uuid.uuid4().hex[:8]}"
    dsn = urlsplit(stack.dsn)._replace(path=f"/{name}").geturl()
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {ident(name)}".encode())
    try:
        loader.create_schema(dsn)
        command = [sys.executable, str(ROOT / "deploy/compose/shop.py")]
        environment = {**os.environ, "CDC_LAKE__SOURCE__DSN": dsn, "SHOP_ROWS": "400"}

        def check() -> int:
            return subprocess.run([*command, "--check"], cwd=project.folder, env=environment, check=False).returncode

        assert check() == 1, "an empty shop is not healthy yet"
        with subprocess.Popen([*command, "--rate", "50"], cwd=project.folder, env=environment) as shop:
            try:
                wait_for(lambda: loader.count_rows(dsn)["orders"] > orders_loaded(dsn), "the shop to sell")
                assert check() == 0
            finally:
                shop.send_signal(signal.SIGTERM)
                assert shop.wait(30) == 0
    finally:
        with psycopg.connect(stack.dsn, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {ident(name)} WITH (FORCE)".encode())


def orders_loaded(dsn: str) -> int:
    """Orders whose time is before the newest store's load; the workload's orders are newer."""
    with psycopg.connect(dsn) as source:
        row = source.execute("SELECT count(*) FROM orders WHERE xmin = (SELECT xmin FROM stores LIMIT 1)").fetchone()
    return int(row[0]) if row else 0
