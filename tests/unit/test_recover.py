"""A newest commit that is cut off is set aside: the sink reads again what it held, once, and readers go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from cdc_lake.cli.watch_state import SinkProcess
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import LakeError, PartitionFenced
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout, tables
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.land.torn import find_torn, set_aside
from tests.commands import fold, run, said
from tests.lake_model import Feed
from tests.lakes import SOURCE, dead_rows, end, event, log_rows, make_sink, offsets

ORDERS = TableId("public", "orders")
TOPIC = "pos.public.orders"


def produce(kafka: MemoryKafka, number: int) -> None:
    kafka.produce(TOPIC, 0, *event("orders", {"id": number}, tx=(str(number), 1), inline=True))
    kafka.produce(TOPIC, 0, b"{}", b"{broken")
    kafka.produce("pos.transaction", 0, *end(str(number), {"public.orders": 1}))


@pytest.fixture
def kafka(tmp_path: Path) -> MemoryKafka:
    """A Kafka of which the lake has landed two rounds."""
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos}\nlake: {uri: ./lake}\n")
    kafka = MemoryKafka()
    kafka.create_topic(TOPIC)
    kafka.create_topic("pos.transaction")
    for number in (1, 2):
        produce(kafka, number)
        make_sink(kafka, tmp_path).run(until_caught_up=True)
    return kafka


def path_of(folder: Path, kind: str) -> str:
    root = str(folder / "lake")
    return layout.log_path(root, SOURCE, ORDERS) if kind == "log" else f"{root}/{SOURCE}/{kind}"


def cut_newest(path: str, share: float) -> Path:
    """Leave so much of the newest commit as a disk may."""
    newest = max((Path(path) / "_delta_log").glob("*.json"))
    kept = newest.read_bytes()
    newest.write_bytes(kept[: int(len(kept) * share)])
    return newest


@pytest.mark.parametrize(
    ("kind", "share"),
    [("log", 0.3), ("log", 0.99), ("transactions", 0.5), ("schemas", 0.5), ("dead_letters", 0.5), ("log", 0)],
)
def test_what_a_commit_held_that_was_cut_off_is_landed_again_once(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, share: float
) -> None:
    before = {k: log_rows(tmp_path, None, path=k) for k in ("transactions", "schemas")}
    cut = cut_newest(path_of(tmp_path, kind), share)
    if share:  # of an empty one delta-rs thinks nothing
        with pytest.raises(LakeError) as stopped:
            layout.open_delta(path_of(tmp_path, kind))
        assert stopped.value.next.startswith("cdc-lake recover ")

    told = said(tmp_path, "recover", capfd=capfd)
    assert f"pos: commit {int(cut.stem)} of {'log public.orders' if kind == 'log' else kind} is not whole: " in told
    assert "Next: cdc-lake sink run --until-caught-up" in told
    produce(kafka, 3)
    make_sink(kafka, tmp_path).run(until_caught_up=True)

    assert offsets(tmp_path, "orders") == [(TOPIC, 0, n) for n in (0, 2, 4)]
    assert [row["__offset"] for row in log_rows(tmp_path, None, path="transactions")] == [0, 1, 2]
    assert [row["offset"] for row in dead_rows(tmp_path)] == [1, 3, 5]
    found = {row["schema_id"] for row in log_rows(tmp_path, None, path="schemas")}
    assert found == {row["schema_id"] for row in before["schemas"]}
    assert run(tmp_path, "recover", capfd=capfd) == (0, {"dry_run": False, "recovered": []})


def test_rows_of_schemas_stay_for_other_tables_refer_to_them(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded = log_rows(tmp_path, None, path="schemas")
    assert recorded
    cut_newest(path_of(tmp_path, "schemas"), 0.5)
    assert run(tmp_path, "recover", capfd=capfd)[0] == 0
    assert log_rows(tmp_path, None, path="schemas") == recorded


def test_dead_letters_that_were_let_go_do_not_come_back(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = path_of(tmp_path, "dead_letters")
    DeltaTable(path).delete(f"id = '{TOPIC}/0/1'")
    produce(kafka, 3)
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    cut_newest(path, 0.5)
    assert run(tmp_path, "recover", capfd=capfd)[0] == 0
    assert [row["offset"] for row in dead_rows(tmp_path)] == [3, 5]


def test_killed_behind_setting_aside_the_next_run_keeps_the_rows(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = path_of(tmp_path, "dead_letters")
    cut_newest(path, 0.5)
    torn = find_torn(path)
    assert torn is not None
    set_aside(torn)
    assert [row["offset"] for row in dead_rows(tmp_path)] == [1]
    for _ in range(2):
        assert run(tmp_path, "recover", capfd=capfd)[0] == 0
        assert [row["offset"] for row in dead_rows(tmp_path)] == [1, 3]


def test_a_dry_run_names_the_commit_and_changes_nothing(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = cut_newest(path_of(tmp_path, "log"), 0.5)
    left = cut.read_bytes()
    (found,) = run(tmp_path, "recover", "--dry-run", capfd=capfd)[1]["recovered"]
    assert (found["kind"], found["table"], found["version"]) == ("log", "public.orders", int(cut.stem))
    assert cut.read_bytes() == left
    assert list(cut.parents[1].glob("torn-commit-*")) == []


def test_what_is_set_aside_is_kept_beside_the_log(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = cut_newest(path_of(tmp_path, "log"), 0.5)
    left = cut.read_bytes()
    (found,) = run(tmp_path, "recover", capfd=capfd)[1]["recovered"]
    assert Path(found["kept"]).read_bytes() == left
    assert not cut.exists()


def test_a_commit_is_put_back_where_the_table_cannot_be_read_without_it_either(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = cut_newest(path_of(tmp_path, "log"), 0.5)
    left = cut.read_bytes()
    earlier = cut.with_name(f"{int(cut.stem) - 1:020}.json")
    earlier.write_bytes(earlier.read_bytes()[:100])
    status, answer = run(tmp_path, "recover", capfd=capfd)
    assert (status, answer["error"]["code"]) == (1, "lake_unreadable")
    assert cut.read_bytes() == left
    assert list(cut.parents[1].glob("torn-commit-*")) == []


def test_a_writer_that_has_the_table_open_stops_and_writes_nothing(tmp_path: Path) -> None:
    path, tp = str(tmp_path / "log"), TopicPartition(TOPIC, 0)
    writer = AppendTable(path, tables.LOG)
    writer.take_over([tp])
    for start in (0, 10):
        writer.append(tables.LOG.empty_table(), [Span(tp, start, start + 10)])
    cut_newest(path, 0.5)
    torn = find_torn(path)
    assert torn is not None
    set_aside(torn)
    with pytest.raises(PartitionFenced):
        writer.append(tables.LOG.empty_table(), [Span(tp, 20, 30)])
    assert AppendTable(path, tables.LOG).take_over([tp]) == {tp: 10}


def test_it_is_refused_while_a_sink_of_the_project_runs(
    kafka: MemoryKafka, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_lake.cli.watch_state.sinks_of", lambda _: iter([SinkProcess(17, 0, 0.0)]))
    cut = cut_newest(path_of(tmp_path, "log"), 0.5)
    assert "stop it (kill 17), then: cdc-lake recover" in said(tmp_path, "recover", capfd=capfd)
    assert cut.exists()
    assert "of log public.orders is not whole" in said(tmp_path, "recover", "--dry-run", capfd=capfd)


@pytest.mark.parametrize("kind", ["current", "history"])
def test_a_read_model_is_deleted_and_the_next_fold_makes_it_anew(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos}\nlake: {uri: ./lake}\n")
    feed = Feed(tmp_path, (ORDERS,))
    tx = feed.begin()
    tx.insert(ORDERS, 1, 10, "ä")
    tx.commit()
    feed.land()
    fold(tmp_path)
    path = (layout.current_path if kind == "current" else layout.history_path)(str(tmp_path / "lake"), SOURCE, ORDERS)
    wanted = run(tmp_path, "query", "FROM orders", "--format", "json", capfd=capfd)[1]
    cut_newest(path, 0.5)
    told = said(tmp_path, "recover", capfd=capfd)
    assert f"of {kind} public.orders is not whole: " in told
    assert "The read model is deleted." in told
    assert "Next: cdc-lake fold" in told
    assert not Path(path).exists()
    fold(tmp_path)
    assert Path(path).exists()
    assert run(tmp_path, "query", "FROM orders", "--format", "json", capfd=capfd)[1] == wanted
