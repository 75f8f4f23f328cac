"""Shells complete tables, connectors, dead letters and choices from what is there, and load nothing heavy for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cdc_lake import config
from cdc_lake.cli import complete
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from tests.lake_model import SOURCE
from tests.unit.test_cli_help import HEAVY, ROOT

TABLES = (TableId("public", "orders"), TableId("public", "order_lines"), TableId("hr", "staff old"))
# What each shell's script puts into the environment; the answers' form is the shell's.
SHELLS = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos}\n")
    for table in TABLES:
        Path(log_path(str(tmp_path / "lake"), SOURCE, table)).mkdir(parents=True)
    return tmp_path


def ask(folder: Path, line: str, shell: str = "bash", code: str = "") -> subprocess.CompletedProcess[str]:
    program = "import sys\nfrom cdc_lake.cli.main import main\ntry: main()\nexcept SystemExit: pass\n" + code
    environment = {**os.environ, "_CDC_LAKE_COMPLETE": f"complete_{shell}", **SHELLS[shell](line)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def suggested(folder: Path, line: str) -> list[str]:
    done = ask(folder, line)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_told_the_tables_that_begin_so(project: Path, shell: str) -> None:
    told = ask(project, "cdc-lake changes ord", shell).stdout
    assert all(name in told for name in ("orders", "order_lines"))
    assert "staff" not in told


@pytest.mark.parametrize("verb", ["changes", "history", "fold", "rebuild", "verify", "replay", "erase", "maintain"])
def test_every_command_that_takes_a_table_completes_it(project: Path, verb: str) -> None:
    assert suggested(project, f"cdc-lake {verb} hr") == ["hr.staff old"]


def test_the_configuration_that_is_named_is_the_one_that_is_read(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    line = f"cdc-lake --config {project}/cdc-lake.yaml changes public.orders"
    assert suggested(tmp_path / "elsewhere", line) == ["public.orders"]
    assert suggested(tmp_path / "elsewhere", "cdc-lake changes o") == []


def test_a_choice_is_completed(project: Path) -> None:
    assert suggested(project, "cdc-lake query --format p") == ["parquet"]
    assert suggested(project, "cdc-lake init --template r") == ["retail"]


@pytest.fixture
def worker() -> Iterator[str]:
    class Connect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(["pos", "payments"]).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Connect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_connectors_are_those_of_the_worker_or_else_those_that_have_a_file(project: Path, worker: str) -> None:
    (project / "connectors").mkdir()
    (project / "connectors" / "x.json").write_text('{"name": "plans", "config": {}}')
    assert suggested(project, "cdc-lake connector pause p") == ["plans"]
    (project / "cdc-lake.yaml").write_text(f"connect: {{url: '{worker}'}}\n")
    assert suggested(project, "cdc-lake connector pause p") == ["payments", "pos"]


@pytest.mark.parametrize("text", ["", "lake: [", "lake: {uri: 's3://bucket/lake'}", "lake: 7", "- 1"])
def test_whatever_is_wrong_nothing_is_suggested_and_nothing_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "cdc-lake.yaml").write_text(text)
    assert suggested(tmp_path, "cdc-lake changes o") == []
    assert suggested(tmp_path, "cdc-lake dlq show p") == []


def test_a_key_press_loads_none_of_the_heavy_libraries(project: Path) -> None:
    done = ask(project, "cdc-lake changes o", code="print(*sys.modules, file=sys.stderr)")
    assert done.stdout.split() == ["order_lines", "orders"]
    # Typer takes pydantic itself, to read what comes before the word.
    assert {m.split(".")[0] for m in done.stderr.split()} & (HEAVY - {"yaml", "pydantic"}) == set()


def test_what_a_parameter_completes_follows_from_its_metavar() -> None:
    assert complete.DEFAULT_FILE == config.DEFAULT_FILE
    (show,) = [c for n, c in ROOT.commands["dlq"].commands.items() if n == "show"]
    assert [p.name for p in show.params if p._custom_shell_complete is not None] == ["letter"]
