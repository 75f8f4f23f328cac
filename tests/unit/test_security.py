"""What docs/security.md says of the code as a whole, and what no other test looks at."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.serve.http import parse_address
from tests.lakes import CONNECTOR, event, make_sink

ROOT = Path(__file__).parents[2]
PERSON = "Jane Doe, 1970-01-01"


def show(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cdc_lake", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_the_contents_of_a_dead_letter_are_shown_only_when_they_are_asked_for(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.people")
    kafka.produce("pos.public.people", 0, b'{"id":1}', event("people", {"id": 1, "name": PERSON})[1][:-2])
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    (tmp_path / "connectors").mkdir()
    file = {"name": CONNECTOR.name, "config": dict(CONNECTOR.config)}
    (tmp_path / "connectors" / "pos.json").write_text(json.dumps(file))
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos, connector: connectors/pos.json}\n")
    letter = "pos.public.people/0/0"
    assert PERSON not in show(tmp_path, "dlq", "show", letter) + show(tmp_path, "--json", "dlq", "list")
    assert PERSON in show(tmp_path, "dlq", "show", letter, "--reveal")


def test_metrics_are_answered_on_this_machine_alone_unless_an_address_is_named() -> None:
    assert parse_address(":9464") == ("127.0.0.1", 9464)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-demo.lock", "requirements-image.lock"])
def test_every_locked_package_has_an_exact_version_and_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / lock).read_text(), flags=re.M | re.I)
    packages = [entry for entry in entries if entry.strip()]
    assert len(packages) > 20
    for entry in packages:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_environments_are_built_from_hashes_alone() -> None:
    commands = re.findall(r"pip install .*", (ROOT / "scripts" / "environment.sh").read_text().replace("\\\n", " "))
    assert commands
    assert [c for c in commands if "--require-hashes" not in c and "--no-deps" not in c] == []


def test_nothing_that_came_from_outside_is_ever_run() -> None:
    """No eval, no exec, no pickle, no shell, no YAML that makes objects."""
    found = []
    for path in (ROOT / "cdc_lake").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                found += [
                    f"{path}: {n}" for n in names if n.partition(".")[0] in {"pickle", "marshal", "shelve", "dill"}
                ]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
                if called in {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"} or shell:
                    found.append(f"{path}: {called}")
    assert found == []
