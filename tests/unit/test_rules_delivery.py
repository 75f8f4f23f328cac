"""Alerts reach their outputs: each change at least once, under one key; nothing is lost while an output is away."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from cdc_lake import crashpoints
from cdc_lake.config import Config
from cdc_lake.config_rules import Output
from cdc_lake.land.layout import deliveries_path, open_delta
from cdc_lake.react.delivery import Delivery
from cdc_lake.react.ledger import Ledger
from cdc_lake.react.outputs import Mail, Message, NotSent, Sender, Webhook
from cdc_lake.react.silences import Silences
from tests.lake_model import SOURCE

POINTS = ("rules:after-send",)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECRET = "T0K3N-canary"
HOOK = Output(kind="webhook", url=f"https://ops.example/{SECRET}")


class Box:
    """A receiver that is away when told to be, and keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.attempts = 0
        self.error: NotSent | None = None
        self.refuses: set[str] = set()

    def send(self, message: Message) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        if message.alert["id"] in self.refuses:
            raise NotSent("ops.example answered 413", later=False)
        self.got.append(message)

    @property
    def seen(self) -> list[tuple[str, str]]:
        return [(str(m.alert["id"]), str(m.alert["change"])) for m in self.got]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds - 1000.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def box() -> Box:
    return Box()


def settings(folder: Path, **outputs: Output) -> Config:
    named = {name: one.model_dump(by_alias=True) for name, one in (outputs or {"ops": HOOK}).items()}
    return Config.model_validate({"lake": {"uri": str(folder / "lake")}, "root": folder, "rules": {"outputs": named}})


def delivery(config: Config, clock: Clock, *boxes: Sender) -> Delivery:
    senders = dict(zip(config.rules.outputs, boxes, strict=True))
    one = Delivery(config, SOURCE, senders=senders, clock=clock, now=clock.now)
    one.begin()
    return one


def happen(folder: Path, id: str, change: str = "opened", **values: Any) -> None:
    row: dict[str, Any] = {
        "id": id,
        "change": change,
        "rule": "low",
        "key": '{"id":7}',
        "severity": "critical",
        "title": f"Low <{id}>",
    }
    row |= {"at": NOW, "position": 1, "evidence": [], "evidence_count": 1, "notify": None, "recorded_at": NOW} | values
    Ledger(str(folder / "lake"), SOURCE).add([row])


def outcomes(folder: Path) -> list[tuple[str, str, str]]:
    table = open_delta(deliveries_path(str(folder / "lake"), SOURCE))
    rows = table.to_pyarrow_table().to_pylist() if table is not None else []
    return sorted((r["id"], r["change"], r["outcome"]) for r in rows)


def test_each_change_of_an_alert_is_sent_once(tmp_path: Path, clock: Clock, box: Box) -> None:
    one = delivery(settings(tmp_path), clock, box)
    happen(tmp_path, "a")
    assert one.run_once() == 0
    happen(tmp_path, "a", "acknowledged")
    happen(tmp_path, "a", "resolved")
    happen(tmp_path, "a", "late")
    one.run_once()
    delivery(settings(tmp_path), clock, box).run_once()
    assert box.seen == [("a", "opened"), ("a", "resolved")]


def test_what_happened_before_an_output_was_there_is_not_sent_to_it(tmp_path: Path, clock: Clock, box: Box) -> None:
    happen(tmp_path, "old")
    one = delivery(settings(tmp_path), clock, box)
    happen(tmp_path, "old", "resolved")
    happen(tmp_path, "new")
    one.run_once()
    assert box.seen == [("new", "opened")]


def test_an_output_that_is_away_for_an_hour_gets_all_of_it_and_is_not_stormed(
    tmp_path: Path, clock: Clock, box: Box
) -> None:
    one = delivery(settings(tmp_path), clock, box)
    box.error = NotSent("ops.example cannot be reached: ConnectError", later=True)
    for minute in range(60):
        if minute % 20 == 0:
            happen(tmp_path, f"a{minute}")
        clock.seconds += 60
        assert one.run_once() == minute // 20 + 1
    assert box.attempts < 30
    box.error = None
    clock.seconds += 400
    assert one.run_once() == 0
    assert box.seen == [("a0", "opened"), ("a20", "opened"), ("a40", "opened")]


