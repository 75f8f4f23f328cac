"""The sink on an in-memory Kafka and a real Delta lake in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cdc_lake import crashpoints
from cdc_lake.consume.broker import PartitionInfo
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import OffsetsExpired, PartitionFenced, TopicRecreated, UnavailableError
from cdc_lake.events import TableId
from cdc_lake.pipeline import Sink
from tests.lakes import SOURCE, dead_rows, end, event, log_rows, make_sink, offsets


@contextmanager
def killed_at(here: Callable[[str], bool]) -> Iterator[None]:
    """What runs in it dies at the first crash point for which `here` is true."""

    def die(point: str) -> None:
        if here(point):
            raise KeyboardInterrupt

    crashpoints.on_reach = die
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        crashpoints.on_reach = None


@pytest.fixture
def kafka() -> MemoryKafka:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders", 2)
    kafka.create_topic("pos.transaction")
    return kafka


def test_every_record_lands_once_with_its_coordinates(kafka: MemoryKafka, tmp_path: Path) -> None:
    for i in range(10):
        kafka.produce("pos.public.orders", i % 2, *event("orders", {"id": i, "name": f"n{i}"}))
    progress = make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert progress.events == 10
    assert offsets(tmp_path, "orders") == [("pos.public.orders", p, o) for p in (0, 1) for o in range(5)]


def test_a_second_run_lands_only_what_is_new(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert make_sink(kafka, tmp_path).run(until_caught_up=True).events == 0
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 2}))
    assert make_sink(kafka, tmp_path).run(until_caught_up=True).events == 1
    assert offsets(tmp_path, "orders") == [("pos.public.orders", 0, 0), ("pos.public.orders", 0, 1)]


def test_images_stay_as_the_json_that_arrived(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 9007199254740993, "price": "12.50", "note": None}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    row = log_rows(tmp_path, "orders")[0]
    assert row["__after"] == '{"id":9007199254740993,"price":"12.50","note":null}'
    assert row["__key"] == '{"id":9007199254740993}'


def test_inline_schemas_are_cut_off_and_recorded_once(kafka: MemoryKafka, tmp_path: Path) -> None:
    for i in range(3):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": i}, inline=True))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    rows = log_rows(tmp_path, "orders")
    assert [r["__key"] for r in rows] == ['{"id":0}', '{"id":1}', '{"id":2}']
    recorded = log_rows(tmp_path, None, path="schemas")
    assert [r["schema_id"] for r in recorded] == [rows[0]["__schema_id"]]


@pytest.mark.parametrize(
    ("value", "error_class"),
    [
        (b"", "invalid_json"),
        (b"\xff\xfe{}", "invalid_utf8"),
        (b'{"op":"c"', "invalid_json"),
        (b"[1,2]", "not_an_envelope"),
        (b'{"id":1}', "not_an_envelope"),
        (b'{"op":"z","source":{"schema":"public","table":"orders"}}', "unknown_operation"),
        (b'{"op":"c","after":7,"source":{"schema":"public","table":"orders"}}', "not_an_envelope"),
        (b'{"schema":{"type":', "invalid_json"),
        (b'{"a":' + b"[" * 100_000, "invalid_json"),
    ],
)
def test_a_poison_record_becomes_a_dead_letter_and_the_stream_goes_on(
    kafka: MemoryKafka, tmp_path: Path, value: bytes, error_class: str
) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    kafka.produce("pos.public.orders", 0, b'{"id":2}', value)
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 3}))
    progress = make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert (progress.events, progress.dead) == (2, 1)
    (letter,) = dead_rows(tmp_path)
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("pos.public.orders", 0, 1)
    assert (letter["key"], letter["value"], letter["error_class"]) == (b'{"id":2}', value, error_class)
    assert make_sink(kafka, tmp_path).run(until_caught_up=True).dead == 0


def test_tombstones_are_neither_dead_letters_nor_events(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    kafka.produce("pos.public.orders", 0, b'{"id":1}', None)
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert [r["__op"] for r in log_rows(tmp_path, "orders")] == ["c", "x"]
    assert dead_rows(tmp_path) == []


def test_two_tables_in_one_topic_each_get_their_rows(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.create_topic("pos.public.a_b")
    kafka.produce("pos.public.a_b", 0, *event("a b", {"id": 1}))
    kafka.produce("pos.public.a_b", 0, *event("a_b", {"id": 2}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    kafka.produce("pos.public.a_b", 0, *event("a.b", {"id": 3}))
    kafka.produce("pos.public.a_b", 0, *event("a b", {"id": 4}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    found = {name: [o for _, _, o in offsets(tmp_path, name)] for name in ("a b", "a_b", "a.b")}
    assert found == {"a b": [0, 3], "a_b": [1], "a.b": [2]}


def test_transactions_are_landed_with_their_counts(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}, tx=("77", 1)))
    kafka.produce("pos.transaction", 0, *end("77", {"public.orders": 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    (row,) = log_rows(tmp_path, None, path="transactions")
    assert (row["status"], row["tx_id"], row["event_count"]) == ("END", "77", 1)
    assert log_rows(tmp_path, "orders")[0]["__tx_order"] == 1


def test_expired_offsets_name_the_lost_range_and_stop_only_their_topic(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.create_topic("pos.public.items")
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    for i in range(2, 6):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": i}))
    kafka.produce("pos.public.items", 0, *event("items", {"id": 1}))
    kafka.delete_before("pos.public.orders", 0, 3)
    progress = make_sink(kafka, tmp_path).run(until_caught_up=True)
    (error,) = progress.stopped.values()
    assert isinstance(error, OffsetsExpired)
    assert "Records 1 to 2 of pos.public.orders[0]" in error.message
    assert "cdc-lake connector snapshot NAME public.orders " in error.next
    assert "cdc-lake sink run --accept-gap pos.public.orders " in error.next
    assert progress.tables == {TableId("public", "items")}
    resumed = make_sink(kafka, tmp_path, accept_gaps="pos.public.orders").run(until_caught_up=True)
    assert (resumed.stopped, resumed.events) == ({}, 2)


def test_a_recreated_topic_is_detected_even_when_its_offsets_fit(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    kafka.recreate_topic("pos.public.orders")
    for i in range(5):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": i}))
    progress = make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert any(isinstance(e, TopicRecreated) for e in progress.stopped.values())
    assert len(offsets(tmp_path, "orders")) == 1


def test_a_second_writer_of_a_partition_is_fenced_and_writes_nothing(kafka: MemoryKafka, tmp_path: Path) -> None:
    late = make_rival(kafka, tmp_path)
    for i in range(2):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": i}))
        late._step()
        make_sink(kafka, tmp_path).run(until_caught_up=True)
        late._drain()
        late._step()
        assert offsets(tmp_path, "orders") == [("pos.public.orders", 0, o) for o in range(i + 1)]
        assert bool(late.progress.stopped) == (i == 1), "the first time it may have been the last owner"
    assert any(isinstance(e, PartitionFenced) for e in late.progress.stopped.values())


def test_a_partition_whose_last_owner_committed_late_is_read_on(kafka: MemoryKafka, tmp_path: Path) -> None:
    owner = make_rival(kafka, tmp_path)
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 0}))
    owner._step()
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    owner._drain()
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    for _ in range(3):
        owner._step()
    owner._drain()
    assert owner.progress.stopped == {}
    assert offsets(tmp_path, "orders") == [("pos.public.orders", 0, 0), ("pos.public.orders", 0, 1)]


def make_rival(kafka: MemoryKafka, folder: Path) -> Sink:
    """Another group is another sink that knows nothing of the first: both believe that they own the partitions."""
    rival = make_sink(kafka, folder, group="other", flush_seconds=3600)
    rival._broker.subscribe(rival.pattern, rival)
    rival._step()
    return rival


def test_a_position_never_goes_back_when_what_is_landed_comes_again_in_smaller_rounds(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    for _ in range(3):
        kafka.produce("pos.public.orders", 0, b'{"id":0}', b"{broken")

    with killed_at(lambda point: point == "land:after-dead-letters"):
        make_sink(kafka, tmp_path).run(until_caught_up=True)
    # The dead letters are ahead of the table: the next sink reads their records again, two at a time.
    assert make_sink(kafka, tmp_path, max_records=2).run(until_caught_up=True).stopped == {}
    assert [r["offset"] for r in dead_rows(tmp_path)] == [1, 2, 3]
    assert [o for _, _, o in offsets(tmp_path, "orders")] == [0]


def test_a_table_that_is_ahead_of_the_others_of_its_topic_waits_for_them(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.create_topic("pos.public.a_b")
    for i in range(8):
        kafka.produce("pos.public.a_b", 0, *event(["a b", "a_b"][i % 2], {"id": i}))
    commits = iter(range(100))
    # Both tables are declared, one has landed.
    with killed_at(lambda point: point == "land:before-commit" and next(commits) == 3):
        make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert make_sink(kafka, tmp_path, max_records=2).run(until_caught_up=True).stopped == {}
    found = {name: [o for _, _, o in offsets(tmp_path, name)] for name in ("a b", "a_b")}
    assert found == {"a b": [0, 2, 4, 6], "a_b": [1, 3, 5, 7]}


def test_a_tombstone_alone_in_its_round_lands_in_the_table_of_its_topic(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.produce("pos.public.orders", 0, *event("orders", None, op="d", before={"id": 1}))
    kafka.produce("pos.public.orders", 0, b'{"id":1}', None)
    make_sink(kafka, tmp_path, max_records=1).run(until_caught_up=True)
    assert [(r["__offset"], r["__op"]) for r in log_rows(tmp_path, "orders")] == [(0, "d"), (1, "x")]


def test_a_late_writer_of_dead_letters_stops_only_their_topic(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.create_topic("pos.public.items")
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    late = make_rival(kafka, tmp_path)
    for i in range(2):
        kafka.produce("pos.public.orders", 0, b'{"id":0}', b"{broken")
        late._step()
        make_sink(kafka, tmp_path).run(until_caught_up=True)
        kafka.produce("pos.public.items", 0, *event("items", {"id": i}))
        late._step()
        late._drain()
        late._step()
    assert {tp.topic for tp in late.progress.stopped} == {"pos.public.orders"}
    assert len(dead_rows(tmp_path)) == 2
    assert len(offsets(tmp_path, "items")) == 2


def test_a_broker_that_goes_away_while_the_lag_is_measured_does_not_end_the_sink(
    kafka: MemoryKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make_sink(kafka, tmp_path)
    sink._broker.subscribe(sink.pattern, sink)
    sink._next_lag = 0
    sink._step()
    assert sink.progress.lag == 0

    def away(pattern: str) -> list[PartitionInfo]:
        raise UnavailableError("Kafka does not answer.")

    monkeypatch.setattr(sink._broker, "partitions", away)
    sink._next_lag = 0
    sink._step()
    assert sink.progress.lag is None


def test_a_rebalance_drops_the_buffer_and_the_next_owner_reads_it_again(kafka: MemoryKafka, tmp_path: Path) -> None:
    for i in range(4):
        kafka.produce("pos.public.orders", i % 2, *event("orders", {"id": i}))
    first = make_sink(kafka, tmp_path, flush_seconds=3600)
    first._broker.subscribe(first.pattern, first)
    first._step()
    second = make_sink(kafka, tmp_path)
    kafka.rebalance()
    first._broker.close()
    second.run(until_caught_up=True)
    assert len(offsets(tmp_path, "orders")) == 4


def test_tables_glob_lands_only_what_matches(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.create_topic("pos.public.items")
    kafka.produce("pos.public.orders", 0, *event("orders", {"id": 1}))
    kafka.produce("pos.public.items", 0, *event("items", {"id": 1}))
    progress = make_sink(kafka, tmp_path, tables="public.it*").run(until_caught_up=True)
    assert progress.tables == {TableId("public", "items")}
    assert make_sink(kafka, tmp_path).run(until_caught_up=True).tables == {TableId("public", "orders")}


def test_hostile_table_names_stay_inside_the_lake(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.create_topic("pos.public.evil")
    names = ["../../x", "_delta_log", "con", "a/b", "ünï", "q\"uo'te", "%41"]
    for i, name in enumerate(names):
        kafka.produce("pos.public.evil", 0, *event(name, {"id": i}))
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    lake = tmp_path / "lake" / SOURCE / "log" / "public"
    assert {p.parent.parent for p in (tmp_path / "lake").rglob("_delta_log") if "log/" in str(p)} == {lake}
    assert all(len(offsets(tmp_path, name)) == 1 for name in names)


def test_a_full_buffer_pauses_the_consumer_until_a_flush_makes_room(kafka: MemoryKafka, tmp_path: Path) -> None:
    big = "x" * 300_000
    for i in range(60):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": i, "note": big}))
    stuck = Stuck()
    sink = make_sink(kafka, tmp_path, memory_mb=32, worker=stuck, max_records=2)
    sink._broker.subscribe(sink.pattern, sink)
    for _ in range(40):
        sink._step()
    held = sink._buffer.nbytes
    assert sink._paused
    # A poll may bring a batch more than fits; the memory limit has room for it.
    assert held < 32_000_000 / 2
    stuck.let_go()
    sink.stop()
    while sink._buffer.batches or sink._flush is not None:
        sink._step()
        stuck.let_go()
    assert not sink._paused


class Stuck(Executor):
    """A store that does not answer until it is let go."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def let_go(self) -> None:
        for future, work in self._waiting:
            future.set_result(work())
        self._waiting.clear()
