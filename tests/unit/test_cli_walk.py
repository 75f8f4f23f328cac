"""Every command of the tree, found by walking it: a person's mistakes end alike everywhere, in words and in JSON."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.events import TableId
from tests.lake_model import Feed
from tests.terminals import terminal
from tests.unit.test_cli_help import VERBS, examples

ORDERS = TableId("public", "orders")
# A command that reads no configuration, and why.
WITHOUT_CONFIG = {("init",): "it writes the configuration"}
TABLE_VERBS = [
    path
    for path, command in VERBS.items()
    if any((p.metavar or "").startswith(("TABLE", "[TABLE")) for p in command.params)
    and path[0] != "connector"  # asks a running Connect first
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shop")
    feed = Feed(made, (ORDERS,))
    tx = feed.begin()
    tx.insert(ORDERS, 1, 10, "ä")
    tx.commit()
    feed.land()
    (made / "cdc-lake.yaml").write_text("source: {name: pos}\n")
    (made / "slip.yaml").write_text("snik: {}\n")
    return made


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 1;"))
    yield
    output.configure(config=None, as_json=False, verbosity=0)


def run(capfd: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


def words_of(path: tuple[str, ...]) -> list[str]:
    """A line that the command's own help gives as an example, without what stands before and behind a pipe."""
    name = " ".join(["cdc-lake", *path])
    line = next(part for e in examples(VERBS[path]) for part in e.split(" | ") if part.strip().startswith(name))
    return shlex.split(line.split(" > ")[0])[1:]


def check_error(capfd: pytest.CaptureFixture[str], words: list[str], named: str) -> None:
    """The words end with 2 and one error that names the slip, in words on stderr and as JSON on stdout."""
    code, out, err = run(capfd, words)
    assert (code, out) == (2, ""), err
    assert [len(re.findall(f"^ *{part}", err, re.M)) for part in ("Error: ", "why: ", "next: ")] == [1, 1, 1], err
    assert named in err
    assert "Traceback" not in err
    code, out, err = run(capfd, [*words, "--json"])
    assert (code, err) == (2, "")
    error: dict[str, Any] = json.loads(out)["error"]
    assert list(error) == ["code", "message", "why", "next"]
    assert named in error["message"] + error["why"]
    assert error["next"]


@pytest.mark.parametrize("path", [p for p in VERBS if p not in WITHOUT_CONFIG], ids=" ".join)
def test_a_wrong_key_of_the_configuration_is_one_error_and_2(
    path: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    check_error(capfd, [*words_of(path), "--config", "slip.yaml"], "snik")


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_an_unknown_option_is_one_error_and_2(path: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    check_error(capfd, [*path, "--no-such-option"], "--no-such-option")


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_a_configuration_that_is_not_there_is_one_error_and_2(
    path: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    if path not in WITHOUT_CONFIG:
        check_error(capfd, [*words_of(path), "--config", "not-there.yaml"], "not-there.yaml")


def test_there_are_commands_that_take_a_table() -> None:
    assert len(TABLE_VERBS) > 5


@pytest.mark.parametrize("path", TABLE_VERBS, ids=" ".join)
def test_an_unknown_table_is_an_error_that_names_it(path: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    words = ["oders" if p.metavar and "TABLE" in p.metavar else "1" for p in VERBS[path].params if is_argument(p)]
    code, out, err = run(capfd, [*path, *words])
    assert code == 2, (code, out, err)
    assert "Traceback" not in err
    assert err.count("Error: ") == 1


def is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def test_no_colour_reaches_a_terminal_that_wants_none(project: Path) -> None:
    with terminal(project, "tables", env={"NO_COLOR": "1", "COLUMNS": "200"}) as screen:
        assert screen.ends(seconds=60) == 0
    assert "public.orders" in screen.text
    assert not re.search(r"\x1b\[[0-9;]*[3-4][0-7]m", screen.text)


def test_a_table_with_too_many_columns_for_the_terminal_is_shown_as_lines(project: Path) -> None:
    with terminal(project, "tables", env={"COLUMNS": "80"}) as screen:
        assert screen.ends(seconds=60) == 0
    assert re.search(r"table *public\.orders", screen.text)


# What takes something away, and where it is an option that does.
TAKES_AWAY = [
    ("connector", "delete"),
    ("connector", "register"),
    ("dlq", "drop"),
    ("dlq", "replay"),
    ("down",),
    ("erase",),
    ("maintain",),
    ("replay",),
    ("retention", "apply"),
    ("stream", "replay"),
    ("verify",),
]


@pytest.mark.parametrize("path", TAKES_AWAY, ids=" ".join)
def test_what_takes_something_away_can_be_tried_before(path: tuple[str, ...]) -> None:
    assert any("--dry-run" in p.opts for p in VERBS[path].params)


def test_a_dry_down_names_what_would_go_and_leaves_it(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs = project / ".cdc-lake" / "logs"
    logs.mkdir(parents=True)
    code, out, _ = run(capfd, ["--json", "down", "--wipe", "--dry-run"])
    assert (code, json.loads(out)) == (0, {"would_stop": [], "would_delete": [str(logs)]})
    code, out, err = run(capfd, ["down", "--dry-run"])
    assert (code, out, err) == (0, "", "Would be stopped: nothing, no part runs.\n")
    assert logs.exists()
    logs.rmdir()
