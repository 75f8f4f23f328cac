"""HTTP on threads beside the work, for what only reads: a sink's numbers and health, a service's answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from cdc_lake.errors import ConfigError, first_line

_JSON = "application/json; charset=utf-8"
Answer = tuple[int, str, bytes]
"""Status, kind and body."""
Respond = Callable[[str, Message], Answer]
"""The answer to a GET of a target, with the headers of its request."""


class Listening:
    """Answers within its context. `port` is the one that it has, also when the system was to choose."""

    def __init__(
        self, address: str, place: tuple[str, int], respond: Respond, *, who: str, next: str, headers: Mapping[str, str]
    ) -> None:
        """Bind `place` (host, port), which was given as `address`. `headers` go with every answer.

        Raises ConfigError when it cannot be had; `who` and `next` are of its words.
        """
        try:
            self._http = _Http(place, _handler(respond, headers))
        except OSError as error:
            raise ConfigError(
                f"{who} cannot answer on {address}.",
                why=error.strerror or first_line(error),
                next=next,
                code="address_taken",
            ) from None
        self.port = int(self._http.server_address[1])
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


def document(status: int, found: Mapping[str, Any]) -> Answer:
    """A document as JSON."""
    return status, _JSON, json.dumps(found, ensure_ascii=False).encode() + b"\n"


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not news."""


def _handler(respond: Respond, headers: Mapping[str, str]) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "cdc-lake", "", 10

        def do_GET(self) -> None:
            status, kind, body = respond(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """A question is not news."""

    return Handler
