"""Dead letters on an in-memory Kafka and a real lake: kept, shown, put back in their own place, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cdc_lake
from cdc_lake import crashpoints
from cdc_lake.config import Config, Table
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import DROPPED, DeadLetters
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.replay import replay
from tests.lakes import CONNECTOR, SOURCE, end, event, log_rows, make_sink

ORDERS = "pos.public.orders"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three changes of one key; the one in the middle arrived broken."""
    kafka = MemoryKafka()
    kafka.create_topic(ORDERS)
    kafka.create_topic("pos.transaction")
    kafka.produce(ORDERS, 0, *event("orders", {"id": 1, "n": 1}))
    kafka.produce(ORDERS, 0, b'{"id":2}', event("orders", {"id": 2, "n": 2})[1][:-2])
    kafka.produce(ORDERS, 0, *event("orders", {"id": 1, "n": 3}, op="u"))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    return tmp_path


def current(folder: Path) -> list[tuple[Any, ...]]:
    con = cdc_lake.connect(Config(root=folder, tables={"*.*": Table()}))
    rows = con.execute("SELECT id, n FROM orders ORDER BY id").fetchall()
    con.close()
    return rows


def cut(folder: Path) -> tuple[Any, ...]:
    con = cdc_lake.connect(Config(root=folder, tables={"*.*": Table()}))
    row = con.execute("SELECT stalled, dropped_letters FROM lake.cut").fetchone()
    con.close()
    return row or ()


def letters(folder: Path) -> DeadLetters:
    return DeadLetters(str(folder / "lake"), SOURCE)


def test_a_letter_is_listed_with_all_that_came_with_it(lake: Path) -> None:
    (letter,) = letters(lake).all()
    assert (letter.id, letter.state, letter.error_class) == (f"{ORDERS}/0/1", "waiting", "invalid_json")
    assert letter.key == b'{"id":2}'


def test_a_broken_letter_stays_dead_and_says_why(lake: Path) -> None:
    store = letters(lake)
    (result,) = replay(store, store.all(), CONNECTOR)
    assert (result.outcome, store.all()[0].state) == ("dead", "waiting")
    assert result.reason


def test_a_mended_letter_is_put_back_once_however_often_it_is_replayed(lake: Path) -> None:
    store = letters(lake)
    good = event("orders", {"id": 2, "n": 2})[1]
    assert [replay(store, store.all(), CONNECTOR, value=good)[0].outcome for _ in range(2)] == ["replayed", "present"]
    assert [r["__offset"] for r in log_rows(lake, "orders")] == [0, 1, 2]
    assert current(lake) == [(1, 3), (2, 2)]
    assert store.all()[0].state == "replayed"


def test_a_replayed_older_change_does_not_win_over_a_newer_one(lake: Path) -> None:
    store = letters(lake)
    older = event("orders", {"id": 1, "n": 2}, op="u")[1]
    letter = store.all()[0]
    replay(store, [type(letter)(**{**_fields(letter), "key": b'{"id":1}'})], CONNECTOR, value=older)
    assert current(lake) == [(1, 3)]


def test_a_letter_behind_a_fold_is_seen_after_the_rebuild(lake: Path) -> None:
    where = Lake(str(lake / "lake"))
    list(fold_source(where, SOURCE, lambda _: True))
    store = letters(lake)
    replay(store, store.all(), CONNECTOR, value=event("orders", {"id": 2, "n": 2})[1])
    assert rebuild_table(where, SOURCE, lambda _: True, TableId("public", "orders")).outcome == "folded"
    assert current(lake) == [(1, 3), (2, 2)]


class Killed(BaseException):
    """The process died here."""


