"""A service goes on from the lake where Kafka has forgotten, and reads the changes of tables."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdc_lake.consume import PartitionInfo
from cdc_lake.events import TopicPartition
from cdc_lake.query.session import open_session
from cdc_lake.service import Event, changes_of
from cdc_lake.service.event import decode
from cdc_lake.service.lake import LakeHistory
from cdc_lake.service.shard import records
from tests.events import Warehouse, binary, structured
from tests.lake_model import Feed, config
from tests.service_world import World, rows, settle
from tests.unit.test_rules_run import SALES, go_on
from tests.unit.test_service_run import add, counter


def test_what_kafka_has_forgotten_is_filled_from_the_lake_as_if_it_were_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.topics("numbers", "tens")
    warehouse = Warehouse(tmp_path / "lake", {"numbers": world.partitions}, kafka=world.kafka)
    chance = random.Random(1)
    for n in range(60):
        world.put("numbers", add(n, chance.randint(1, 9), chance.choice("abc")))
    warehouse.land()
    runner = world.instance(counter())
    settle([runner])
    before = rows(runner, "/sums")
    runner.close()
    for tp in world.kafka.matching("numbers"):
        world.kafka.delete_before("numbers", tp.partition, max(0, world.kafka.info(tp).end - 3))
    lost = World(tmp_path / "new", kafka=world.kafka).instance(counter())
    settle([lost])
    assert {error.code for error in lost.problems.values()} == {"offsets_expired"}
    lost.close()
    sent = len(world.events("tens"))
    filled = World(tmp_path / "newer", kafka=world.kafka).instance(counter(), history=LakeHistory(warehouse.config))
    settle([filled])
    assert not filled.problems
    assert rows(filled, "/sums") == before
    assert len(world.events("tens")) == sent


def test_events_come_out_of_the_lake_as_they_went_in(tmp_path: Path) -> None:
    topic = "retail.scans"
    warehouse = Warehouse(tmp_path, {topic: 1})
    data = {"n": 2**53 + 1, "id": "the data's own", "deep": {"a": [1, None, "ü"]}, "data_x": True, "price": 1.25}
    warehouse.put(binary("1", data, subject="k", sequence="7", time="2026-01-01T00:00:00.5Z"), key=b"k", at=1_000)
    warehouse.put(structured("2", data, subject="k", correlationid="c"), key=b"k", at=2_000)
    warehouse.put((b"{", [("ce_id", b"x")]), at=3_000)
    warehouse.put(binary("1", data, subject="k", sequence="7", time="2026-01-01T00:00:00.5Z"), key=b"k", at=4_000)
    warehouse.land()
    (tp,) = warehouse.kafka.matching(topic)
    went_in = {}
    broker = warehouse.kafka.broker("direct")
    broker.subscribe(topic, All())
    for batch in broker.poll(0):
        went_in = {r.offset: r for r in records(batch)}
    warehouse.kafka.delete_before(topic, 0, 4)
    came_out = [r for batch in LakeHistory(warehouse.config)(warehouse.kafka.info(tp), 0) for r in records(batch)]
    assert [r.offset for r in came_out] == [0, 1, 3]
    for record in came_out:
        before = went_in[record.offset]
        assert (record.at, record.key) == (before.at, before.key)
        one, other = decode(record.headers, record.value), decode(before.headers, before.value)
        assert one == other
        assert one.content == other.content


class All:
    """Reads all."""

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        return {info.tp: info.beginning for info in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None: ...


def test_changes_of_a_table_are_events_in_their_order_and_go_on_where_they_ended(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (SALES,))
    go_on(feed, 6)
    found = changes(tmp_path)
    assert len(found) >= 6
    first = found[0]
    assert first.type == "public.sales.created"
    assert first.data["before"] is None
    assert first.data["after"]["id"]
    assert len({e.id for e in found}) == len(found)
    known = {(e.place.topic, e.place.partition): e.place.offset for e in found if e.place is not None}
    go_on(feed, 4)
    more = changes(tmp_path, known)
    assert len(more) == 4
    assert {e.id for e in more} == {e.id for e in changes(tmp_path)} - {e.id for e in found}


def changes(folder: Path, after: dict[tuple[str, int], int] | None = None) -> list[Event]:
    """The changes of the table of sales."""
    session = open_session(config(folder))
    try:
        return list(changes_of(session.connection, "public.sales", after=after))
    finally:
        session.close()
