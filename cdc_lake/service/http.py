"""A service's HTTP: its answers, /dead-letters, /metrics, /healthz and /readyz; all of it only reads."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from prometheus_client.exposition import choose_encoder

from cdc_lake.errors import ConfigError, first_line
from cdc_lake.service.answers import ALONE, Answering, checks, letters
from cdc_lake.service.run import Runner

log = logging.getLogger(__name__)
_JSON = "application/json; charset=utf-8"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ALIVE_SECONDS = 120.0
Response = tuple[int, str, bytes]


class Server:
    """Answers on threads of its own, within its context."""

    def __init__(self, address: str, answering: Answering) -> None:
        """Bind `address` (host:port; port 0: one that is free). Raises ConfigError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"This is no address: {address}", why="It is host:port.", next="--listen 127.0.0.1:8100")
        try:
            self._http = _Http((host, int(port)), _handler(answering, guarded=host in _LOOPBACK))
        except OSError as error:
            raise ConfigError(
                f"The service cannot answer on {address}.",
                why=error.strerror or first_line(error),
                next="give another address (--listen), or stop what listens there",
                code="address_taken",
            ) from None
        self.url = f"http://{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, name="answers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not news."""


def respond(answering: Answering, target: str, accept: str, *, alone: bool) -> Response:
    """Status, kind and body for one GET."""
    path, _, query = target.partition("?")
    runner = answering.runner
    if path == "/metrics":
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(runner.numbers.registry)
    if path in _OPERATION:
        return _OPERATION[path](runner)
    route = runner.service.routes.get(path)
    if route is None:
        return _json(404, {"error": f"There are {', '.join([*runner.service.routes, *_OPERATION, '/metrics'])}."})
    try:
        document = answering.ask(route, dict(parse_qsl(query)), alone=alone)
    except (KeyError, ValueError) as error:
        return _json(400, {"error": f"The question is not whole: {error}"})
    return _json(503 if document["stale"] and not document["as_of"] else 200, document)


def _alive(runner: Runner) -> Response:
    quiet = time.monotonic() - runner.stepped_at
    return _json(200 if quiet < _ALIVE_SECONDS else 503, {"alive": quiet < _ALIVE_SECONDS, "quiet_seconds": quiet})


def _ready(runner: Runner) -> Response:
    found = checks(runner)
    ready = all(c["ok"] for c in found)
    return _json(200 if ready else 503, {"ready": ready, "service": runner.service.group, "checks": found})


def _letters(runner: Runner) -> Response:
    return _json(200, {"rows": letters(runner)})


_OPERATION: dict[str, Callable[[Runner], Response]] = {
    "/healthz": _alive,
    "/readyz": _ready,
    "/dead-letters": _letters,
}


def _json(status: int, document: dict[str, Any]) -> Response:
    return status, _JSON, json.dumps(document, ensure_ascii=False).encode() + b"\n"


def _handler(answering: Answering, *, guarded: bool) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "cdc-lake", "", 10

        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0].strip("[]") or self.headers.get("Host")
            if guarded and host not in _LOOPBACK:  # a page elsewhere whose name leads here
                status, kind, body = _json(403, {"error": "This host is not served."})
            else:
                status, kind, body = self._respond()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def _respond(self) -> Response:
            try:
                accept = self.headers.get("Accept", "")
                return respond(answering, self.path, accept, alone=self.headers.get(ALONE) is not None)
            except Exception:
                log.exception("a question failed: %s", self.path.partition("?")[0])
                return _json(500, {"error": "The question failed; the log of the service says why."})

        def log_message(self, format: str, *args: Any) -> None:
            """A question is not news."""

    return Handler
