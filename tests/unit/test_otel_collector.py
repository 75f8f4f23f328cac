"""OpenTelemetry's own collector takes what is sent to it, and hands all of it on."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc_lake.cache import cache_folder
from cdc_lake.checks import Status
from cdc_lake.trace.check import check_traces
from tests.collectors import Received, receiver, spans_of
from tests.unit.test_cli_rules import until
from tests.unit.test_traces import APPLICATION, land

HOME = cache_folder() / "otelcol"
COLLECTOR = HOME / "otelcol"
BUILD = f"go run go.opentelemetry.io/collector/cmd/builder@v0.165.0 --config tests/otelcol.yaml --output-path {HOME}"
CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlp_http: {{endpoint: "{onward}", sending_queue: {{enabled: false}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""

pytestmark = pytest.mark.skipif(not COLLECTOR.exists(), reason=f"there is no collector; with Go: {BUILD}")


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    """What a running collector hands on of all that is sent to it."""
    with receiver() as onward, _running(tmp_path, onward) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        yield onward


@contextmanager
def _running(folder: Path, onward: Received) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "otelcol.yaml"
    file.write_text(CONFIG.format(port=port, onward=onward.url))
    with (folder / "otelcol.log").open("w+") as log:
        process = subprocess.Popen([COLLECTOR, "--config", file], stderr=log)
        try:

            def listens() -> bool:
                assert process.poll() is None, (folder / "otelcol.log").read_text()
                with socket.socket() as asked:
                    return asked.connect_ex(("127.0.0.1", port)) == 0

            until(listens)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def test_a_collector_takes_all_spans_of_a_flush_and_keeps_their_ids_and_links(
    received: Received, tmp_path: Path
) -> None:
    land(tmp_path)
    until(lambda: len(spans_of(received)) >= 9)
    spans = spans_of(received)
    assert sorted(s.name for s in spans) == sorted(
        ["transaction", "deliver", "decode", "commit", "flush pos", "consume", "decode", "commit", "land public.orders"]
    )
    (root,) = [s for s in spans if s.name == "transaction"]
    (flush,) = [s for s in spans if s.name == "flush pos"]
    assert (root.trace_id, root.span_id) in flush.links
    assert (flush.trace_id, flush.span_id) in root.links
    (landed,) = [s for s in spans if s.name.startswith("land")]
    assert (landed.trace_id, landed.parent_id) == APPLICATION
    assert {s.resource["service.name"] for s in spans} == {"cdc-lake"}


def test_doctor_finds_that_the_collector_takes_traces(received: Received) -> None:
    assert [(c.name, c.status) for c in check_traces(os.environ)] == [("traces.delivered", Status.OK)]
