"""Promise 1 under faults chosen by a seed. One seed is one run; replay it with `SEED=n pytest tests/simulation`."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cdc_lake import crashpoints
from cdc_lake.consume.memory import MemoryBroker, MemoryKafka
from cdc_lake.errors import PartitionError
from cdc_lake.events import TopicPartition
from cdc_lake.pipeline import Sink
from tests.lakes import dead_rows, end, event, log_rows, make_sink

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else list(range(int(os.environ.get("SEEDS", "40"))))
TABLES = ("orders", "items", "a b", "a_b")
POINTS = (
    "land:after-dead-letters",
    "land:before-commit",
    "land:after-write",
    "land:after-commit",
    "land:before-transactions",
)


class Crash(BaseException):
    """The process is gone: nothing after this line runs."""


class Faults:
    """Crashes, and lost responses of commits that landed, at random points."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.crashes = 0

    def __call__(self, point: str) -> None:
        if point == "land:after-write" and self._rng.random() < 0.1:
            raise OSError("the store's response was lost")
        if point in POINTS and self._rng.random() < 0.12:
            self.crashes += 1
            raise Crash(point)


def _produce(kafka: MemoryKafka, rng: random.Random, start: int) -> tuple[list[tuple[str, int, int]], int]:
    """A few transactions of events, poison and gaps among them: the coordinates, and how many are poison."""
    poison = 0
    produced: list[tuple[str, int, int]] = []

    def produce(topic: str, partition: int, record: tuple[bytes | None, bytes]) -> None:
        tp = TopicPartition(topic, partition)
        produced.append((topic, partition, kafka.info(tp).end))
        kafka.produce(topic, partition, *record)

    for n in range(start, start + rng.randint(1, 6)):
        counts: dict[str, int] = {}
        for order in range(1, rng.randint(2, 6)):
            table = rng.choice(TABLES)
            topic = "pos.public." + table.replace(" ", "_")
            partition = rng.randrange(2)
            produce(topic, partition, event(table, {"id": order, "n": n}, tx=(str(n), order)))
            counts[f"public.{table}"] = counts.get(f"public.{table}", 0) + 1
            if rng.random() < 0.1:
                produce(topic, partition, (b'{"id":0}', b"{broken"))
                poison += 1
            if rng.random() < 0.1:
                kafka.skip(topic, partition, rng.randint(1, 3))
        produce("pos.transaction", 0, end(str(n), counts))
    return produced, poison


@pytest.mark.parametrize("seed", SEEDS)
def test_each_record_is_landed_exactly_once_under_crashes_lost_responses_and_rebalances(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    kafka = MemoryKafka()
    for topic in ("pos.public.orders", "pos.public.items", "pos.public.a_b"):
        kafka.create_topic(topic, 2)
    kafka.create_topic("pos.transaction")
    faults = Faults(rng)
    produced: list[tuple[str, int, int]] = []
    poison = 0
    for round_number in range(rng.randint(2, 5)):
        coordinates, bad = _produce(kafka, rng, round_number * 100)
        produced += coordinates
        poison += bad
        monkeypatch.setattr(crashpoints, "on_reach", faults)
        _run_until_it_ends_or_crashes(kafka, tmp_path, rng)
    monkeypatch.setattr(crashpoints, "on_reach", None)
    progress = make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert progress.stopped == {}
    _check(tmp_path, produced, poison)


def _run_until_it_ends_or_crashes(kafka: MemoryKafka, folder: Path, rng: random.Random) -> None:
    sinks = [make_sink(kafka, folder, flush_seconds=rng.choice([1e-9, 3600.0])) for _ in range(rng.choice([1, 1, 2]))]
    for sink in sinks[1:]:  # a member that holds some partitions, buffers, and never comes to write
        sink._broker.subscribe(sink.pattern, sink)
        sink._step()
        _crash(kafka, sink)
    try:
        sinks[0].run(until_caught_up=True)
    except (Crash, PartitionError):
        _crash(kafka, sinks[0])


def _crash(kafka: MemoryKafka, sink: Sink) -> None:
    assert isinstance(sink._broker, MemoryBroker)
    kafka.crash(sink._broker)


def _check(folder: Path, produced: list[tuple[str, int, int]], poison: int) -> None:
    landed: list[tuple[str, int, int]] = []
    for table in TABLES:
        rows = log_rows(folder, table)
        assert all(r["__after"] is not None for r in rows)
        landed += [(r["__topic"], r["__partition"], r["__offset"]) for r in rows]
    dead = [(r["topic"], r["partition"], r["offset"]) for r in dead_rows(folder)]
    assert len(dead) == len(set(dead)) == poison
    landed += dead
    landed += [(r["__topic"], r["__partition"], r["__offset"]) for r in log_rows(folder, None, path="transactions")]
    assert sorted(landed) == sorted(produced)
