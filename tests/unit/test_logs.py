"""The sink's log: one JSON object a line, with ids that belong together, and never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_lake import logs
from cdc_lake.cli import output
from cdc_lake.cli.sink_watch import Told
from cdc_lake.config import Config, Connect, Kafka, Lake
from cdc_lake.config_source import Source
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import LakeError
from cdc_lake.logs import Redactor, correlated
from tests.lakes import SOURCE, end, event, make_sink

SECRET = "hunter2-canary"
CONFIG = Config(
    source=Source(name="pos", dsn=f"postgresql://postgres:{SECRET}@db/pos"),
    kafka=Kafka(bootstrap="k:9092", options={"sasl_plain_password": f"{SECRET}-kafka", "client_id": "me"}),
    connect=Connect(url=f"http://somebody:{SECRET}-connect@connect:8083"),
    lake=Lake(options={"aws_secret_access_key": f"{SECRET}-store"}),
)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("cdc_lake")
    before, level, own = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    logs.configure(CONFIG, as_json=True, debug=False, stream=stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    ours.setLevel(own)
    output.configure(config=None, as_json=False, verbosity=0)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_flush_is_one_line_with_the_ids_of_run_batch_and_transaction(written: io.StringIO, tmp_path: Path) -> None:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders")
    kafka.create_topic("pos.transaction")
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}, tx=("77", 1)))
    kafka.produce("pos.transaction", 0, *end("77", {"public.orders": 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True, observer=Told(SOURCE))

    flushes = [line for line in lines(written) if line["message"] == "flushed"]
    assert sum(f["events"] for f in flushes) == 1
    assert [f["batch_id"] for f in flushes] == list(range(1, len(flushes) + 1))
    assert {f["run_id"] for f in flushes} == {logs.RUN_ID}
    assert [f["tx_id"] for f in flushes if "tx_id" in f] == ["77"]
    assert {"ts", "level", "logger", "source", "commit_seconds"} <= flushes[0].keys()


def test_what_is_logged_within_a_flush_bears_its_id_and_nothing_after_it_does(written: io.StringIO) -> None:
    log = logging.getLogger("cdc_lake.test")
    with correlated(batch_id=7):
        with correlated(tx_id="9"):
            log.warning("inside")
        log.warning("between")
    log.warning("outside")
    inside, between, outside = lines(written)
    assert (inside["batch_id"], inside["tx_id"], between["batch_id"]) == (7, "9", 7)
    assert "tx_id" not in between
    assert "batch_id" not in outside


def test_no_secret_of_the_configuration_is_written(written: io.StringIO) -> None:
    log = logging.getLogger("cdc_lake.test")
    log.warning("cannot reach %s", CONFIG.all_sources[0].dsn)
    log.warning("options %s", CONFIG.lake.options, extra={"fields": {"found": f"x {SECRET}-kafka"}})
    try:
        raise ConnectionError(f"login with {SECRET}-connect failed")
    except ConnectionError:
        log.exception("what a library says")
    assert "cannot reach postgresql://postgres:***@db/pos" in written.getvalue()
    assert "login with *** failed" in written.getvalue()
    assert SECRET not in written.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://a:b-c-d@h/x", "postgresql://a:***@h/x"),
        ("host=h password='p w' user=u", "host=h password=*** user=u"),
        ("token: abc, next", "token: ***, next"),
        ("s3://bucket/lake is away", "s3://bucket/lake is away"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_though_nobody_configured_it(text: str, shown: str) -> None:
    assert Redactor()(text) == shown


def test_words_and_errors_become_lines_of_json_too(written: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    output.log_words()
    output.say("Maintained: 2 steps.")
    output.fail(LakeError("The disk is full.", why="no space", next="free some", code="disk_full"))
    said, failed = lines(written)
    assert (said["message"], said["level"]) == ("Maintained: 2 steps.", "info")
    assert (failed["code"], failed["next"], failed["level"]) == ("disk_full", "free some", "error")
    assert capfd.readouterr() == ("", "")
