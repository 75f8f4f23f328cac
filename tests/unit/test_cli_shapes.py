"""What commands print with `--json` is what docs/reference/json.schema.json says, field by field."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.cli.shapes import ERROR, SHAPES, schema_of
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import TableId
from tests.lake_model import Feed
from tests.lakes import make_sink
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
    "rules list": "rules list",
    "rules alerts": "rules alerts",
    "rules silences": "rules silences",
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
    return made


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        cli.main([*words, "--json"])
    output.configure(config=None, as_json=False, verbosity=0)
    return capfd.readouterr().out


@pytest.mark.parametrize("name", LINES)
def test_an_output_has_its_shape_and_no_other_field(
    name: str, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    out = run([w.replace("_", " ") for w in LINES[name].split()], capfd)
    documents = [json.loads(line) for line in out.splitlines()] if SHAPES[name] == "rows" else [json.loads(out)]
    for document in documents:
        jsonschema.validate(document, schema_of(SHAPES[name], strict=True))
        assert "error" not in document, document


def test_an_error_has_its_shape(capfd: pytest.CaptureFixture[str]) -> None:
    jsonschema.validate(json.loads(run(["stats"], capfd)), schema_of(ERROR, strict=True))


def test_every_shape_is_of_a_command_and_is_compared() -> None:
    assert set(SHAPES) == set(LINES)
    assert set(SHAPES) <= {" ".join(path) for path in VERBS}


def test_a_field_that_changes_its_kind_is_seen() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tables": [{"table": 1}]}, schema_of(SHAPES["tables"]))
