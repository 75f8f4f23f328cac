"""Dashboards for tests: the application without a network, a server on a free port, alerts as rules would open them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from cdc_lake.config import load_config
from cdc_lake.query.guard import Limits
from cdc_lake.react.ledger import Ledger
from cdc_lake.serve.dashboard.app import Dashboard, Parts
from cdc_lake.serve.dashboard.gate import Gate, Keys
from cdc_lake.serve.dashboard.server import Ready, Wish, hosts_of, prepare, wire

TOKEN = "a-token-for-tests-0123456789"
PORT = 8765
HOST = f"127.0.0.1:{PORT}"
LIMITS = Limits(memory_mb=128, seconds=2, rows=50)


def wish(folder: Path, address: str = "127.0.0.1:0", **more: Any) -> Wish:
    return Wish(address, TOKEN, folder / "dashboard", **{"seconds": 0.1, "limits": LIMITS, "user": "tests", **more})


@contextmanager
def client(folder: Path, **more: Any) -> Iterator[tuple[TestClient, Parts]]:
    """The whole application, without a cookie; its poller is stepped by the test."""
    keys = Keys(TOKEN, PORT)
    parts = wire(load_config(folder / "cdc-lake.yaml"), wish(folder, **more), keys)
    app: Any = Gate(Dashboard(parts), keys, hosts_of("127.0.0.1", PORT, ()))
    parts.poller.step()
    try:
        yield TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=True), parts
    finally:
        parts.poller.stop()
        parts.past.close()
        parts.box.close()


def entered(web: TestClient) -> TestClient:
    """The client with the cookie, and what its actions have to send."""
    assert web.get(f"/?token={TOKEN}").status_code == 200
    session = web.get("/api/session").json()
    web.headers.update({"origin": f"http://{HOST}", "x-cdc-lake-action": session["action"]})
    return web


@contextmanager
def server(folder: Path, address: str = "127.0.0.1:0", **more: Any) -> Iterator[Ready]:
    """A running server; its `entry` is what a person would open."""
    ready = prepare(load_config(folder / "cdc-lake.yaml"), wish(folder, address, **more))
    thread = threading.Thread(target=ready.server.run, kwargs={"sockets": [ready.listener]}, daemon=True)
    thread.start()
    try:
        until(lambda: ready.server.started or not thread.is_alive())
        yield ready
    finally:
        ready.server.should_exit = True
        thread.join(20)
        ready.listener.close()
        assert not thread.is_alive()


def until(done: Callable[[], Any], seconds: float = 30) -> Any:
    """What `done` gives when it is something; the test fails when it never is."""
    last = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < last, "it never came"
        time.sleep(0.02)
    return found


CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
NO_CHROMIUM = "there is no Chromium: apt install chromium"


@contextmanager
def browser() -> Iterator[Any]:
    """The Chromium of this machine, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield found
        finally:
            found.close()


def open_alert(
    folder: Path,
    id: str,
    title: str,
    *,
    key: str = '{"product_id":1}',
    at: datetime | None = None,
    severity: str = "warning",
) -> None:
    """An alert as a rule opens it."""
    when = at or datetime.now(UTC)
    words = dict.fromkeys(("stream", "table", "op", "key", "values", "tx_id"), "x")
    evidence: dict[str, object] = {**words, "at": when}
    row: dict[str, object] = {
        "id": id,
        "change": "opened",
        "rule": "low_stock",
        "key": key,
        "severity": severity,
        "title": title,
        "at": when,
        "position": 1,
        "evidence": [evidence],
        "evidence_count": 3,
        "notify": None,
        "by": None,
        "note": None,
        "recorded_at": when,
    }
    Ledger(f"{folder}/lake", "pos").add([row])
