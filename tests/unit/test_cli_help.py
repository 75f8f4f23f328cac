"""Every command explains itself with examples that parse; a slip is answered with the near name and exit code 2."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from cdc_lake import __version__
from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.errors import LakeError

HEAVY = {"duckdb", "pyarrow", "deltalake", "kafka", "confluent_kafka", "pydantic", "psycopg", "httpx", "yaml", "rich"}
ROOT = cli.build()


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(ROOT))
VERBS = {path: command for path, command in COMMANDS.items() if path and not getattr(command, "commands", None)}


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


def examples(command: Any) -> list[str]:
    lines = (command.epilog or "").split("Examples:")[-1].splitlines()
    return [line.strip() for line in lines if line.strip().startswith("cdc-lake ")]


def parse(words: list[str]) -> Any:
    """Follow a command line to its last command and parse its options, without running it."""
    context = ROOT.make_context("cdc-lake", cli.hoist_globals(words))
    while hasattr(context.command, "resolve_command"):
        name, command, arguments = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, arguments, parent=context)
    return context


@pytest.fixture(autouse=True)
def _no_options_left_over() -> Iterator[None]:
    yield
    output.configure(config=None, as_json=False, verbosity=0)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_exits_0_and_says_what_the_command_does(path: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, *path, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(['cdc-lake', *path])} ")
    assert (COMMANDS[path].help or "").strip(), "no help text"
    assert "[bold]" not in out


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_has_examples_and_they_parse(path: tuple[str, ...]) -> None:
    found = examples(VERBS[path])
    assert found, "no examples"
    assert any(e.startswith(" ".join(["cdc-lake", *path])) or f" {path[-1]}" in e for e in found)
    for example in found:
        words = shlex.split(example.split(" | ")[0].split(" > ")[0])
        try:
            context = parse(words[1:])
        except TyperException as error:
            pytest.fail(f"{example}: {error.format_message()}")
        assert context.command_path.startswith("cdc-lake ")


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    silent = [p.name for p in VERBS[path].params if p.param_type_name == "option" and not p.help]
    assert silent == []


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = "import sys\nfrom cdc_lake.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: cdc-lake")
    assert {m.split(".")[0] for m in done.stderr.split()} & HEAVY == set()


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "cdc_lake", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"cdc-lake {__version__}"


@pytest.mark.parametrize(
    ("words", "message", "why"),
    [
        (["stats"], 'No such command "stats".', 'Did you mean "status"?'),
        (["connector", "registr"], 'No such command "registr".', 'Did you mean "register"?'),
        (["down", "--wype"], "No such option --wype.", 'Did you mean "--wipe"?'),
        (["--verbos", "up"], "No such option --verbos.", 'Did you mean "--verbose"?'),
        (["status", "--jsn"], "No such option --jsn.", 'Did you mean "--json"?'),
        (["connector", "pause"], "Missing argument 'NAME'.", "Usage: cdc-lake connector pause "),
        (["zzz"], 'No such command "zzz".', "Usage: cdc-lake [OPTIONS] COMMAND [ARGS]..."),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_slip_is_usage_and_names_the_near_one(
    words: list[str], message: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capfd, *words)
    assert (code, out) == (2, "")
    assert f"Error: {message}" in err
    assert why in err
    assert "next: cdc-lake" in err
    assert "Traceback" not in err


def test_a_slip_under_json_is_one_document_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "statsu", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out) == {
        "error": {
            "code": "usage",
            "message": 'No such command "statsu".',
            "why": 'Did you mean "status"?',
            "next": "cdc-lake --help",
        }
    }


@pytest.mark.parametrize("words", [[], ["connector"]], ids=["no command", "no verb"])
def test_no_command_shows_the_help_on_stderr_and_is_usage(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, *words)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: cdc-lake")


def test_global_options_may_stand_anywhere_but_after_two_dashes() -> None:
    assert cli.hoist_globals(["query", "x", "--json", "--config", "a.yaml"]) == [
        *["--json", "--config", "a.yaml"],
        *["query", "x"],
    ]
    assert cli.hoist_globals(["query", "--", "--json"]) == ["query", "--", "--json"]


def run_with(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, *words: str) -> Any:
    def build() -> Any:
        app = typer.Typer()

        @app.command()
        def fail() -> None:
            raise error

        return typer.main.get_command(app)

    monkeypatch.setattr(cli, "build", build)
    return run(capfd, *words)


def test_an_error_is_told_with_what_why_and_next(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    error = LakeError("The table [x] is gone.", why="Its folder is empty.", next="cdc-lake tables")
    code, out, err = run_with(monkeypatch, capfd, error)
    assert (code, out) == (1, "")
    assert err == "Error: The table [x] is gone.\n  why:  Its folder is empty.\n  next: cdc-lake tables\n"


def test_a_defect_shows_no_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_with(monkeypatch, capfd, ZeroDivisionError("by zero"))
    assert (code, out) == (1, "")
    assert "ZeroDivisionError: by zero" in err
    assert "-vv" in err
    assert "Traceback" not in err


def test_a_package_of_an_extra_that_is_missing_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_with(monkeypatch, capfd, ModuleNotFoundError("No module named 'jgo'", name="jgo.maven"))
    assert (code, out) == (1, "")
    assert "pip install 'cdc-lake[embedded]'" in err
    assert "defect" not in err


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_with(monkeypatch, capfd, KeyboardInterrupt())  # type: ignore[arg-type]
    assert code == 130
    assert "Traceback" not in err


def test_output_into_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "cdc_lake", "--help"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
