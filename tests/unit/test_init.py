"""`init` writes a project that loads, loses no setting of the connector, overwrites nothing, and keeps secrets out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.capture.checks.administrator import AdministratorFacts, check_administrator
from cdc_lake.capture.preflight import TableFilter
from cdc_lake.checks import Status
from cdc_lake.config import load_config
from cdc_lake.connector_file import load_connector
from cdc_lake.events import TableId
from cdc_lake.init.address import read_address, variable_of
from cdc_lake.init.files import Outline, connector_of, connector_text, render, source_name
from tests.unit.test_cli_help import parse, run

ROOT = Path(__file__).parents[2]
SHIPPED = json.loads((ROOT / "connectors" / "pos.json").read_text())
SECRET = "correct-horse-battery"


def init(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = run(capfd, "init", *words, "--json")
    assert (code, err) == (0, ""), out
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("template", ["blank", "retail"])
def test_a_new_project_loads_and_names_files_that_are_there(
    template: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a project"
    said = init(capfd, str(folder), "--template", template)
    assert sorted(said["files"]) == sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    config = load_config(folder / "cdc-lake.yaml", environ={})
    connector = load_connector(config.connector_file(config.all_sources[0]))
    assert (config.all_sources[0].name, connector.topic_prefix) == ("pos", "pos")
    assert ".cdc-lake/" in (folder / ".gitignore").read_text().splitlines()


def test_the_values_of_a_new_configuration_are_the_defaults(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    init(capfd, str(tmp_path))
    written = load_config(tmp_path / "cdc-lake.yaml", environ={}).model_dump(exclude={"source"})
    assert written == load_config(environ={}).model_copy(update={"root": tmp_path}).model_dump(exclude={"source"})


@pytest.mark.parametrize("template", ["blank", "retail"])
def test_every_printed_command_parses(template: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = init(capfd, str(tmp_path / "p"), "--template", template)
    commands = [step["command"] for step in said["next"] if step["command"]]
    for command in commands:
        program, *words = shlex.split(command)
        if program == "cdc-lake":
            parse(words)
        else:
            assert program in {"cd", "marimo"}
    assert commands[0] == f"cd {shlex.quote(str(tmp_path / 'p'))}"


def test_another_name_leaves_every_other_setting_of_the_connector_as_it_is_shipped() -> None:
    renamed = {"topic.prefix", "slot.name", "publication.name", "table.include.list"}
    config = connector_of("shop_7", ("public", "Sales, old")).config
    assert {k: v for k, v in config.items() if k not in renamed} == {
        k: v for k, v in SHIPPED["config"].items() if k not in renamed
    }
    assert (config["topic.prefix"], config["slot.name"]) == ("shop_7", "cdc_lake_shop_7")
    assert connector_text("pos", ["public"]) == (ROOT / "connectors" / "pos.json").read_text()


def test_the_captured_schemas_are_those_that_are_named_and_no_others() -> None:
    wanted = TableFilter(connector_of("x", ("public", "Sales, old", "a.b")))
    assert all(
        wanted(TableId(schema, "t")) for schema in ("public", "Sales, old", "a.b", "cdc_lake") if schema[0] != "c"
    )
    assert wanted(TableId("cdc_lake", "heartbeat"))
    assert not any(wanted(TableId(schema, "t")) for schema in ("axb", "publicx", "Sales", "cdc_lake"))


def test_what_is_there_is_named_and_nothing_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "pos.json").write_text("mine")
    code, out, err = run(capfd, "init", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"connectors/pos.json is there already in {tmp_path}" in err
    assert f"next: name another folder, or overwrite: cdc-lake init {tmp_path} --force" in err
    assert [p.name for p in tmp_path.iterdir()] == ["connectors"]
    init(capfd, str(tmp_path), "--force")
    assert (tmp_path / "connectors" / "pos.json").read_text() != "mine"


def test_an_existing_gitignore_keeps_its_lines_and_gets_those_it_lacks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".gitignore").write_text("*.log\nlake/")
    init(capfd, str(tmp_path))
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["*.log", "lake/"]
    assert lines.count("lake/") == lines.count(".cdc-lake/") == 1


def test_a_dry_run_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = init(capfd, str(tmp_path / "p"), "--dry-run")
    assert (said["written"], (tmp_path / "p").exists()) == (False, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--template", "retial"], 'Did you mean "retail"?'),
        (["--template", "retail", "--dsn", "dbname=x"], "goes with no --dsn"),
        (["--name", "Mein Shop"], "--name mein_shop"),
        (["--dsn", f"postgresql://u:{SECRET}@[nowhere"], "--dsn is no address"),
        (["--dsn", "${NO_SUCH_VARIABLE_DSN}"], "NO_SUCH_VARIABLE_DSN"),
        (["--dsn", f"host=127.0.0.1 port=1 dbname=x password={SECRET}"], "correct --dsn"),
    ],
)
def test_a_slip_is_said_in_words_and_writes_nothing(
    words: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capfd, "init", str(tmp_path / "p"), *words)
    assert (code in (1, 2), out) == (True, "")
    assert said in err
    assert SECRET not in err
    assert "Traceback" not in err
    assert not (tmp_path / "p").exists()


# --- the address


URL = f"postgresql://admin:{SECRET}@db.internal:5433/Web%20Shop?sslmode=require"


def test_an_address_with_a_password_becomes_a_reference_to_a_variable_that_must_be_set() -> None:
    address = read_address(URL, None, Path(), {})
    assert address.written == "${WEB_SHOP_DSN}"
    assert address.dsn == URL
    assert address.export.startswith("export WEB_SHOP_DSN='")
    assert SECRET not in address.written + address.shown + address.export
    assert "sslmode=require" in address.shown


def test_an_address_that_the_environment_holds_becomes_a_reference_to_it() -> None:
    assert read_address(URL, None, Path(), {"MY_DSN": URL}).written == "${MY_DSN}"
    asked = read_address("${MY_DSN}", None, Path(), {"MY_DSN": URL})
    assert (asked.dsn, asked.written, asked.export) == (URL, "${MY_DSN}", "")


def test_an_address_without_a_password_is_the_default_of_a_variable_that_need_not_be_set(tmp_path: Path) -> None:
    address = read_address("host=db port=5433 dbname=pos user=me", "pos", Path(), {})
    outline = Outline("pos", dsn=address.written)
    for name, text in render(outline).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    config = load_config(tmp_path / "cdc-lake.yaml", environ={})
    assert config.dsn(config.all_sources[0]) == address.shown
    assert load_config(tmp_path / "cdc-lake.yaml", environ={"POS_DSN": URL}).all_sources[0].dsn == URL


def test_an_address_in_a_file_of_its_own_is_read_from_the_new_folder(tmp_path: Path) -> None:
    (tmp_path / "pos.secret").write_text(URL + "\n")
    address = read_address("${file:pos.secret}", None, tmp_path, {})
    assert (address.dsn, address.written) == (URL, "${file:pos.secret}")


def test_names_are_such_that_slots_topics_and_variables_may_bear_them() -> None:
    assert source_name("Web Shop-7") == "web_shop_7"
    assert source_name("日本") == "source"
    assert len("cdc_lake_" + source_name("x" * 200)) == 63
    assert variable_of("7up") == "SOURCE_7UP_DSN"


# --- rights


def test_an_administrator_who_may_not_prepare_the_source_is_told_what_is_lacking() -> None:
    able = AdministratorFacts("root", superuser=True, makes_roles=False, creates=False, strange=(TableId("a", "b"),))
    assert check_administrator(able).status is Status.OK
    weak = AdministratorFacts("app", superuser=False, makes_roles=False, creates=False, strange=(TableId("a", "b"),))
    found = check_administrator(weak)
    assert found.status is Status.WARN
    assert all(words in found.found for words in ("a role that replicates", "a schema", "a.b"))