def test_a_restart_while_an_output_is_away_loses_nothing(tmp_path: Path, clock: Clock, box: Box) -> None:
    config = settings(tmp_path)
    one = delivery(config, clock, box)
    happen(tmp_path, "a")
    box.error = NotSent("ops.example answered 503", later=True)
    one.run_once()
    box.error = None
    assert delivery(config, clock, box).run_once() == 0
    assert box.seen == [("a", "opened")]
    assert outcomes(tmp_path) == [("a", "opened", "failed"), ("a", "opened", "sent")]


def test_killed_between_sending_and_writing_it_down_the_message_comes_again_under_the_same_key(
    tmp_path: Path, clock: Clock, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    one = delivery(config, clock, box)
    happen(tmp_path, "a")

    def die(point: str) -> None:
        if point in POINTS:
            raise KeyboardInterrupt

    monkeypatch.setattr(crashpoints, "on_reach", die)
    with pytest.raises(KeyboardInterrupt):
        one.run_once()
    monkeypatch.setattr(crashpoints, "on_reach", None)
    delivery(config, clock, box).run_once()
    assert box.seen == [("a", "opened")] * 2
    assert box.got[0].key == box.got[1].key
    happen(tmp_path, "a", "resolved")
    delivery(config, clock, box).run_once()
    assert len({m.key for m in box.got}) == 2


def test_a_message_that_is_refused_for_good_does_not_keep_others_back(tmp_path: Path, clock: Clock, box: Box) -> None:
    one = delivery(settings(tmp_path), clock, box)
    box.refuses = {"a"}
    happen(tmp_path, "a")
    happen(tmp_path, "b")
    assert one.run_once() == 1
    assert box.seen == [("b", "opened")]
    box.refuses = set()
    clock.seconds += 10
    assert one.run_once() == 0


def test_no_more_is_sent_in_a_minute_than_the_rate_says_and_the_rest_later(
    tmp_path: Path, clock: Clock, box: Box
) -> None:
    one = delivery(settings(tmp_path, ops=HOOK.model_copy(update={"rate": 2})), clock, box)
    for name in "abcde":
        happen(tmp_path, name, recorded_at=NOW + timedelta(seconds=ord(name)))
    assert one.run_once() == 3
    assert one.run_once() == 3
    for _ in range(2):
        clock.seconds += 61
        one.run_once()
    assert [id for id, _ in box.seen] == list("abcde")


def test_a_silence_keeps_alerts_from_being_sent_and_their_end_too(tmp_path: Path, clock: Clock, box: Box) -> None:
    one = delivery(settings(tmp_path), clock, box)
    silences = Silences(str(tmp_path / "lake"), SOURCE, None)
    silences.add("lo*", '{"id":7}', NOW + timedelta(hours=1), by="me", note=None, now=NOW)
    happen(tmp_path, "a")
    happen(tmp_path, "b", key='{"id":8}')
    one.run_once()
    clock.seconds += 3601
    happen(tmp_path, "a", "resolved")
    happen(tmp_path, "c")
    one.run_once()
    assert box.seen == [("b", "opened"), ("c", "opened")]
    assert ("a", "opened", "silenced") in outcomes(tmp_path)


def test_a_silence_that_was_ended_holds_nothing_back(tmp_path: Path, clock: Clock, box: Box) -> None:
    one = delivery(settings(tmp_path), clock, box)
    silences = Silences(str(tmp_path / "lake"), SOURCE, None)
    added = silences.add("low", None, NOW + timedelta(hours=1), by="me", note=None, now=NOW)
    silences.end(added.id, NOW + timedelta(seconds=1))
    clock.seconds += 2
    happen(tmp_path, "a")
    one.run_once()
    assert box.seen == [("a", "opened")]


def test_a_rule_says_which_outputs_hear_of_it(tmp_path: Path, clock: Clock) -> None:
    ops, chat = Box(), Box()
    one = delivery(settings(tmp_path, ops=HOOK, chat=HOOK), clock, ops, chat)
    happen(tmp_path, "a", notify=["chat"])
    happen(tmp_path, "b", notify=[])
    one.run_once()
    assert (ops.seen, chat.seen) == ([], [("a", "opened")])


# --- what goes over the wire


def message(**values: Any) -> Message:
    alert = {
        "id": "a1",
        "change": "opened",
        "rule": "low",
        "severity": "critical",
        "title": "Low <!channel>",
        "at": NOW,
    }
    event = {"at": NOW, "table": "public.stock", "key": '{"id":7}', "values": None, "tx_id": "812"}
    alert |= {"evidence": [event], "evidence_count": 1, "by": None, "note": None, "key": '{"id":7}'} | values
    return Message(SOURCE, "ops", alert)


def posted(output: Output, status: int = 204, headers: dict[str, str] | None = None) -> httpx.Request:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, headers=headers)

    Webhook(output, httpx.MockTransport(answer)).send(message())
    return requests[0]


