"""What commands print with `--json` is what docs/reference/json.schema.json says, field by field."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import jsonschema
import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.cli.shapes import ABOUT, ERROR, SHAPES, schema_of
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import TableId
from tests.lake_model import Feed
from tests.lakes import make_sink
from tests.shapes import ON_THE_STACK, check_shape
from tests.unit.test_cli_help import VERBS

ORDERS = TableId("public", "orders")
FILE = {
    "name": "pos",
    "config": {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "topic.prefix": "pos",
        "provide.transaction.metadata": "true",
    },
}
RULE = """title: Order {id} is small
start: beginning
key: [id]
streams: {s: {table: orders}}
threshold: {of: s, when: qty < 20}
"""
LETTERS = "pos.public.letters"
# In this order: what is written by one is read by the next.
LINES = {
    "tables": "tables",
    "query": "query FROM_orders",
    "history": "history orders 1",
    "changes": "changes orders --limit 1",
    "replay": "replay orders --from tx:00001 --to tx:00002",
    "maintain": "maintain --dry-run",
    "fold": "fold",
    "rebuild": "rebuild orders",
    "recover": "recover",
    "erase": "erase orders 1 --dry-run",
    "status": "status",
    "doctor": "doctor",
    "dlq list": "dlq list",
    "dlq show": f"dlq show {LETTERS}/0/0",
    "dlq replay": f"dlq replay {LETTERS}/0/0 --dry-run",
    "dlq drop": f"dlq drop {LETTERS}/0/0",
    "retention plan": "retention plan",
    "retention apply": "retention apply",
    "init": "init new --dry-run",
    "rules check": "rules check",
    "rules test": "rules test low",
    "rules run": "rules run --until-caught-up",
    "rules list": "rules list",
    "rules alerts": "rules alerts",
    "rules ack": "rules ack ALERT",
    "rules resolve": "rules resolve ALERT",
    "rules silence": "rules silence low",
    "rules silences": "rules silences",
    "serve": "serve --views",
    "stream check": "stream check",
    "stream explain": "stream explain changed",
    "stream run": "stream run --until-caught-up",
    "stream replay": "stream replay changed --dry-run",
    "down": "down --dry-run",
    "notebook": "notebook",
    "sql": "sql",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shop")
    feed = Feed(made, (ORDERS,))
    for key in range(2):
        tx = feed.begin()
        tx.insert(ORDERS, key, 10, "ä")
        tx.commit()
    feed.land()
    kafka = MemoryKafka()
    kafka.create_topic(LETTERS)
    kafka.produce(LETTERS, 0, b'{"id":1}', b"{broken")
    make_sink(kafka, made).run(until_caught_up=True)
    (made / "connectors").mkdir()
    (made / "connectors" / "pos.json").write_text(json.dumps(FILE))
    (made / "cdc-lake.yaml").write_text("source: {name: pos}\n")
    (made / "rules").mkdir()
    (made / "rules" / "low.yaml").write_text(RULE)
    (made / "streams").mkdir()
    (made / "streams" / "changed.sql").write_text("SELECT id, qty FROM changes.orders\n")
    return made


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        cli.main([*words, "--json"])
    output.configure(config=None, as_json=False, verbosity=0)
    return capfd.readouterr().out


def an_alert(capfd: pytest.CaptureFixture[str]) -> str:
    """The id of one, whichever tests ran before."""
    run(["rules", "run", "--until-caught-up"], capfd)
    return str(json.loads(run(["rules", "alerts"], capfd))["alerts"][0]["id"])


@pytest.mark.parametrize("name", LINES)
def test_an_output_has_its_shape_and_no_other_field(
    name: str, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "stdin", io.StringIO("FROM orders;"))
    words = LINES[name].split()
    if "ALERT" in words:
        words[-1] = an_alert(capfd)
    out = run([w.replace("_", " ") for w in words], capfd)
    documents = [json.loads(line) for line in out.splitlines()] if SHAPES[name] == "rows" else [json.loads(out)]
    for document in documents:
        assert "error" not in document, document
        if SHAPES[name] == "rows":
            jsonschema.validate(document, schema_of("rows"))
        else:
            check_shape(name, document)


def test_an_error_has_its_shape(capfd: pytest.CaptureFixture[str]) -> None:
    jsonschema.validate(json.loads(run(["stats"], capfd)), schema_of(ERROR, strict=True))


def test_one_alert_has_the_shape_of_one(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    check_shape("rules alerts", json.loads(run(["rules", "alerts", an_alert(capfd)], capfd)))


def test_the_version_of_the_shapes_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    jsonschema.validate(json.loads(run(["--version"], capfd)), schema_of(ABOUT, strict=True))


def test_every_command_has_a_shape_that_is_compared() -> None:
    assert {" ".join(path) for path in VERBS} == set(SHAPES)
    assert set(SHAPES) == set(LINES) | ON_THE_STACK


def test_a_field_that_changes_its_kind_is_seen() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tables": [{"table": 1}]}, schema_of(SHAPES["tables"]))
