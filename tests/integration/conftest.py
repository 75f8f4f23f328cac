"""What the tests against real parts share: one stack for all of them, a database for each.

`CDC_LAKE_TEST_STACK=<project folder>` uses the stack of that project and leaves it running: quick while developing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
import pytest

from cdc_lake.config import STATE_FOLDER
from cdc_lake.local.stack import Stack
from cdc_lake.sqltext import ident

T = TypeVar("T")

VARIABLE = "CDC_LAKE_TEST_STACK"
OWN_PROJECT = Path(__file__).parents[2] / STATE_FOLDER / "tests"


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Addresses of the stack, its project folder, and the stack itself to stop and start its parts."""

    dsn: str
    bootstrap: str
    connect_url: str
    project: Path
    stack: Stack


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database for one test."""

    name: str
    dsn: str

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection in autocommit mode."""
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})

    def execute(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the stack carries its marker."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """The running stack. Every session that uses it holds a share of a lock; the last one stops and wipes it."""
    lent = os.environ.get(VARIABLE)
    project = Path(lent) if lent else OWN_PROJECT
    project.mkdir(parents=True, exist_ok=True)
    running = Stack(project / STATE_FOLDER)
    running.state.create()
    with (running.state.folder / "in-use.lock").open("a") as share:
        fcntl.flock(share, fcntl.LOCK_SH)
        at = running.up()
        yield RunningStack(at.dsn, at.bootstrap, at.connect_url, project, running)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lent:
                running.down(wipe=True)


@contextlib.contextmanager
def own_stack(folder: Path) -> Iterator[RunningStack]:
    """A stack below `folder` for as long as the block lasts, whose parts may be killed: others must not lose theirs."""
    stack = Stack(folder / STATE_FOLDER)
    try:
        at = stack.up()
        yield RunningStack(at.dsn, at.bootstrap, at.connect_url, folder, stack)
    finally:
        stack.down(wipe=True)


@pytest.fixture
def database(stack: RunningStack) -> Iterator[Database]:
    """A fresh database, dropped with its replication slots when the test is over."""
    with fresh_database(stack) as made:
        yield made


@contextlib.contextmanager
def fresh_database(stack: RunningStack) -> Iterator[Database]:
    """An empty database for as long as the block lasts."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        admin.execute(f"create database {ident(name)}".encode())
        yield Database(name, urlsplit(stack.dsn)._replace(path=f"/{name}").geturl())
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        wait_for(lambda: _drop_slots(admin, name), f"the slots of {name} to be dropped")
        admin.execute(f"drop database if exists {ident(name)} with (force)".encode())


def _drop_slots(admin: psycopg.Connection[tuple[Any, ...]], database: str) -> bool:
    slots = admin.execute("select slot_name, active_pid from pg_replication_slots where database = %s", [database])
    for slot, pid in slots.fetchall():
        if pid is not None:
            admin.execute("select pg_terminate_backend(%s)", [pid])
            continue
        with contextlib.suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
            admin.execute("select pg_drop_replication_slot(%s)", [slot])
    left = admin.execute("select count(*) from pg_replication_slots where database = %s", [database]).fetchone()
    return left == (0,)


def wait_for(check: Callable[[], T], what: str, *, seconds: float = 60) -> T:
    """Ask until `check` answers something true, and return it; fail after `seconds`, naming `what` was awaited.

    An AssertionError or OSError inside `check` means "not yet"; the last one is shown when time is up.
    """
    deadline = time.monotonic() + seconds
    last: BaseException | None = None
    while True:
        try:
            answer = check()
            if answer:
                return answer
        except (AssertionError, OSError, psycopg.OperationalError) as error:
            last = error
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}" + (f"; last: {last}" if last else ""))
        time.sleep(0.05)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`eventually(check, what, seconds=60)`: wait for a condition with a deadline; see `wait_for`."""
    return wait_for
