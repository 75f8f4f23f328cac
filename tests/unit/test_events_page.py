"""What docs/how-to/events.md says is so: its commands and queries run on scans that landed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.query.placed import open_logs
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.run import Watch, open_connection
from cdc_lake.react.stream.modelfile import load_model, model_files
from cdc_lake.react.stream.run import Streams
from cdc_lake.react.stream.shape import check
from tests.events import Warehouse, binary
from tests.lakes import end, event, make_sink
from tests.unit.test_docs import COMMAND_LINES, MODELS, OF_EVENTS, QUERIES, RULES, Block, write_rule

SHELF = {"store_id": 3, "product_id": 7, "on_hand": 9}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    made = Warehouse(tmp_path_factory.mktemp("warehouse"))
    scan = {"store_id": 3, "product_id": 7, "quantity": 2, "change": -2, "scanner_id": "1"}
    for number, at in enumerate(("2026-11-24T10:00:00Z", "2019-01-01T00:00:00Z", "2026-11-24T10:00:00Z")):
        made.put(binary(str(number % 2), scan, kind="retail.purchase", time=at), key=b"3/7", at=1_795_600_000_000)
    made.put((b'{"specversion":"1.0"}', []))
    for topic, records in (
        ("pos.public.stores", [event("stores", {"store_id": 3, "name": "North"}, key={"store_id": 3}, tx=("1", 1))]),
        ("pos.public.inventory", [event("inventory", SHELF, key=dict(list(SHELF.items())[:2]), tx=("1", 2))]),
        ("pos.transaction", [end("1", {"public.stores": 1, "public.inventory": 1})]),
    ):
        made.kafka.create_topic(topic)
        for key, value in records:
            made.kafka.produce(topic, 0, key, value)
    make_sink(made.kafka, made.folder).run(until_caught_up=True)
    made.land()
    (made.folder / "cdc-lake.yaml").write_text("sources: [{name: warehouse, events: [retail.scans]}]\n")
    return made


@pytest.mark.parametrize("block", [b for b in QUERIES if b in OF_EVENTS], ids=str)
def test_a_query_of_the_page_answers(warehouse: Warehouse, block: Block) -> None:
    assert warehouse.ask(block.text)


@pytest.mark.parametrize("line", [line for block, line in COMMAND_LINES if block in OF_EVENTS])
def test_a_command_of_the_page_runs(
    warehouse: Warehouse, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(warehouse.folder))
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(line)[1:])
    # A letter that is still dead is told by 3.
    assert stop.value.code in (None, 0, 3), capfd.readouterr().err


def test_the_rules_of_the_page_run(warehouse: Warehouse) -> None:
    for block in (b for b in RULES if b in OF_EVENTS):
        write_rule(block, warehouse.folder)
    watch = Watch(warehouse.config, load_rules(warehouse.folder / "rules"))
    watch.round(final=True)
    assert watch.watched
    assert not watch.failed


def test_the_models_of_the_page_run(warehouse: Warehouse) -> None:
    blocks = [b for b in MODELS if b in OF_EVENTS]
    for block in blocks:
        write_rule(block, warehouse.folder)
    models = [load_model(f) for f in model_files(warehouse.folder / "streams")]
    assert len(models) == len(blocks)
    con = open_connection()
    logs = open_logs(con, warehouse.config)
    for model in models:
        check(con, model, logs)
    con.close()
    streams = Streams(warehouse.config, models)
    streams.round(final=True)
    assert not streams.failed
