"""One reader, many pages: each gets the newest state of each view, once, in order, however slow or long away it is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.serve.dashboard import stream
from cdc_lake.serve.dashboard.board import Board
from tests.dashboards import client, entered, open_alert
from tests.shops import Shop


class Page:
    """A page at the other end of an event stream, which takes what it is sent when it likes."""

    def __init__(self, board: Board, last: str = "") -> None:
        self.events: list[tuple[str, str, str]] = []
        self.ready = asyncio.Semaphore(0)
        self.gone = asyncio.Event()
        headers = [(b"last-event-id", last.encode())] if last else []
        self.task = asyncio.create_task(stream.serve_events(board, {"headers": headers}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        text = message.get("body", b"").decode()
        if not text.startswith("id: "):
            return
        await self.ready.acquire()
        id, kind, data = (line.partition(": ")[2] for line in text.splitlines()[:3])
        self.events.append((id, kind, data))

    async def take(self, count: int) -> None:
        for _ in range(count):
            self.ready.release()
        await _calm()


async def _calm() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def attached() -> Board:
    board = Board()
    board.attach(asyncio.get_running_loop())
    return board


def test_a_page_gets_what_is_there_and_then_what_is_new() -> None:
    async def run() -> None:
        board = attached()
        board.publish("a", "1")
        page = Page(board)
        await page.take(10)
        board.publish("b", "2")
        await _calm()
        assert [e[2] for e in page.events] == ["1", "2"]
        board.close()
        await asyncio.wait_for(page.task, 5)

    asyncio.run(run())


def test_a_slow_page_skips_what_was_replaced_and_never_goes_back() -> None:
    async def run(seed: int) -> None:
        rng, board = random.Random(seed), attached()
        pages = [Page(board) for _ in range(4)]
        newest: dict[str, str] = {}
        for n in range(60):
            name = rng.choice("abc")
            newest[name] = f"{name}{n}"
            board.publish(name, newest[name])
            for page in pages[1:]:
                await page.take(rng.choice([0, 0, 1]))
            await pages[0].take(3)
        for page in pages:
            await page.take(200)
            shown = {e[2][0]: e[2] for e in page.events}
            assert shown == newest
            numbers = [int(e[0].partition("-")[2]) for e in page.events]
            assert numbers == sorted(set(numbers))
        assert len(pages[0].events) >= max(len(p.events) for p in pages[1:])
        board.close()
        await asyncio.gather(*(p.task for p in pages))

    for seed in range(20):
        asyncio.run(run(seed))


def test_a_page_that_never_reads_holds_nothing_but_its_place() -> None:
    async def run() -> None:
        board = attached()
        page = Page(board)
        for n in range(5_000):
            board.publish("a", str(n))
        await page.take(5_000)
        assert len(page.events) <= 2
        assert page.events[-1][2] == "4999"
        page.gone.set()
        board.publish("a", "x")
        await asyncio.wait_for(page.task, 5)
        assert board.pages == 0

    asyncio.run(run())


def test_a_page_that_comes_back_gets_what_it_lacks_and_from_another_process_everything() -> None:
    async def run() -> None:
        board = attached()
        for name in "abc":
            board.publish(name, name)
        page = Page(board)
        await page.take(10)
        last = page.events[1][0]
        board.publish("a", "new")
        again, fresh = Page(board, last), Page(board, "ffffffff-2")
        await again.take(10)
        await fresh.take(10)
        assert [e[2] for e in again.events] == ["c", "new"]
        assert sorted(e[2] for e in fresh.events) == ["b", "c", "new"]
        board.close()
        await asyncio.gather(page.task, again.task, fresh.task)

    asyncio.run(run())


@pytest.mark.parametrize("last", ["", "x", "-", "abc-", "abc-\u0663", "abc-1e9", "0-0"])
def test_an_id_that_is_none_begins_at_the_beginning(last: str) -> None:
    assert Board().number_of(last) == 0


def test_what_has_not_changed_is_not_sent_again() -> None:
    board = Board()
    assert board.publish("a", "1")
    assert not board.publish("a", "1")
    assert board.publish("a", "2")


def test_a_silent_stream_is_told_to_be_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(stream, "PING_SECONDS", 0.01)
        board, sent = attached(), []

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))

        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.create_task(stream.serve_events(board, {"headers": []}, receive, send))
        async with asyncio.timeout(5):
            while b"event: ping\ndata: {}\n\n" not in sent:
                await asyncio.sleep(0.01)
        gone.set()
        await task

    asyncio.run(run())


def test_a_server_that_is_full_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(stream, "MOST_PAGES", 0)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        await stream.serve_events(attached(), {"headers": []}, receive, send)
        assert sent[0]["status"] == 503

    asyncio.run(run())


# --- the poller


def test_a_version_of_the_lake_is_read_once_and_only_what_changed_is_published(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path)
    with client(tmp_path) as (_, parts):
        board, number = parts.board, parts.poller.number
        before = {v.name: board.get(v.name) for v in parts.poller.views}
        parts.poller.step()
        assert parts.poller.number == number
        shelf = next(k for k, v in shop.rows["inventory"].items() if v["on_hand"] > 2)
        shop.sell(shelf[0], shelf[1], 1)
        parts.poller.step()
        assert parts.poller.number == number + 1
        changed = {n for n, text in before.items() if board.get(n) != text}
        assert {"shop_now", "sales_per_minute", "changes_per_minute"} <= changed
        assert "dead_letters" not in changed


def test_an_alert_is_on_the_board_though_no_change_landed(tmp_path: Path) -> None:
    Shop.open(tmp_path)
    with client(tmp_path) as (_, parts):
        open_alert(tmp_path, "a1", "Milk is low")
        parts.poller.step()
        assert "Milk is low" in str(parts.board.get("alerts"))


def test_a_lake_that_cannot_be_read_is_told_and_the_last_state_stays(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path)
    with client(tmp_path) as (web, parts):
        entered(web)
        log = next((tmp_path / "lake").glob("pos/transactions*"), None)
        shelf = next(k for k, v in shop.rows["inventory"].items() if v["on_hand"] > 2)
        shop.sell(shelf[0], shelf[1], 1)
        parts.poller.step()
        kept = parts.board.get("shop_now")
        (tmp_path / "lake").rename(tmp_path / "moved")
        (tmp_path / "lake").write_text("no folder")
        parts.poller.step()
        assert "cannot be listed" in web.get("/api/state").json()["state"]["error"]["message"]
        assert parts.board.get("shop_now") == kept
        (tmp_path / "lake").unlink()
        (tmp_path / "moved").rename(tmp_path / "lake")
        parts.poller.step()
        assert web.get("/api/state").json()["state"]["error"] is None
        assert log is None or log.exists()


# --- actions


def test_an_alert_is_acknowledged_resolved_and_silenced_and_each_leaves_a_row(tmp_path: Path) -> None:
    Shop.open(tmp_path)
    open_alert(tmp_path, "a1", "Milk is low")
    with client(tmp_path) as (web, parts):
        entered(web)
        assert web.post("/api/alerts/a1/acknowledge", json={"by": "ann"}).json() == {
            "version": 1, "id": "a1", "was": "open", "is": "acknowledged"
        }  # fmt: skip
        parts.poller.step()
        assert '"acknowledged"' in str(parts.board.get("alerts"))
        assert web.post("/api/alerts/a1/resolve", json={"note": "delivered"}).json()["is"] == "resolved"
        made = web.post("/api/silences", json={"rule": "low_*", "span": "2h"}).json()["silences"][0]
        assert [s["id"] for s in web.get("/api/silences").json()["silences"]] == [made["id"]]
        assert web.post(f"/api/silences/{made['id']}/end", json={}).status_code == 200
        assert web.get("/api/silences").json()["silences"] == []
        assert web.post("/api/alerts/none/resolve", json={}).status_code == 404
        for wrong in ({"rule": "x", "span": "soon"}, {"rule": "x", "span": "400 days"}, {"rule": ""}, {"who": "x"}):
            assert web.post("/api/silences", json=wrong).status_code == 422
        alert = web.get("/api/alerts/a1").json()["alert"]
        assert (alert["acknowledged_by"], alert["note"], len(alert["evidence"])) == ("ann", "delivered", 1)
    from cdc_lake.query.session import open_session

    session = open_session(tmp_path / "cdc-lake.yaml")
    rows = session.connection.execute(
        'SELECT what, target, "by", outcome FROM lake.audit ORDER BY recorded_at'
    ).fetchall()
    session.close()
    assert rows[:2] == [("acknowledge", "a1", "ann", "was open"), ("resolve", "a1", "tests", "was acknowledged")]
    assert [r[0] for r in rows[2:4]] == ["silence", "end silence"]
    assert rows[4][:2] == ("resolve", "none")
    assert rows[4][3].startswith("refused: There is no alert none")
