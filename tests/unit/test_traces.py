"""A transaction can be followed from its commit in the source to the query that reads it, as a collector has it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_lake import undelivered
from cdc_lake.checks import Status
from cdc_lake.cli.sink_watch import Told as Watching
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.query.session import open_session
from cdc_lake.trace.check import check_traces
from cdc_lake.trace.wish import wish
from cdc_lake.traceids import transaction_span, transaction_trace
from tests.collectors import Received, Told, receiver, spans_of
from tests.commands import run
from tests.lake_model import config
from tests.lakes import SOURCE, end, event, make_sink

APPLICATION = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
ROOT = Path(__file__).parents[2]
TOKEN = "canary-token-9"
COMMITTED = 1_764_000_000_000_000_000  # as tests.lakes has it


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN}")
        yield received


def land(folder: Path, *, transactions: int = 1, flag: str = "01") -> None:
    """Land transactions of two rows each; the second row of the first one comes from an application's span."""
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders")
    kafka.create_topic("pos.transaction")
    for number in range(transactions):
        tx = str(77 + number)
        for order in (1, 2):
            row = event("orders", {"id": 2 * number + order}, tx=(tx, order))
            named = f"00-{APPLICATION[0]}-{APPLICATION[1]}-{flag}".encode()
            headers = [("traceparent", named)] if number == 0 and order == 2 else []
            kafka.produce("pos.public.orders", 0, *row, headers=headers)
        kafka.produce("pos.transaction", 0, *end(tx, {"public.orders": 2}))
    (folder / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")
    with witnessed(Config(root=folder)) as witness:
        sink = make_sink(kafka, folder, flush_seconds=3600)
        sink.run(until_caught_up=True, observer=Watching(SOURCE, *witness.observers(SOURCE)))


def named(spans: list[Told], name: str) -> list[Told]:
    return [s for s in spans if s.name == name]


def test_a_transaction_is_a_trace_from_its_commit_in_the_source_until_it_has_landed(
    collector: Received, tmp_path: Path
) -> None:
    land(tmp_path)
    spans = spans_of(collector)
    trace, first = transaction_trace(SOURCE, "77"), transaction_span(SOURCE, "77")
    (root,) = named(spans, "transaction")
    assert (root.trace_id, root.span_id, root.parent_id) == (trace, first, "")
    assert root.start == COMMITTED < root.end
    assert root.attributes["cdc_lake.tx_id"] == "77"
    parts = [s for s in spans if s.trace_id == trace and s.parent_id == first]
    assert [s.name for s in parts] == ["deliver", "decode", "commit"]
    times = [t for s in parts for t in (s.start, s.end)]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (root.start, root.end)
    (flush,) = named(spans, f"flush {SOURCE}")
    assert (trace, first) in flush.links
    assert (flush.trace_id, flush.span_id) in root.links
    assert {s.name for s in spans if s.parent_id == flush.span_id} == {"consume", "decode", "commit"}
    assert flush.attributes["messaging.batch.message_count"] == 2
    assert flush.resource["service.name"] == "cdc-lake"


def test_a_record_that_names_its_applications_span_is_told_of_below_that(collector: Received, tmp_path: Path) -> None:
    land(tmp_path)
    (landed,) = named(spans_of(collector), "land public.orders")
    assert (landed.trace_id, landed.parent_id) == APPLICATION
    assert (transaction_trace(SOURCE, "77"), transaction_span(SOURCE, "77")) in landed.links
    assert landed.attributes["messaging.kafka.offset"] == 1


def test_what_the_application_did_not_record_is_not_recorded_here(collector: Received, tmp_path: Path) -> None:
    land(tmp_path, flag="00")
    assert APPLICATION[0] not in {s.trace_id for s in spans_of(collector)}


def test_each_row_of_changes_leads_to_its_trace(collector: Received, tmp_path: Path) -> None:
    land(tmp_path)
    session = open_session(config(tmp_path))
    rows = session.connection.sql("SELECT __trace_id FROM changes.public.orders ORDER BY id").fetchall()
    session.close()
    assert rows == [(transaction_trace(SOURCE, "77"),), (APPLICATION[0],)]
    assert {trace for (trace,) in rows} <= {s.trace_id for s in spans_of(collector)}


def test_the_fold_and_the_query_are_in_the_trace_or_lead_to_it(
    collector: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    land(tmp_path)
    trace, first = transaction_trace(SOURCE, "77"), transaction_span(SOURCE, "77")
    assert run(tmp_path, "fold", capfd=capfd)[0] == 0
    folds = named(spans_of(collector), "fold public.orders")
    (command,) = named(spans_of(collector), "fold")
    assert {(s.trace_id, s.parent_id) for s in folds} == {(command.trace_id, command.span_id), (trace, first)}
    assert all(s.attributes["cdc_lake.rows"] == 2 for s in folds)
    assert run(tmp_path, "query", "SELECT count(*) AS n FROM orders", capfd=capfd) == (0, [{"n": 2}])
    (query,) = named(spans_of(collector), "query")
    assert query.links == ((trace, first),)
    assert "orders" not in str(query.attributes)  # the text of a query may hold what is not for everybody


def test_a_command_is_part_of_the_trace_that_the_environment_names_and_says_how_it_failed(
    collector: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tmp_path)
    monkeypatch.setenv("TRACEPARENT", f"00-{APPLICATION[0]}-{APPLICATION[1]}-01")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "reports")
    assert run(tmp_path, "query", "SELECT nothing FROM orders", capfd=capfd)[0] == 1
    (query,) = named(spans_of(collector), "query")
    assert (query.trace_id, query.parent_id) == APPLICATION
    assert query.failed
    assert query.attributes["error.type"] == "sql"
    assert query.resource["service.name"] == "reports"


def test_of_a_large_flush_a_bounded_number_is_told_and_the_sampler_decides_by_the_id(
    collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    land(tmp_path / "all", transactions=100)
    assert len(named(spans_of(collector), "transaction")) == 32
    assert len(named(spans_of(collector), f"flush {SOURCE}")[0].links) == 32
    collector.bodies.clear()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")
    land(tmp_path / "some", transactions=100)
    found = {s.trace_id for s in named(spans_of(collector), "transaction")}
    assert {s.trace_id for s in named(spans_of(collector), "deliver")} == found
    expected = {transaction_trace(SOURCE, str(77 + n)) for n in range(100)}
    assert found == {t for t in expected if int(t[16:], 16) < 0.1 * 2**64}


def test_a_collector_that_refuses_is_said_once_without_its_token_and_counted_and_stops_nothing(
    collector: Received, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.status, collector.reason = 401, f"not with {TOKEN}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.replace("//", f"//me:{TOKEN}@"))
    before = undelivered.counts()["traces"]
    with caplog.at_level(logging.WARNING):
        land(tmp_path)
    assert len(collector.bodies) >= 1
    said = [r.getMessage() for r in caplog.records if r.name == "cdc_lake.trace"]
    assert len(said) == 1
    assert f"do not reach {collector.url}/v1/traces" in said[0]
    assert TOKEN not in caplog.text
    assert undelivered.counts()["traces"] - before == 9
    session = open_session(config(tmp_path))
    assert session.connection.sql("SELECT count(*) FROM orders").fetchall() == [(2,)]
    session.close()


def test_the_token_goes_to_the_collector(collector: Received, tmp_path: Path) -> None:
    land(tmp_path)
    assert collector.headers[0]["authorization"] == f"Bearer {TOKEN}"
    assert collector.paths == ["/v1/traces"] * len(collector.paths)


def test_without_the_variables_nothing_of_it_is_even_imported(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config
with witnessed(Config(), "query") as witness:
    assert not witness.observers("pos")
print([m for m in sys.modules if m.startswith(("opentelemetry", "openlineage"))])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("part", ["", "opentelemetry/exporter/otlp/proto/grpc"])
def test_where_the_packages_are_missing_or_only_some_are_there_the_extra_is_named(part: str, tmp_path: Path) -> None:
    (tmp_path / part).mkdir(parents=True, exist_ok=True)
    program = """
import sys
sys.path[:0] = sys.argv[1:]
from pathlib import Path
from cdc_lake.lineage import wish as of_lineage
from cdc_lake.trace import wish as of_traces
print(of_traces.wish({"OTEL_TRACES_EXPORTER": "otlp"}).fix)
print(of_lineage.wish({"OPENLINEAGE_URL": "x"}, Path(), Path()).fix)
"""
    command = [sys.executable, "-I", "-S", "-c", program, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"pip install 'cdc-lake[{e}]'" for e in ("otel", "lineage")], done.stderr


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "there is no exporter zipkin"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4318"}, "no http:// or https://"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc is not spoken"),
    ],
)
def test_a_wish_that_cannot_be_met_says_why(environ: dict[str, str], problem: str) -> None:
    found = wish(environ)
    assert found is not None
    assert problem in found.problem
    assert bool(problem) == bool(found.problem) == bool(found.fix)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"},
    ],
)
def test_nobody_asks_for_traces(environ: dict[str, str]) -> None:
    assert wish(environ) is None


def test_doctor_says_whether_the_collector_takes_traces(
    collector: Received, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert [(c.name, c.status) for c in check_traces(os.environ)] == [("traces.delivered", Status.OK)]
    assert spans_of(collector) == []
    collector.status, collector.reason = 403, f"not with {TOKEN}"
    (found,) = check_traces(os.environ)
    assert (found.status, bool(found.fix)) == (Status.WARN, True)
    assert "403" in found.why
    assert TOKEN not in f"{found}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert "grpc is not spoken" in check_traces(os.environ)[0].why
    assert check_traces({}) == []
    assert capfd.readouterr() == ("", "")


def test_a_program_that_traces_itself_has_its_sessions_in_its_own_traces(tmp_path: Path) -> None:
    land(tmp_path)
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import cdc_lake
kept, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
with trace.get_tracer("mine").start_as_current_span("report"):
    cdc_lake.connect("cdc-lake.yaml").close()
connect, report = kept.get_finished_spans()
assert connect.parent.span_id == report.context.span_id
print(connect.name, *(format(link.context.trace_id, "032x") for link in connect.links))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["connect", transaction_trace(SOURCE, "77")], done.stderr