def test_a_webhook_gets_the_alert_with_its_events_under_a_key() -> None:
    request = posted(HOOK)
    document = json.loads(request.content)
    assert document["key"] == {"id": 7}
    assert document["evidence"][0]["tx_id"] == "812"
    assert request.headers["Idempotency-Key"] == message().key
    assert request.headers["Content-Type"] == "application/json"


def test_slack_gets_text_in_which_nothing_is_a_mark_of_its_own() -> None:
    document = json.loads(posted(Output(kind="slack", url="https://hooks.example/x")).content)
    assert "Low &lt;!channel&gt;" in document["text"]
    assert list(document) == ["text"]


@pytest.mark.parametrize(("status", "later"), [(301, False), (400, False), (429, True), (500, True), (503, True)])
def test_an_answer_says_whether_another_attempt_can_help_and_no_secret(status: int, later: bool) -> None:
    with pytest.raises(NotSent) as stop:
        posted(HOOK, status, {"Retry-After": "17", "Location": "https://elsewhere.example"})
    assert (stop.value.later, stop.value.after) == (later, 17.0)
    assert stop.value.reason == f"ops.example answered {status}"


def test_a_webhook_that_is_not_there_is_named_without_its_secret() -> None:
    with pytest.raises(NotSent) as stop:
        Webhook(Output(kind="webhook", url=f"http://127.0.0.1:9/{SECRET}")).send(message())
    assert stop.value.later
    assert SECRET not in stop.value.reason
    assert SECRET not in repr(HOOK)


class _Smtp(socketserver.StreamRequestHandler):
    """As much of a mail server as a client needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        body: list[bytes] | None = None
        for line in self.rfile:
            if body is not None:
                body.append(line)
                if line != b".\r\n":
                    continue
                self.server.mails.append(b"".join(body).decode())  # type: ignore[attr-defined]
                body = None
            word = line[:4].upper()
            if word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            refused = word == b"RCPT" and b"nobody" in line
            if word == b"DATA":
                body = []
            self.wfile.write(b"354 go\r\n" if word == b"DATA" else b"550 no\r\n" if refused else b"250 ok\r\n")


@pytest.fixture
def mails() -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp) as server:
        server.mails = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def mail_output(server: Any, to: str = "ops@shop.example") -> Output:
    port = server.server_address[1]
    values = {
        "kind": "email",
        "host": "127.0.0.1",
        "port": port,
        "starttls": False,
        "from": "lake@x.example",
        "to": [to],
    }
    return Output.model_validate(values)


def test_a_mail_has_one_message_id_however_often_it_is_sent(mails: Any) -> None:
    for _ in range(2):
        Mail(mail_output(mails)).send(message(title="Low\r\nBcc: everybody@x.example"))
    assert len(mails.mails) == 2
    for mail in mails.mails:
        assert f"Message-ID: <{message().key}@cdc-lake>" in mail
        assert "Subject: Low Bcc: everybody@x.example" in mail
        assert "public.stock" in mail


def test_an_address_that_is_refused_does_not_hold_other_mail_back(mails: Any) -> None:
    with pytest.raises(NotSent) as stop:
        Mail(mail_output(mails, "nobody@x.example")).send(message())
    assert not stop.value.later
