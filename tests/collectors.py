"""What others would run beside a lake, small and real enough: an OTLP receiver that parses what is sent to it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """What came to a server: bodies, with the headers and the path of each. `status`, `reason` are its answer."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    reason: str | None = None


@contextmanager
def receiver() -> Iterator[Received]:
    """An HTTP server on this machine that keeps what is posted to it."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.headers.append(dict(self.headers))
            received.paths.append(self.path)
            received.bodies.append(body)
            self.send_response(received.status, received.reason)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Told:
    """A span as a collector has it. Ids are hexadecimal, times nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    failed: bool
    events: tuple[tuple[str, dict[str, Any]], ...]
    resource: dict[str, Any]


def spans_of(received: Received) -> list[Told]:
    """All spans that came, parsed by OpenTelemetry's own protocol definition."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = []
    for body in received.bodies:
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            resource = _values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                found += [_told(span, resource) for span in of_scope.spans]
    return found


def _told(span: Any, resource: dict[str, Any]) -> Told:
    return Told(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _values(span.attributes),
        span.status.code == 2,
        tuple((event.name, _values(event.attributes)) for event in span.events),
        resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: _value(a.value) for a in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(v) for v in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def events_of(received: Received) -> list[dict[str, Any]]:
    """All events of lineage that came, as JSON."""
    return [json.loads(body) for body in received.bodies]
