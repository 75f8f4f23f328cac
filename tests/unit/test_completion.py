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
from cdc_lake.cli import complete, complete_names
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import DROPPED, DeadLetters
from cdc_lake.land.layout import log_path
from tests.lake_model import SOURCE
from tests.lakes import make_sink
from tests.unit.test_cli_help import COMMANDS, HEAVY, ROOT

WORDS = json.loads(complete.WORDS.read_text())

TABLES = (TableId("public", "orders"), TableId("public", "order_lines"), TableId("hr", "staff old"))
# What each shell's script puts into the environment; the answers' form is the shell's.
SHELLS = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    "pwsh": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_WORD_TO_COMPLETE": line.split(" ")[-1]},
}

FISH = "_TYPER_COMPLETE_FISH_ACTION"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos}\n")
    for table in TABLES:
        Path(log_path(str(tmp_path / "lake"), SOURCE, table)).mkdir(parents=True)
    return tmp_path


def ask(folder: Path, line: str, shell: str = "bash", code: str = "") -> subprocess.CompletedProcess[str]:
    program = (
        "import sys\nfrom cdc_lake.__main__ import main\ntry: main()\nexcept SystemExit as end: print(end)\n" + code
    )
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


@pytest.fixture
def letters(project: Path, monkeypatch: pytest.MonkeyPatch) -> DeadLetters:
    """Two dead letters of a lake, and a cache that knows nothing of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    kafka = MemoryKafka()
    for topic in ("pos.public.orders", "pos.transaction"):
        kafka.create_topic(topic)
    for broken in (b"{", b"["):
        kafka.produce("pos.public.orders", 0, b'{"id":1}', broken)
    make_sink(kafka, project).run(until_caught_up=True)
    return DeadLetters(str(project / "lake"), SOURCE)


def test_dead_letters_are_those_that_wait_now_though_they_were_asked_for_before(
    project: Path, letters: DeadLetters
) -> None:
    first, second = (f"pos.public.orders/0/{offset}" for offset in (0, 1))
    for _ in range(2):
        assert suggested(project, "cdc-lake dlq show p") == [first, second]
    letters.decide(letters.find([first]), DROPPED)
    assert suggested(project, "cdc-lake dlq show p") == [second]


def test_dead_letters_that_are_as_they_were_are_told_without_opening_their_table(
    project: Path, letters: DeadLetters
) -> None:
    ask(project, "cdc-lake dlq show p")
    done = ask(project, "cdc-lake dlq show p", code="print(*sys.modules, file=sys.stderr)")
    assert len(done.stdout.split()) == len(letters.all())
    assert {m.split(".")[0] for m in done.stderr.split()} & (HEAVY - {"yaml"}) == set()


# --- the line


def typers_own(words: list[str], begun: str) -> list[tuple[str, str]]:
    """What typer itself would say, which imports every command for it."""
    from typer._click.shell_completion import ShellComplete

    class Shell(ShellComplete):
        name = source_template = ""
        source_vars = get_completion_args = format_completion = None  # type: ignore[assignment]

    Shell.__abstractmethods__ = frozenset()
    found = Shell(ROOT, {}, "cdc-lake", "_").get_completions(list(words), begun)
    return sorted((item.value, item.help or "") for item in found)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_commands_and_options_are_those_that_typer_finds_in_the_commands(path: tuple[str, ...]) -> None:
    anywhere = {n for o in WORDS["options"] if o.get("anywhere") for n in o["names"]} if path else set()
    for begun in ("-", "--", "--f", *([""] if "commands" in COMMANDS[path].__dict__ else [])):
        found = [(w, t) for w, t in complete.suggestions(WORDS, list(path), begun) if w not in anywhere]
        assert sorted(found) == typers_own(list(path), begun), begun


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cdc-lake query --format json --fo", []),  # once is enough
        ("cdc-lake -v tables --", ["--help", "--config", "--json", "--quiet"]),  # those of the program, too
        ("cdc-lake --json query --format p", ["parquet"]),
        ("cdc-lake query --json --format p", ["parquet"]),  # global options may stand anywhere
        ("cdc-lake query --format=json --as", ["--as-of"]),
        ("cdc-lake query --format = p", ["parquet"]),  # as bash parts the words
        ("cdc-lake changes -- --f", []),
        ("cdc-lake quarry x", []),
        ("cdc-lake history orders o", []),  # its second argument is a key
        ("cdc-lake verify orders hr", ["hr.staff old"]),  # takes several
        ("cdc-lake query 'SELECT 1", []),  # the quote is still open
    ],
)
def test_what_may_stand_next_follows_from_the_whole_line(project: Path, line: str, expected: list[str]) -> None:
    assert suggested(project, line) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_that_takes_an_option_and_its_value_as_one_word_is_told_both(project: Path, shell: str) -> None:
    assert "--format=parquet" in ask(project, "cdc-lake query --format=p", shell).stdout


def test_fish_asks_first_whether_there_is_anything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHELLS, "fish", lambda line: {"_TYPER_COMPLETE_ARGS": line, FISH: "is-args"})
    assert ask(project, "cdc-lake changes o", "fish").stdout == "0\n"
    assert ask(project, "cdc-lake changes x", "fish").stdout == "1\n"


def test_a_script_for_the_shell_is_still_typers(project: Path) -> None:
    environment = {**os.environ, "_CDC_LAKE_COMPLETE": "source_bash"}
    command = [sys.executable, "-m", "cdc_lake"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True)
    assert "_CDC_LAKE_COMPLETE=complete_bash" in done.stdout


def test_a_key_press_loads_none_of_the_heavy_libraries(project: Path) -> None:
    done = ask(project, "cdc-lake changes o", code="print(*sys.modules, file=sys.stderr)")
    assert done.stdout.split() == ["order_lines", "orders"]
    assert {m.split(".")[0] for m in done.stderr.split()} & ((HEAVY | {"typer"}) - {"yaml"}) == set()


def test_what_a_parameter_completes_follows_from_its_metavar() -> None:
    assert complete_names.DEFAULT_FILE == config.DEFAULT_FILE
    assert [a["takes"] for a in WORDS["commands"]["dlq"]["commands"]["show"]["arguments"]] == ["letters"]
