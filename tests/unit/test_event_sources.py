"""Topics of events in the lake: each message once, each event counted once, in one order that is written down."""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from cdc_lake import crashpoints
from cdc_lake.cli import main as cli
from cdc_lake.config_source import Source
from cdc_lake.consume.broker import PartitionInfo
from cdc_lake.event_sink import EventLetters
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land.dead_letters import DeadLetters
from cdc_lake.project.fold import fold_source
from cdc_lake.query.session import open_lake
from cdc_lake.replay import replay
from tests.events import TOPIC, Warehouse, binary, structured
from tests.unit.test_pipeline import killed_at

SCANS = TableId("events", "scans")
POINTS = (
    "land:before-dead-letters",
    "land:before-commit",
    "land:after-commit",
    "land:before-transactions",
    "land:after-batch-end",
    "sink:before-broker-commit",
)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path)


def test_an_event_that_is_sent_again_counts_once_and_stays_visible(warehouse: Warehouse) -> None:
    warehouse.put(binary("1", {"store_id": 3, "quantity": 2}, time="2026-11-24T10:00:00Z"), key=b"3/7")
    warehouse.put(structured("2", {"store_id": 3, "quantity": 1.5}), key=b"3/7")
    warehouse.put(binary("1", {"store_id": 3, "quantity": 2}), key=b"3/7")
    warehouse.land()
    warehouse.put(binary("2", {"store_id": 3, "quantity": 99}), key=b"3/7")
    warehouse.put(binary("1", {"store_id": 4}, source="/other"), key=b"4/7", partition=1)
    warehouse.land()
    rows = warehouse.ask(
        """SELECT source, id, partitionkey, store_id, quantity, kafka_partition, kafka_offset FROM events.scans
        ORDER BY ALL"""
    )
    assert rows == [
        ("/other", "1", "4/7", 4, None, 1, 0),
        ("/s", "1", "3/7", 3, 2.0, 0, 0),
        ("/s", "2", "3/7", 3, 1.5, 0, 1),
    ]
    changes = warehouse.ask("SELECT __op, id FROM changes.events.scans ORDER BY __partition, __offset")
    assert changes == [("c", "1"), ("c", "2"), ("a", "1"), ("a", "2"), ("c", "1")]
    assert warehouse.ask("SELECT time::VARCHAR FROM events.scans WHERE time IS NOT NULL") == [
        ("2026-11-24 10:00:00+00",)
    ]


def test_the_order_of_batches_is_written_down(warehouse: Warehouse) -> None:
    for number in range(7):
        warehouse.put(binary(str(number), {"n": number}), partition=number % 2)
    warehouse.land(max_records=3)
    ends = warehouse.ends()
    assert [e["__offset"] for e in ends] == list(range(len(ends)))
    assert len(ends) > 1
    placed = warehouse.ask(
        """SELECT t.__offset, c.__tx_order, c.__partition, c.n FROM changes.events.scans c
        JOIN lake.transactions t ON t.tx_id = c.__tx_id ORDER BY 1, 2"""
    )
    for partition in (0, 1):
        mine = [n for _, _, p, n in placed if p == partition]
        assert mine == sorted(mine)
    assert warehouse.ask("SELECT position, stalled FROM lake.cut") == [(len(ends), False)]


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_each_message_lands_once_and_each_event_counts(warehouse: Warehouse, point: str) -> None:
    for number in range(6):
        warehouse.put(binary(str(number), {"n": number}), partition=number % 2)
        warehouse.put((b"{", []), partition=number % 2)
    seen = 0

    def here(name: str) -> bool:
        nonlocal seen
        seen += name == point
        return name == point and seen == 2

    with killed_at(here):
        warehouse.sink(max_records=4).run(until_caught_up=True)
    warehouse.kafka._groups.clear()
    warehouse.land()
    landed = warehouse.ask("SELECT __partition, __offset FROM changes.events.scans ORDER BY ALL")
    assert landed == [(p, o) for p in (0, 1) for o in (0, 2, 4)]
    assert warehouse.ask("SELECT n FROM events.scans ORDER BY n") == [(n,) for n in range(6)]
    assert warehouse.ask("SELECT count(*) FROM lake.dead_letters") == [(6,)]


