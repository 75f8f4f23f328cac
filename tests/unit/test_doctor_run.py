"""`doctor` itself: a part that is away is one FAIL, what depends on it is not checked, and nothing hangs it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-canary"
CONFIG = """
source: {{name: pos, connector: pos.json, dsn: "postgresql://postgres:{secret}@127.0.0.1:{source}/pos"}}
kafka: {{bootstrap: "127.0.0.1:{kafka}"}}
connect: {{url: "http://somebody:{secret}@127.0.0.1:{connect}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pos.json").write_text((ROOT / "connectors" / "pos.json").read_text())
    return tmp_path


@pytest.fixture
def mute() -> Iterator[list[int]]:
    """Three ports that take connections and never answer."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        yield [listener.getsockname()[1] for listener in listeners]


def configure(folder: Path, source: int, kafka: int, connect: int) -> None:
    text = CONFIG.format(secret=SECRET, source=source, kafka=kafka, connect=connect)
    (folder / "cdc-lake.yaml").write_text(text)


def embedded(folder: Path) -> None:
    """A project on an embedded stack, which does not run."""
    (folder / "cdc-lake.yaml").write_text("source: {name: pos, connector: pos.json}\n")


def doctor(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdc_lake", "doctor", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert done.returncode == 3, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) == {"checks", "skipped", "ok"}
    assert found["ok"] is False
    for check in found["checks"]:
        assert set(check) == {"name", "status", "found", "why", "fix", "source"}
        assert check["status"] in {"OK", "WARN", "FAIL"}
        assert (check["status"] == "OK") == (not check["fix"])
    return found


def failing(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {c["name"]: c for c in found["checks"] if c["status"] == "FAIL"}


def test_parts_that_are_away_fail_once_each_and_what_depends_on_them_is_not_checked(folder: Path) -> None:
    configure(folder, 1, 1, 1)
    found = document(doctor(folder, "--json"))
    assert set(failing(found)) == {"source.reachable", "connect.reachable", "broker.reachable"}
    skipped = {(s["name"], s["because"]) for s in found["skipped"]}
    assert {("slot", "source.reachable"), ("connector", "connect.reachable"), ("topics", "broker.reachable")} <= skipped
    assert not (folder / "lake").exists(), "the probe leaves nothing behind"


def test_parts_that_hang_are_named_when_time_is_up(folder: Path, mute: list[int]) -> None:
    configure(folder, *mute)
    found = document(doctor(folder, "--json", "--timeout", "3"))
    hanging = [c["found"] for c in found["checks"] if c["name"] == "doctor.deadline"]
    assert len(hanging) == 2
    assert "Kafka Connect" in hanging[0]
    assert "still checking Kafka after 3 s" in hanging[1]
    assert {"lake.writable", "lake.disk", "machine.python"} <= {c["name"] for c in found["checks"]}


def test_an_embedded_stack_that_is_down_is_named_with_the_command_that_starts_it(folder: Path) -> None:
    embedded(folder)
    found = document(doctor(folder, "--json"))
    bad = failing(found)
    assert set(bad) == {"stack.postgres", "stack.kafka", "stack.connect"}
    assert {c["fix"] for c in bad.values()} == {"cdc-lake up"}
    assert {s["because"] for s in found["skipped"]} == set(bad)


def test_a_connector_file_that_cannot_be_read_fails_and_the_rest_is_still_checked(folder: Path) -> None:
    embedded(folder)
    (folder / "pos.json").write_text('{"name": "pos", ')
    found = document(doctor(folder, "--json"))
    assert "line 1" in failing(found)["connector.file"]["found"]
    assert "settings" in {s["name"] for s in found["skipped"]}
    assert "lake.writable" in {c["name"] for c in found["checks"]}


def test_a_wrong_configuration_is_a_usage_error(folder: Path) -> None:
    (folder / "cdc-lake.yaml").write_text("sorce: {}\n")
    done = doctor(folder)
    assert done.returncode == 2
    assert 'Did you mean "source"?' in done.stderr


def test_a_person_reads_what_is_wrong_why_and_the_fix(folder: Path) -> None:
    embedded(folder)
    settings = json.loads((folder / "pos.json").read_text())
    settings["config"]["skipped.operations"] = "t"
    (folder / "pos.json").write_text(json.dumps(settings))
    done = doctor(folder)
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "settings.skipped.operations" in line)
    assert lines[at].split()[0] == "FAIL"
    assert lines[at + 1].startswith("       why: Skipped operations never leave PostgreSQL")
    assert 'fix: write "skipped.operations": "none" in pos.json' in lines[at + 2]
    told = re.search(r"\b(\d+) of (\d+) as they should be", done.stdout)
    assert told is not None
    assert int(told[1]) == int(told[2]) - 1
    assert "checking" not in done.stdout, "progress is on stderr"
    assert "FAIL" in done.stderr.splitlines()[-1]
