"""`status --watch`: what a lake is like on a full screen, with keys, and only where there is a terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli.watch import Watch
from cdc_lake.cli.watch_state import Moment, Reader, SinkProcess, sinks_of
from cdc_lake.cli.watch_view import as_ansi, choices, draw
from cdc_lake.config import load_config
from cdc_lake.consume.memory import MemoryKafka
from tests.lakes import end, event, make_sink
from tests.terminals import terminal

ROOT = Path(__file__).parents[2]


class Connect(BaseHTTPRequestHandler):
    """As much of Kafka Connect as pausing takes."""

    state = "RUNNING"

    def do_GET(self) -> None:
        task = {"id": 0, "state": type(self).state, "worker_id": "w"}
        own = {"state": type(self).state, "worker_id": "w"}
        self._answer(200, json.dumps({"name": "pos", "connector": own, "tasks": [task]}).encode())

    def do_PUT(self) -> None:
        type(self).state = "PAUSED" if self.path.endswith("/pause") else "RUNNING"
        self._answer(202, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def connect() -> Any:
    class Own(Connect):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, connect: ThreadingHTTPServer) -> Path:
    """A project with a lake of two tables, one dead letter, and a cut that waits."""
    kafka = MemoryKafka()
    for topic in ("pos.public.orders", "pos.public.items", "pos.transaction"):
        kafka.create_topic(topic)
    for i in range(1200):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": i, "name": f"order {i}"}, tx=("77", i + 1)))
    kafka.produce("pos.public.items", 0, b"{}", b"no json")
    kafka.produce("pos.public.items", 0, *event("items", {"id": 1}, tx=("78", 1)))
    kafka.produce("pos.transaction", 0, *end("77", {"public.orders": 1200}))
    kafka.produce("pos.transaction", 0, *end("78", {"public.items": 2}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors/pos.json").write_text((ROOT / "connectors/pos.json").read_text())
    (tmp_path / "cdc-lake.yaml").write_text(
        f"connect: {{url: 'http://127.0.0.1:{connect.server_address[1]}'}}\nsource: {{name: pos}}\n"
    )
    return tmp_path


def shown(watch: Watch) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", as_ansi(watch.picture(40), 140, 40))


@pytest.fixture
def watch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setenv("NO_COLOR", "1")
    config = load_config(folder / "cdc-lake.yaml")
    return Watch(config, Reader(config, str(folder / "cdc-lake.yaml")))


def test_the_screen_tells_rows_dead_letters_the_cut_and_what_it_waits_for(watch: Watch) -> None:
    assert "Reading the lake" in shown(watch)
    watch.step()
    text = shown(watch)
    orders = next(line for line in text.splitlines() if "public.orders" in line and "│" not in line)
    items = next(line for line in text.splitlines() if "public.items" in line and "waits" not in line)
    assert "1,200" in orders
    assert "ago" in orders
    assert items.split()[-2:] == ["1", "1"]  # one dead letter, one row that is not folded
    assert "readers see up to transaction 77" in text
    assert "the cut waits for transaction 78: 1 of 2 of public.items" in text
    assert "connector pos" in text
    assert "no sink of this project runs on this machine" in text
    assert "The lag is not known" in text  # there is no Kafka here


def test_the_rate_is_of_the_rows_that_landed_between_two_moments(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = watch._reader
    tables = [{"table": "a", "rows_landed": 100}]
    assert reader._rates(tables, 1000.0) == {}
    assert reader._rates([{"table": "a", "rows_landed": 300}], 1010.0) == {"a": 20.0}


def test_a_connector_is_paused_and_resumed_by_key(watch: Watch) -> None:
    watch.step()
    watch._ask("pause")
    watch.step()
    assert "Connector pos is paused." in shown(watch)
    assert "PAUSED" in shown(watch)
    watch._ask("resume")
    watch.step()
    assert "RUNNING" in shown(watch)


def test_a_table_is_not_paused_and_it_is_said_why(watch: Watch) -> None:
    watch.step()
    watch._choose(1)
    watch._ask("pause")
    assert "it captures all its tables together" in shown(watch)


def test_looking_into_a_table_shows_its_last_changes(watch: Watch) -> None:
    watch.step()
    watch._choose(2)
    watch._open()
    watch.step()
    text = shown(watch)
    assert "the last changes of public.orders" in text
    assert "order 1199" in text
    watch._close()
    assert "public.items" in shown(watch)


def test_more_tables_than_lines_scroll_with_the_choice() -> None:
    row = {"lag_records": 0, "last_landed": None, "dead_letters": 0, "rows_unfolded": 0, "rows_landed": 1}
    moment = Moment(0.0, [{**row, "table": f"t{i:03}"} for i in range(100)])
    for chosen, seen in ((0, "t000"), (50, "t050"), (99, "t099")):
        picture = as_ansi(draw(moment, chosen, 30), 100, 30)
        assert f"▸ {seen}" in picture
        assert len(picture.splitlines()) <= 30
    assert len(choices(moment)) == 100


def test_a_running_sink_of_the_project_is_found_with_its_memory(tmp_path: Path) -> None:
    package = tmp_path / "cdc_lake"  # something that looks like one from outside
    package.write_text("import time; print('up', flush=True); time.sleep(60)")
    words = [sys.executable, "./cdc_lake", "sink", "run"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (found,) = sinks_of(tmp_path / "cdc-lake.yaml")
            assert (found.pid, found.memory_bytes > 0) == (process.pid, True)
            assert list(sinks_of(tmp_path / "other.yaml")) == []
        finally:
            process.kill()
    moment = Moment(time.time(), sinks=[SinkProcess(7, 123_000_000, time.time() - 60)])
    assert "sink 7   memory 123 MB" in as_ansi(draw(moment, 0, 30), 100, 30)


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_on_a_real_terminal_it_fills_the_screen_takes_keys_and_gives_the_screen_back(
    folder: Path, key: str, code: int
) -> None:
    with terminal(folder, "status", "--watch") as screen:
        screen.until("public.orders")
        assert "\x1b[?1049h" in screen.text
        screen.type("jj\r")
        screen.until("order 1199")
        screen.type(key)
        assert screen.ends() == code
        assert "\x1b[?1049l" in screen.text


def test_without_colours_where_none_are_wanted(folder: Path) -> None:
    with terminal(folder, "status", "--watch", env={"NO_COLOR": "1"}) as screen:
        screen.until("public.orders")
        screen.type("q")
        assert screen.ends() == 0
        assert "\x1b[38" not in screen.text
        assert "\x1b[32m" not in screen.text


def with_json(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "cdc_lake", "--json", "status", "--watch"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def plain(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "cdc_lake", "status", "--watch"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("run", [with_json, plain])
def test_off_a_terminal_it_is_refused_with_what_to_use_instead(run: Callable[..., Any], folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 2
    assert "needs a terminal" in done.stdout + done.stderr
    assert "cdc-lake --json status" in done.stdout + done.stderr
