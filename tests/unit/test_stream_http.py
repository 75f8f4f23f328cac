"""Rows of a model reach an HTTP receiver as CloudEvents, each at least once under one key, whatever that does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat

from cdc_lake.cli import main as cli
from cdc_lake.cli.stream_posts import Outlets
from cdc_lake.config import Config, load_config
from cdc_lake.errors import UnavailableError
from cdc_lake.react.outputs import Receiver
from cdc_lake.react.stream import http
from cdc_lake.react.stream.http import Posts
from cdc_lake.react.stream.modelfile import load_model, model_files
from cdc_lake.react.stream.run import Streams, table_of
from tests.lake_model import Feed, config
from tests.unit.test_rules_run import SALES, go_on

MODEL = """-- output: shop
-- key: id
SELECT id, qty FROM changes.sales
"""

POINTS = ("stream:after-post", "stream:before-posted")


@dataclass
class Shop:
    """A receiver that answers as `answer` says of each request, and keeps what it took."""

    answer: Callable[[int], int] = lambda _: 204
    taken: list[tuple[str, BaseCloudEvent]] = field(default_factory=list)
    requests: int = 0

    def __post_init__(self) -> None:
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                shop.requests += 1
                code = shop.answer(shop.requests)
                if code == 0:  # hangs up without an answer
                    self.close_connection = True
                    return
                if code < 300:
                    message = sdk.HTTPMessage({k.lower(): v for k, v in self.headers.items()}, body)
                    event = sdk.from_http(message, JSONFormat())
                    shop.taken.append((self.headers["Idempotency-Key"], event))
                self.send_response(code)
                if code == 429:
                    self.send_header("Retry-After", "7")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def ids(self) -> list[int]:
        return [data["id"] for _, e in self.taken if isinstance(data := e.get_data(), dict)]


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    feed = Feed(tmp_path, (SALES,))
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "sold.sql").write_text(MODEL)
    go_on(feed, 8)
    return feed


def settings(folder: Path, url: str) -> None:
    (folder / "cdc-lake.yaml").write_text(
        f'lake: {{uri: ./lake}}\nstreams: {{outputs: {{shop: {{url: "{url}", headers: {{X-Token: t}}}}}}}}\n'
    )


def posts(folder: Path, url: str) -> Posts:
    streams = Streams(config(folder), [load_model(f) for f in model_files(folder / "streams")])
    streams.round(final=True)
    shape = streams.running["sold"].shape
    return Posts(shape, table_of(config(folder), shape), Receiver(url, {}))


def test_each_row_is_a_cloudevent_in_the_order_of_positions(feed: Feed, tmp_path: Path, shop: Shop) -> None:
    sender = posts(tmp_path, shop.url)
    assert sender.deliver() == 8
    assert shop.ids == sorted(shop.ids)
    keys = [key for key, _ in shop.taken]
    assert len(set(keys)) == 8
    _, event = shop.taken[0]
    assert (event.get_source(), event.get_type()) == ("/cdc-lake/pos/streams/sold", "cdc-lake.stream.sold")
    assert json.loads(event.get_extension("partitionkey")) == {"id": shop.ids[0]}
    assert event.get_extension("position") is not None
    assert sender.deliver() == 0
    go_on(feed, 2)
    assert posts(tmp_path, shop.url).deliver() == 2
    assert len(shop.taken) == 10


@pytest.mark.parametrize("code", [503, 429, 400, 0])
def test_a_row_that_is_not_taken_waits_and_keeps_later_ones_back(
    feed: Feed, tmp_path: Path, shop: Shop, code: int
) -> None:
    shop.answer = lambda n: code if 4 <= n <= 6 else 200
    sender = posts(tmp_path, shop.url)
    for attempt in range(1, 4):
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
            sender.deliver()
        assert len(shop.taken) == 3
        error = UnavailableError("x")
        assert sender.failures == attempt
        assert sender.pause(error) <= 2**attempt
    # Another process goes on where this one was.
    assert posts(tmp_path, shop.url).deliver() == 5
    assert shop.ids == sorted(shop.ids)
    assert len(shop.ids) == 8


def test_the_receiver_says_when_to_come_again(feed: Feed, tmp_path: Path, shop: Shop) -> None:
    shop.answer = lambda _: 429
    sender = posts(tmp_path, shop.url)
    with pytest.raises(UnavailableError) as refused:
        sender.deliver()
    assert sender.pause(refused.value) == 7


@pytest.mark.parametrize("point", POINTS)
def test_killed_between_sending_and_writing_it_down_rows_come_again_under_the_same_key(
    feed: Feed, tmp_path: Path, shop: Shop, point: str
) -> None:
    settings(tmp_path, shop.url)
    command = [sys.executable, "-m", "cdc_lake", "-q", "stream", "run", "--until-caught-up"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = len(shop.taken)
    assert before > 0
    assert posts(tmp_path, shop.url).deliver() == 8
    assert len({key for key, _ in shop.taken}) == 8
    assert len(shop.taken) == before + 8


def test_a_receiver_that_is_down_for_long_loses_nothing_and_holds_nobody_up(
    feed: Feed, tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_LONGEST_PAUSE", 0.05)
    shop.answer = lambda n: 503
    streams = Streams(config(tmp_path), [load_model(f) for f in model_files(tmp_path / "streams")])
    streams.round(final=True)
    outlets = Outlets(config_with(tmp_path, shop.url))
    outlets.open([streams.running["sold"].shape])
    outlets.start()
    for _ in range(3):
        go_on(feed, 2)
        streams.round(final=True)
        outlets.wake()
    until(lambda: shop.requests > 5)
    assert not shop.taken
    shop.answer = lambda n: 200
    until(lambda: len(shop.taken) == 14)
    outlets.finish()
    assert outlets.sent == {"sold": 14}
    assert not outlets.errors
    assert shop.ids == sorted(shop.ids)


def config_with(folder: Path, url: str) -> Config:
    settings(folder, url)
    return load_config(folder / "cdc-lake.yaml")


def until(there: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_output_that_is_not_there_is_named(
    feed: Feed, tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "streams" / "sold.sql").write_text(MODEL.replace("shop", "shpo"))
    settings(tmp_path, shop.url)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["--json", "stream", "run", "--until-caught-up"])
    error = json.loads(capfd.readouterr().out)["error"]
    assert "no output shpo" in error["message"]
    assert "shop" in error["why"]
