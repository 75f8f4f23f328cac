"""A sink waits for the schemas of what it has read: nothing is dropped, and nothing that needs none stands still for it
longer than its own flush."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.land.dead_letters import DeadLetters
from cdc_lake.progress import Progress
from cdc_lake.replay import replay
from tests.lakes import CONNECTOR, SOURCE, dead_rows, log_rows, make_sink
from tests.registry_world import FakeRegistry, wire
from tests.unit.test_codecs import COLUMNS, KEY, envelope, event, row, written_avro, written_inline

TOPIC = "pos.public.sales"


@pytest.fixture
def kafka() -> MemoryKafka:
    kafka = MemoryKafka()
    kafka.create_topic(TOPIC)
    kafka.create_topic("pos.transaction")
    return kafka


def send(kafka: MemoryKafka, registry: FakeRegistry, number: int) -> None:
    value = written_avro(registry, envelope(*COLUMNS), event("c", number, after=row(number)))
    kafka.produce(TOPIC, 0, written_avro(registry, KEY, {"id": number}), value)


def landed(folder: Path) -> list[int]:
    return [r["__offset"] for r in log_rows(folder, "sales")]


def test_records_wait_for_the_registry_and_land_when_it_answers(kafka: MemoryKafka, tmp_path: Path) -> None:
    registry = FakeRegistry()
    for number in range(20):
        send(kafka, registry, number)
    registry.away = "waiting for the schema registry (Connection refused)"
    told: list[str] = []

    def look(progress: Progress) -> None:
        told.append(progress.registry)
        assert progress.events == 0 or not registry.away
        if len(told) == 30:
            assert landed(tmp_path) == []
            registry.away = ""

    progress = make_sink(kafka, tmp_path, schemas=registry, max_records=3).run(until_caught_up=True, on_progress=look)
    assert told[28] == "waiting for the schema registry (Connection refused)"
    assert (progress.events, progress.dead, progress.registry) == (20, 0, "")
    assert landed(tmp_path) == list(range(20))


def test_partitions_are_paused_while_the_registry_is_away(kafka: MemoryKafka, tmp_path: Path) -> None:
    registry = FakeRegistry()
    wide = event("c", 1, after=row(1, note="x" * 1_000_000))
    for _ in range(60):
        kafka.produce(TOPIC, 0, None, written_avro(registry, envelope(*COLUMNS), wide))
    registry.away = "away"
    sink = make_sink(kafka, tmp_path, schemas=registry, max_records=1, memory_mb=32)
    looks = 0

    def look(_: Progress) -> None:
        nonlocal looks
        looks += 1
        if looks == 80:
            assert sink._buffer.nbytes < 20_000_000, "what is held in memory has a limit"
            registry.away = ""

    assert sink.run(until_caught_up=True, on_progress=look).events == 60


def test_a_sink_that_is_stopped_while_it_waits_loses_nothing(kafka: MemoryKafka, tmp_path: Path) -> None:
    registry = FakeRegistry()
    for number in range(5):
        send(kafka, registry, number)
    registry.away = "away"
    sink = make_sink(kafka, tmp_path, schemas=registry)
    sink.run(on_progress=lambda progress: sink.stop() if progress.registry else None)
    assert landed(tmp_path) == []
    registry.away = ""
    assert make_sink(kafka, tmp_path, schemas=registry).run(until_caught_up=True).events == 5
    assert landed(tmp_path) == list(range(5))


def test_a_letter_whose_schema_was_not_there_is_put_back_at_its_place(kafka: MemoryKafka, tmp_path: Path) -> None:
    registry, later = FakeRegistry(), FakeRegistry()
    send(kafka, registry, 0)
    value = written_avro(later, envelope(*COLUMNS), event("u", 1, after=row(0, note="late")))
    kafka.produce(TOPIC, 0, written_inline(registry, KEY, {"id": 0}), wire(99, value[5:]))
    send(kafka, registry, 2)
    progress = make_sink(kafka, tmp_path, schemas=registry).run(until_caught_up=True)
    assert (progress.events, progress.dead) == (2, 1)
    (letter,) = dead_rows(tmp_path)
    assert (letter["error_class"], letter["offset"]) == ("unknown_schema", 1)
    assert "99" in letter["reason"]
    letters = DeadLetters(str(tmp_path / "lake"), SOURCE)
    (still,) = replay(letters, letters.all(), CONNECTOR, schemas=registry)
    assert (still.outcome, "99" in still.reason) == ("dead", True)
    (without,) = replay(letters, letters.all(), CONNECTOR)
    assert "registry.url" in without.reason
    registry.known[99] = later.known[1]
    (done,) = replay(letters, letters.all(), CONNECTOR, schemas=registry)
    assert done.outcome == "replayed"
    assert landed(tmp_path) == [0, 1, 2]
