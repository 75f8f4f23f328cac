"""A service handles each event once, in order, and sends what follows from it once, whatever dies."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cdc_lake.errors import LakeError
from cdc_lake.service import Context, Event, Merge, Service, Temporary, evaluated
from cdc_lake.service.answers import Answering, checks, letters
from cdc_lake.service.merge import Merging
from cdc_lake.service.outlet import MemoryOutlet
from cdc_lake.service.past import read_log
from cdc_lake.service.replay import Replay
from cdc_lake.service.run import Runner
from tests.service_world import Crashing, Killed, World, rows, settle

SEEDS = int(os.environ.get("SEEDS", "0")) // 100 or 15
AWAY = {"now": False}
MENDED = {"now": False}


def counter(version: int = 1, *, topics: tuple[str, ...] = ("numbers",)) -> Service:
    """Adds numbers up by key; every time a sum passes a ten it says so; sums never come out of order."""
    service = Service(
        "counter",
        topics,
        "CREATE TABLE sums (key TEXT PRIMARY KEY, total INTEGER NOT NULL, steps TEXT NOT NULL)",
        version=version,
        sends_to=("tens",),
    )

    @service.on("add")
    def add(event: Event, context: Context) -> None:
        number = event.data["number"]
        if AWAY["now"]:
            raise Temporary("the abacus is away")
        context.run(
            "INSERT INTO sums VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET total = total + excluded.total,"
            " steps = steps || ',' || excluded.steps",
            event.subject, number, str(number),
        )  # fmt: skip
        row = context.one("SELECT total FROM sums WHERE key = ?", event.subject)
        if number < 0 and not MENDED["now"]:
            context.reject("negative", "numbers go up")
        assert row is not None
        for ten in range((row["total"] - number) // 10 + 1, row["total"] // 10 + 1):
            context.emit("tens", "ten", {"key": event.subject, "ten": ten})

    @service.get("/sums", combine=lambda asked, rows: sorted(rows, key=lambda r: r["key"]))
    def sums(asked: object, db: object) -> list[dict[str, object]]:
        return [dict(r) for r in db.execute("SELECT key, total FROM sums")]  # type: ignore[attr-defined]

    return service


def add(n: int, number: int, key: str = "a", source: str = "/test") -> Event:
    return Event(f"e{n}", source, "add", {"number": number}, subject=key)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.topics("numbers", "tens")
    yield made
    AWAY["now"] = MENDED["now"] = False


def test_events_are_counted_once_and_answered_with_what_they_caused(world: World) -> None:
    for n, number in enumerate([4, 5, 3, 20]):
        world.put("numbers", add(n, number))
        world.put("numbers", add(n, number))
    runner = world.instance(counter())
    settle([runner])
    assert rows(runner, "/sums") == [{"key": "a", "total": 32}]
    assert letters(runner) == []
    tens = world.events("tens")
    assert [e.data["ten"] for e in tens] == [1, 2, 3]
    assert {e.correlation_id for e in tens} == {"e2", "e3"}
    assert tens[1].causation_id == tens[2].causation_id == "e3"
    assert tens[1].id != tens[2].id
    assert len({e.traceparent.split("-")[1] for e in tens}) == 2


def test_what_cannot_be_handled_is_a_dead_letter_and_changes_nothing(world: World) -> None:
    world.put("numbers", add(1, 4))
    world.put("numbers", add(2, -1))
    world.put("numbers", Event("e3", "/test", "add", {"nothing": 1}, subject="a"))
    world.put("numbers", add(1, 5))
    ahead = datetime.now(UTC) + timedelta(days=2)
    world.put("numbers", Event("e4", "/test", "add", {"number": 1}, subject="a", time=ahead))
    world.kafka.produce("numbers", 0, b"a", b"{", headers=[("ce_id", b"1")])
    world.kafka.produce("numbers", 0, b"a", b"[1]", headers=[("content-type", b"application/cloudevents+json")])
    world.put("numbers", add(5, 6))
    runner = world.instance(counter())
    settle([runner])
    assert rows(runner, "/sums") == [{"key": "a", "total": 10}]
    found = Counter(row["code"] for row in letters(runner))
    assert found == {"negative": 1, "failed": 1, "id_reused": 1, "future_dated": 1, "malformed": 2}
    assert len(world.kafka.matching("counter.dead-letters")) == 3
    dead = world.events_raw("counter.dead-letters")
    assert Counter(headers["dlq_code"] for headers, _ in dead) == found
    assert {value for headers, value in dead if headers["dlq_code"] == "malformed"} == {b"{", b"[1]"}


def replayed(world: World, *, dry_run: bool = False) -> dict[str, int]:
    dead = counter().letters
    broker = world.kafka.broker(Replay.group(dead), max_records=7)
    work = Replay(dead, broker, MemoryOutlet(world.kafka), dry_run)
    work.run(0)
    broker.close()
    return dict(work.sent)


def test_a_dead_letter_that_is_sent_again_is_handled_once_by_the_mended_handler(world: World) -> None:
    for n in range(20):
        world.put("numbers", add(n, -1 if n % 2 else 1, f"k{n % 5}"))
    runner = world.instance(counter())
    settle([runner])
    before = [record for record in world.records("numbers") if b"-1" in (record.value or b"")]
    assert replayed(world, dry_run=True) == {"numbers": 10}
    MENDED["now"] = True
    assert replayed(world) == {"numbers": 10}
    assert replayed(world) == {}
    settle([runner])
    assert sum(row["total"] for row in rows(runner, "/sums")) == 0
    again = [record for record in world.records("numbers") if b"-1" in (record.value or b"")]
    told = Counter((record.key, record.value, record.headers) for record in again)
    assert told == Counter({(r.key, r.value, r.headers): 2 for r in before})


def test_a_replay_that_is_killed_before_its_mark_sends_again_and_nothing_counts_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        world.put("numbers", add(n, -1))
    runner = world.instance(counter())
    settle([runner])
    MENDED["now"] = True
    dead = counter().letters
    broker = world.kafka.broker(Replay.group(dead), max_records=7)

    def killed(_: object) -> None:
        world.kafka.crash(broker)
        raise Killed("before its mark")

    monkeypatch.setattr(broker, "commit", killed)
    with pytest.raises(Killed):
        Replay(dead, broker, MemoryOutlet(world.kafka)).run(0)
    assert replayed(world) == {"numbers": 4}
    settle([runner])
    assert rows(runner, "/sums") == [{"key": "a", "total": -4}]
    assert len(letters(runner)) == 4


def test_what_is_away_for_a_while_is_waited_for_and_nothing_is_lost(world: World) -> None:
    world.put("numbers", add(1, 4))
    AWAY["now"] = True
    runner = world.instance(counter())
    for _ in range(5):
        runner.step(0)
        world.now += 60
    assert runner.state == "the abacus is away"
    assert not letters(runner)
    AWAY["now"] = False
    settle([runner])
    assert rows(runner, "/sums") == [{"key": "a", "total": 4}]


def test_answers_say_how_old_they_are_and_which_partitions_nobody_answers_for(world: World) -> None:
    runner, other = world.instance(counter(), 0), world.instance(counter(), 1)
    settle([runner, other])
    found = Answering(runner).ask(runner.service.routes["/sums"], {}, alone=False)
    assert found["stale"] is True
    assert found["missing"] == sorted(str(tp) for tp in other.held)
    world.kill(other)
    settle([runner])
    assert "missing" not in Answering(runner).ask(runner.service.routes["/sums"], {}, alone=False)
    assert all(check["ok"] for check in checks(runner))
    world.kafka.outage = "unplugged"
    runner.step(0)
    assert [check["name"] for check in checks(runner) if not check["ok"]] == ["broker"]


def test_an_event_that_cannot_be_sent_waits_until_it_can(world: World) -> None:
    runner = world.instance(counter())
    settle([runner])
    world.put("numbers", add(1, 10))
    batches = runner.broker.poll(0)
    world.kafka.outage = "unplugged"
    for batch in batches:
        runner._apply(runner.held[batch.tp], batch)
    runner.step(0)
    assert runner.state == "Kafka does not answer."
    world.kafka.outage = None
    world.now += 60
    settle([runner])
    assert len(world.events("tens")) == 1


def test_a_timer_is_sent_when_its_moment_comes_unless_it_was_cancelled(world: World) -> None:
    service = Service("bell", ("rings",), "CREATE TABLE rung (id TEXT)")

    @service.on("wind")
    def wind(event: Event, context: Context) -> None:
        due = event.came_at + timedelta(minutes=5)
        context.later(event.data["name"], due, "rings", "ring", {"name": event.data["name"]})

    @service.on("stop")
    def stop(event: Event, context: Context) -> None:
        context.cancel(event.data["name"])

    @service.on("ring")
    def ring(event: Event, context: Context) -> None:
        context.run("INSERT INTO rung VALUES (?)", event.data["name"])

    world.topics("rings")
    at = 1_600_000_000_000
    for n, (type, name) in enumerate([("wind", "x"), ("wind", "y"), ("stop", "x")]):
        event = Event(str(n), "/test", type, {"name": name}, subject="a", time=datetime(2020, 1, 1, tzinfo=UTC))
        world.put("rings", event, timestamp=at)
    wall = [at / 1000 + 299]
    runner = world.instance(service, wall=lambda: wall[0])
    settle([runner])
    assert len(world.events("rings")) == 3
    wall[0] += 2
    world.kill(runner)
    runner = world.instance(service, 1, wall=lambda: wall[0])
    settle([runner])
    assert [e.type for e in world.events("rings")].count("ring") == 1
    (held,) = [h for h in runner.held.values() if h.shard.position]
    assert [tuple(r) for r in held.shard.db.execute("SELECT id FROM rung")] == [("y",)]
    assert held.shard.due(1 << 60) == []


def test_a_new_version_fills_itself_beside_the_old_one_and_takes_over_without_a_gap_or_a_double(world: World) -> None:
    numbers = itertools.count()

    def more(count: int) -> None:
        for _ in range(count):
            world.put("numbers", add(next(numbers), 3, random.choice("abc")))

    more(40)
    old = world.instance(counter(1))
    settle([old])
    new = world.instance(counter(2), sends=False)
    more(30)
    for _ in range(3):
        new.step(0)
    settle([old, new])
    with pytest.raises(LakeError, match="still runs"):
        world.instance(counter(2), 1)
    more(20)
    world.kill(old)
    settle([new])
    sent = len(world.events("tens"))
    new.close()
    new = world.instance(counter(2))
    settle([new])
    expected = sum(row["total"] // 10 for row in rows(new, "/sums"))
    assert sum(row["total"] for row in rows(new, "/sums")) == 3 * 90
    assert expected > sent
    assert len(world.events("tens")) == len(world.distinct("tens")) == expected


def test_a_state_that_was_deleted_is_filled_from_the_log_and_sends_nothing_again(world: World) -> None:
    for n in range(50):
        world.put("numbers", add(n, 3, random.choice("abc")))
    runner = world.instance(counter())
    settle([runner])
    before, sent = rows(runner, "/sums"), len(world.events("tens"))
    world.kill(runner)
    anew = World(world.folder / "elsewhere", kafka=world.kafka).instance(counter())
    settle([anew])
    assert rows(anew, "/sums") == before
    assert len(world.events("tens")) == sent


def test_a_service_may_begin_to_send_from_now_on(world: World) -> None:
    for n in range(20):
        world.put("numbers", add(n, 10))
    runner = world.instance(counter(), sends_from_now=True)
    settle([runner])
    assert world.events("tens") == []
    world.put("numbers", add(20, 10))
    settle([runner])
    assert [e.data["ten"] for e in world.events("tens")] == [21]


def test_a_recreated_topic_stops_its_partitions_by_name_and_lost_records_are_named(world: World) -> None:
    world.put("numbers", add(1, 4))
    runner = world.instance(counter())
    settle([runner])
    world.kafka.recreate_topic("numbers")
    runner.step(0)
    assert {error.code for error in runner.problems.values()} == {"topic_recreated"}
    assert not all(check["ok"] for check in checks(runner))
    runner.close()
    lost = World(world.folder / "lost")
    lost.topics("numbers")
    lost.put("numbers", add(1, 4))
    lost.put("numbers", add(2, 4))
    (tp,) = [tp for tp in lost.kafka.matching("numbers") if lost.kafka.info(tp).end]
    lost.kafka.delete_before("numbers", tp.partition, 1)
    runner = lost.instance(counter())
    settle([runner])
    assert {tp: e.code for tp, e in runner.problems.items()} == {tp: "offsets_expired"}


def test_the_state_at_a_past_position_is_what_the_service_answered_then(world: World, tmp_path: Path) -> None:
    runner = world.instance(counter(), snapshot_events=9)
    told = []
    chance = random.Random(3)
    for n in range(80):
        world.put("numbers", add(n, chance.randint(1, 9), chance.choice("abcd")))
        runner.step(0)
        found = Answering(runner).ask(runner.service.routes["/sums"], {}, alone=False)
        told.append((found["rows"], found["as_of"]))
    for before, as_of in told[::7]:
        again = []
        for tp in world.kafka.matching("numbers"):
            offset = as_of[str(tp)]["offset"]
            for copies in (None, runner.folder):
                log = read_log(world.kafka.broker(f"past-{next(IDS)}"), tp)
                with evaluated(counter(), tp, log, upto=offset, copies=copies) as db:
                    part = [dict(r) for r in db.execute("SELECT key, total FROM sums")]
            again += part
        assert sorted(again, key=lambda r: str(r["key"])) == before


IDS = itertools.count()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_event_counts_once_and_is_answered_once_whatever_dies(seed: int, tmp_path: Path) -> None:
    """Three instances behind a merge of two topics; deliveries twice, kills at any point, rebalances, outages."""
    chance = random.Random(seed)
    world = World(tmp_path)
    merge = Merge("numbers", ("left", "right"))
    world.topics("left", "right", "numbers", "tens")
    service = counter()
    members: dict[int, Runner | Merging] = {}
    sent: list[tuple[str, Event]] = []
    expected: Counter[str] = Counter()

    def begin(slot: int) -> None:
        members[slot] = world.merging(merge) if slot > 2 else world.instance(service, slot, snapshot_events=11)

    for slot in range(5):
        begin(slot)
    for n in range(120):
        event = add(n, chance.randint(1, 9), chance.choice("abcdef"), source=chance.choice(["/x", "/y"]))
        topic = chance.choice(["left", "right"])
        sent.append((topic, event))
        expected[event.subject] += event.data["number"]
        world.put(topic, event)
        if chance.random() < 0.2:
            world.put(*chance.choice(sent[-10:]))
        with Crashing(chance.randint(1, 60) if chance.random() < 0.6 else 1 << 30):
            slot = chance.randrange(5)
            try:
                for _ in range(chance.randint(0, 3)):
                    members[slot].step(0)
            except Killed:
                world.kill(members[slot])
                begin(slot)
        if chance.random() < 0.05:
            world.kafka.rebalance(service.group)
        world.kafka.outage = "unplugged" if chance.random() < 0.05 else None
        world.now += chance.random() * 5
    world.kafka.outage = None
    world.now += 100
    for member in members.values():
        if isinstance(member, Merging):
            member._again_at = 0
    settle(members.values())
    found = {
        row["key"]: row["total"]
        for member in members.values()
        if isinstance(member, Runner)
        for row in rows(member, "/sums")
    }
    assert found == expected
    tens = Counter((e.data["key"], e.data["ten"]) for e in world.distinct("tens"))
    assert tens == {(key, ten): 1 for key, total in expected.items() for ten in range(1, total // 10 + 1)}
