"""The sink's HTTP: /metrics, /healthz and /readyz, and nothing that changes anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client.exposition import choose_encoder

from cdc_lake.errors import ConfigError, first_line
from cdc_lake.serve.health import liveness
from cdc_lake.serve.metrics import Numbers

_JSON = "application/json; charset=utf-8"
Answer = tuple[int, str, bytes]


class Server:
    """Answers on a thread of its own, within its context."""

    def __init__(self, address: str, numbers: Numbers) -> None:
        """Bind `address` (host:port). Raises ConfigError when it is no address, or cannot be had."""
        host, port = parse_address(address)
        try:
            self._http = _Http((host, port), _handler(numbers))
        except OSError as error:
            raise ConfigError(
                f"The sink cannot answer on {address}.",
                why=error.strerror or first_line(error),
                next="give another address: `sink: {metrics: 127.0.0.1:9465}` or --metrics; or stop what listens there",
                code="address_taken",
            ) from None
        # Below is only asked for its address when the port was left to the system.
        self.address = f"{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True)

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


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `:port` or `[::1]:port`. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(
            f"`sink.metrics` is not an address: {address}",
            why="It is host:port, the host may be left out: 127.0.0.1:9464",
            next="cdc-lake sink run --metrics 127.0.0.1:9464",
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def answer(numbers: Numbers, path: str, accept: str) -> Answer:
    """Status, kind and body for one GET."""
    if path == "/metrics":
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(numbers.registry)
    if path == "/healthz":
        check = liveness(numbers.sinks)
        return _told(check.ok, {"alive": check.ok, "found": check.found})
    if path == "/readyz":
        checks = numbers.checks()
        ready = all(c.ok for c in checks)
        return _told(ready, {"ready": ready, "checks": [c.as_dict() for c in checks]})
    return 404, _JSON, b'{"error": "There are /metrics, /healthz and /readyz."}\n'


def _told(good: bool, document: dict[str, Any]) -> Answer:
    return 200 if good else 503, _JSON, json.dumps(document, ensure_ascii=False).encode() + b"\n"


def _handler(numbers: Numbers) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "cdc-lake", "", 10

        def do_GET(self) -> None:
            status, kind, body = answer(numbers, self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """A scrape every few seconds is not news."""

    return Handler
