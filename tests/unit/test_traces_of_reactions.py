"""What models and rules evaluate, and what fails, is in the trace of the transactions that it was about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_lake import crashpoints
from cdc_lake.cli.sink_watch import Told as Watching
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import LakeError
from cdc_lake.traceids import transaction_span, transaction_trace
from tests.collectors import Received, Told, receiver, spans_of
from tests.commands import run
from tests.lake_model import SOURCE, Feed
from tests.lakes import end, event, make_sink
from tests.unit.test_rules_run import LOW, SALES, go_on
from tests.unit.test_rules_run import write as write_rules
from tests.unit.test_stream_run import write as write_models

SOLD = "SELECT id, qty FROM changes.sales WHERE qty < 8\n"
BROKEN = "SELECT id, CAST(note AS INTEGER) AS n FROM changes.sales\n"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        yield received


def named(collector: Received, name: str) -> list[Told]:
    return [span for span in spans_of(collector) if span.name == name]


def sell(folder: Path, *notes: str | None) -> Feed:
    feed = Feed(folder, (SALES,))
    for number, note in enumerate(notes):
        tx = feed.begin()
        tx.insert(SALES, number, 1, note)
        tx.commit()
    feed.land()
    return feed


def test_what_a_model_makes_is_in_the_traces_of_the_transactions_that_it_read(
    collector: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    feed = Feed(tmp_path, (SALES,))
    write_models(tmp_path, sold=SOLD)
    go_on(feed, 3)
    assert run(tmp_path, "stream", "run", "--until-caught-up", capfd=capfd)[0] == 0
    spans = named(collector, "stream sold")
    ids = [f"{number:05}" for number in (1, 2, 3)]
    (whole,) = [s for s in spans if not s.parent_id]
    assert set(whole.links) == {(transaction_trace(SOURCE, tx), transaction_span(SOURCE, tx)) for tx in ids}
    assert whole.attributes["cdc_lake.stream"] == ["sold"]
    assert (whole.attributes["cdc_lake.rows"], whole.failed) == (2, False)
    assert whole.start <= whole.end
    below = {(s.trace_id, s.parent_id): s.links for s in spans if s.parent_id}
    assert below == dict.fromkeys(whole.links, ((whole.trace_id, whole.span_id),))


def test_what_rules_find_is_in_the_trace_of_the_transaction_that_they_found_it_in(
    collector: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sell(tmp_path, None)
    write_rules(tmp_path, low=LOW)
    assert run(tmp_path, "rules", "run", "--until-caught-up", capfd=capfd)[0] == 0
    own, below = sorted(named(collector, "rules low"), key=lambda s: bool(s.parent_id))
    assert own.attributes["cdc_lake.rows"] == 1
    assert (below.trace_id, below.parent_id) == (transaction_trace(SOURCE, "00001"), transaction_span(SOURCE, "00001"))


def test_a_model_that_stands_still_is_a_failed_span_without_the_values_that_it_failed_at(
    collector: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sell(tmp_path, "canary")
    write_models(tmp_path, broken=BROKEN)
    assert run(tmp_path, "stream", "run", "--until-caught-up", capfd=capfd)[0] == 3
    (failed,) = named(collector, "stream broken")
    assert failed.failed
    assert [name for name, _ in failed.events] == ["exception"]
    assert failed.events[0][1]["exception.type"].endswith("ModelError")
    assert "canary" not in str(spans_of(collector))


def test_a_flush_that_fails_is_a_failed_span_with_the_class_of_its_error(
    collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders")
    kafka.create_topic("pos.transaction")
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}, tx=("77", 1)))
    kafka.produce("pos.transaction", 0, *end("77", {"public.orders": 1}))

    def full(point: str) -> None:
        if point == "land:before-commit":
            raise LakeError("The disk is full of canary.", code="disk_full")

    monkeypatch.setattr(crashpoints, "on_reach", full)
    with witnessed(Config(root=tmp_path)) as witness, pytest.raises(LakeError, match="disk is full"):
        make_sink(kafka, tmp_path).run(until_caught_up=True, observer=Watching(SOURCE, *witness.observers(SOURCE)))
    (flush,) = named(collector, f"flush {SOURCE}")
    assert flush.failed
    assert (flush.attributes["cdc_lake.batch_id"], flush.attributes["error.type"]) == (1, "disk_full")
    assert flush.events == (("exception", {"exception.type": "cdc_lake.errors.LakeError"}),)
    assert flush.start < flush.end
    assert not named(collector, "transaction")
    assert "canary" not in str(spans_of(collector))