def test_a_table_that_was_folded_takes_new_fields_and_wider_types(warehouse: Warehouse) -> None:
    lake = open_lake(warehouse.config)
    for number, data in enumerate([{"q": 1}, {"q": 2.5, "who": "me"}, {"q": "none", "store": {"id": 1}}]):
        warehouse.put(binary(str(number), data))
        warehouse.put(binary("0", {"q": 1}))
        warehouse.land()
        folded = list(fold_source(lake, "warehouse", warehouse.config.captures))
        assert [(f.table, f.error) for f in folded] == [(SCANS, None)]
    found = warehouse.ask("SELECT id, q, who, store->>'id' FROM events.scans ORDER BY id")
    assert found == [("0", "1.0", None, None), ("1", "2.5", "me", None), ("2", "none", None, "1")]
    assert warehouse.ask("SELECT count(*) FROM events.scans") == [(3,)]


def test_a_dead_letter_that_was_mended_counts_behind_what_has_landed(warehouse: Warehouse) -> None:
    warehouse.put(binary("1", {"n": 1}))
    warehouse.put((b'{"specversion":"1.0"', binary("2")[1]))
    warehouse.put(binary("3", {"n": 3}))
    warehouse.land()
    letters = DeadLetters(warehouse.config.lake_uri, "warehouse")
    good = json.dumps({"n": 2}).encode()
    for expected in ("replayed", "present"):
        events = EventLetters(warehouse.config, warehouse.source)
        (done,) = replay(letters, letters.all(), None, events=events, value=good)
        events.close()
        assert (done.outcome, done.table) == (expected, SCANS)
    assert warehouse.ask("SELECT n, kafka_offset FROM events.scans ORDER BY n") == [(1, 0), (2, 1), (3, 2)]
    assert warehouse.ends()[-1]["tx_id"] == f"letter:{TOPIC}/0/1"
    assert [x.state for x in letters.all()] == ["replayed"]


def test_killed_while_a_letter_is_put_back_it_counts_after_the_next_try(warehouse: Warehouse) -> None:
    warehouse.put((b"{", binary("2")[1]))
    warehouse.land()
    letters = DeadLetters(warehouse.config.lake_uri, "warehouse")
    crashpoints.on_reach = None
    for point in ("dlq:after-put-back", "dlq:before-decision"):
        with killed_at(partial(operator.eq, point)):
            replay(letters, letters.all(), None, events=EventLetters(warehouse.config, warehouse.source), value=b"{}")
    replay(letters, letters.all(), None, events=EventLetters(warehouse.config, warehouse.source), value=b"{}")
    assert warehouse.ask("SELECT id FROM events.scans") == [("2",)]


def test_two_sinks_of_one_source_share_its_topics_and_one_order(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path, {TOPIC: 4, "retail.orders": 2})
    chance = random.Random(7)
    sinks = [warehouse.sink(max_records=3) for _ in range(2)]
    for sink in sinks:
        sink._broker.subscribe(sink.pattern, sink)
    sent = 0
    for _ in range(30):
        for _ in range(chance.randrange(4)):
            topic, partitions = chance.choice([(TOPIC, 4), ("retail.orders", 2)])
            # One in four is an event that was sent before.
            name = str(sent if sent == 0 or chance.random() < 0.75 else chance.randrange(sent))
            warehouse.put(binary(name, {"n": int(name)}), topic=topic, partition=int(name) % partitions)
            sent += 1
        sinks[chance.randrange(2)]._step()
        if chance.random() < 0.1:
            warehouse.kafka.rebalance("events")
    for sink in sinks:
        sink._drain()
        sink._broker.close()
        sink._landing.close()
    warehouse.land()
    ends = warehouse.ends()
    assert [e["__offset"] for e in ends] == list(range(len(ends)))
    for table, topic in (("scans", TOPIC), ("orders", "retail.orders")):
        (arrived,) = warehouse.ask(f"SELECT count(*), count(DISTINCT id) FROM changes.events.{table}")
        (counted,) = warehouse.ask(f"SELECT count(*), count(DISTINCT id) FROM events.{table}")
        (first,) = warehouse.ask(f"SELECT count(*) FROM changes.events.{table} WHERE __op = 'c'")
        in_kafka = sum(warehouse.kafka.info(tp).end for tp in warehouse.kafka.matching(topic.replace(".", r"\.")))
        assert arrived[0] == in_kafka
        assert counted == (arrived[1], arrived[1])
        assert first == (arrived[1],)