@pytest.mark.parametrize(
    "point",
    [
        "dlq:before-put-back",
        "land:after-commit",
        "dlq:after-put-back",
        "fold:before-write",
        "fold:after-commit",
        "dlq:before-decision",
        "dlq:after-decision",
    ],
)
def test_a_replay_of_all_that_wait_is_finished_by_the_next_wherever_it_was_killed(
    lake: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, store = Lake(str(lake / "lake")), letters(lake)
    list(fold_source(where, SOURCE, lambda _: True))

    def replay_waiting() -> None:
        waiting = [x for x in store.all() if x.state == "waiting"]
        value = event("orders", {"id": 2, "n": 2})[1]
        replay(store, waiting, CONNECTOR, value=value, rebuild=lambda t: rebuild(where, t))

    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    monkeypatch.setattr(crashpoints, "on_reach", die)
    with pytest.raises(Killed):
        replay_waiting()
    monkeypatch.setattr(crashpoints, "on_reach", None)
    replay_waiting()
    assert current(lake) == [(1, 3), (2, 2)]
    assert [r["__offset"] for r in log_rows(lake, "orders")] == [0, 1, 2]
    assert store.all()[0].state == "replayed"


def rebuild(where: Lake, table: TableId) -> None:
    assert rebuild_table(where, SOURCE, lambda _: True, table).outcome == "folded"


def test_a_dry_run_changes_nothing(lake: Path) -> None:
    store = letters(lake)
    good = event("orders", {"id": 2, "n": 2})[1]
    assert replay(store, store.all(), CONNECTOR, value=good, dry_run=True)[0].outcome == "would replay"
    assert len(log_rows(lake, "orders")) == 2


def test_a_dropped_letter_is_kept_and_waits_no_longer(lake: Path) -> None:
    store = letters(lake)
    store.decide(store.all(), DROPPED)
    assert [x.state for x in store.all()] == ["dropped"]


def _fields(letter: Any) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__slots__}


def test_the_cut_goes_on_without_a_letter_that_was_dropped_and_says_how_many_there_are(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    kafka.create_topic(ORDERS)
    kafka.create_topic("pos.transaction")
    for n in (1, 2, 3):
        kafka.produce(ORDERS, 0, *event("orders", {"id": n, "n": n}, tx=(str(n), 1)))
        kafka.produce(ORDERS, 0, b'{"id":9}', b"{broken" if n > 1 else b'{"id":1}')
        kafka.produce("pos.transaction", 0, *end(str(n), {"public.orders": 2 if n > 1 else 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    store = letters(tmp_path)
    every = store.all()
    assert (current(tmp_path), cut(tmp_path)) == ([(1, 1)], (True, 0))
    store.decide([x for x in every if x.offset == 5], DROPPED)
    assert (current(tmp_path), cut(tmp_path)) == ([(1, 1)], (True, 1))
    store.decide([x for x in every if x.offset < 5], DROPPED)
    assert (current(tmp_path), cut(tmp_path)) == ([(1, 1), (2, 2), (3, 3)], (False, len(every)))


def test_the_cut_waits_for_a_dead_letter_of_its_transaction(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    kafka.create_topic(ORDERS)
    kafka.create_topic("pos.transaction")
    kafka.produce(ORDERS, 0, *event("orders", {"id": 1, "n": 1}, tx=("7", 1)))
    kafka.produce(ORDERS, 0, b'{"id":2}', b"{broken")
    kafka.produce("pos.transaction", 0, *end("7", {"public.orders": 2}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert current(tmp_path) == []
    store = letters(tmp_path)
    replay(store, store.all(), CONNECTOR, value=event("orders", {"id": 2, "n": 2}, tx=("7", 2))[1])
    assert current(tmp_path) == [(1, 1), (2, 2)]
    assert json.loads(log_rows(tmp_path, "orders")[1]["__after"])["id"] == 2


def test_a_table_of_which_only_dead_letters_came_holds_the_cut_until_they_are_dropped(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    for topic in (ORDERS, "pos.public.line_items", "pos.transaction"):
        kafka.create_topic(topic)
    kafka.produce(ORDERS, 0, *event("orders", {"id": 1, "n": 1}, tx=("7", 1)))
    kafka.produce("pos.public.line_items", 0, b'{"id":1}', b"{broken")
    kafka.produce("pos.public.line_items", 0, b'{"id":2}', b"{broken")
    kafka.produce("pos.transaction", 0, *end("7", {"public.orders": 1, "public.line items": 2}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    store = letters(tmp_path)
    assert (current(tmp_path), cut(tmp_path)) == ([], (True, 0))

    store.decide(store.all()[:1], DROPPED)
    assert (current(tmp_path), cut(tmp_path)) == ([], (True, 1))
    store.decide(store.all(), DROPPED)
    assert (current(tmp_path), cut(tmp_path)) == ([(1, 1)], (False, 2))