def test_hostile_names_and_times_are_shown_as_they_came(warehouse: Warehouse) -> None:
    warehouse.put(binary("1", {'a"b': 1, "__op": "mine", "x y": 2, "": 3}, time="2999-01-01T00:00:00Z"))
    warehouse.put(binary("2", {"a.b": None}, time="0001-01-01T00:00:00Z"))
    for at in (2**62, -1):  # Kafka's own clock of a record may be anything
        warehouse.put(binary("2", {"a.b": None}), at=at, partition=1)
        warehouse.put((b"{", []), at=at, partition=1)
    warehouse.land()
    assert warehouse.ask("""SELECT "a""b", "x y", "__op", year(time) FROM events.scans WHERE id = '1'""") == [
        (1, 2, "mine", 2999)
    ]
    changes = warehouse.ask("SELECT __op, id FROM changes.events.scans ORDER BY id, __partition, __offset")
    assert changes == [("c", "1"), ("c", "2"), ("a", "2"), ("a", "2")]
    assert warehouse.ask("SELECT count(*) FROM lake.dead_letters") == [(2,)]


def test_a_source_of_events_is_no_database_to_verify(
    warehouse: Warehouse, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (warehouse.folder / "cdc-lake.yaml").write_text(
        "sources: [{name: warehouse, events: [retail.scans]}]\nkafka: {bootstrap: 'localhost:1'}\n"
    )
    monkeypatch.chdir(warehouse.folder)
    warehouse.put(binary("1", {"a": 1}))
    warehouse.put((b"{", []))
    warehouse.land()
    for words, expected in (
        (["verify"], 0),
        (["tables"], 0),
        (["changes", "events.scans"], 0),
        (["history", "events.scans", '{"source": "/s", "id": "1"}'], 0),
        (["dlq", "list"], 0),
        (["dlq", "replay", "--all"], 3),
        (["query", "SELECT a FROM events.scans"], 0),
        (["fold"], 0),
        (["maintain", "--dry-run"], 0),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["--json", *words])
        out = capfd.readouterr().out
        assert (words, stop.value.code or 0) == (words, expected), out


def test_the_sources_beside_it_are_written_down_with_each_batch(tmp_path: Path) -> None:
    connectors = tmp_path / "connectors"
    connectors.mkdir()
    settings = {"connector.class": "x", "topic.prefix": "pos", "provide.transaction.metadata": "true"}
    (connectors / "pos.json").write_text(json.dumps({"name": "pos", "config": settings}))
    warehouse = Warehouse(tmp_path, databases=(Source(name="pos", connector="connectors/pos.json"),))
    warehouse.put(binary("1", {}))
    warehouse.land()
    assert [json.loads(e["data_collections"]) for e in warehouse.ends()] == [[{"source": "pos", "position": 0}]]


def test_a_source_that_falls_silent_says_that_time_passes(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path, idle_seconds=0.01)
    warehouse.put(binary("1", {"n": 1}), at=1_764_000_000_000)

    def enough(_: object) -> None:
        if len(warehouse.ends()) == 4:
            sink.stop()

    sink = warehouse.sink()
    before = datetime.now(UTC)
    sink.run(on_progress=enough)
    first, *silent = warehouse.ends()
    assert (first["event_count"], [e["event_count"] for e in silent]) == (1, [0, 0, 0])
    times = [e["source_ts"] for e in silent]
    assert times == sorted(times)
    assert before - timedelta(seconds=0.01) <= times[0] <= times[-1] < datetime.now(UTC)
    assert warehouse.ask("SELECT position, stalled FROM lake.cut") == [(4, False)]
    assert warehouse.ask("SELECT count(*) FROM changes.events.scans") == [(1,)]


class Stuck:
    """A member of the group that takes partitions and reads nothing of them."""

    def assigned(self, partitions: Sequence[PartitionInfo]) -> dict[TopicPartition, int]:
        return dict.fromkeys((p.tp for p in partitions), 0)

    def revoked(self, _: Sequence[TopicPartition]) -> None:
        pass


def test_nothing_is_said_of_time_while_a_message_waits_with_another_member(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path, idle_seconds=1e-6)
    for partition in (0, 1):
        warehouse.put(binary(str(partition), {"n": 1}), partition=partition)
    other, sink, rounds = warehouse.kafka.broker("events"), warehouse.sink(), 0
    other.subscribe(sink.pattern, Stuck())

    def enough(_: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 20:
            sink.stop()

    sink.run(on_progress=enough)
    assert [e["event_count"] for e in warehouse.ends()] == [1]
