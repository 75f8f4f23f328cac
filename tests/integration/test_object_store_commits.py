"""What a sink asks of an object store, at its start and for each commit, and what a held snapshot must not hide."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from cdc_lake.cli.sink_runner import require_safe_store
from cdc_lake.config import load_config
from cdc_lake.errors import CdcLakeError, LakeError, PartitionFenced
from cdc_lake.events import TopicPartition
from cdc_lake.land import layout
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.land.store import DeltaStore
from tests.object_store import BUCKET, SECRET, Gate, object_store

TP = TopicPartition("pos.public.orders", 0)
SCHEMA = pa.schema([("__topic", pa.string()), ("__partition", pa.int32()), ("__offset", pa.int64())])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with object_store(tmp_path_factory.mktemp("objects")) as gate:
        yield gate


@pytest.fixture
def path() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def writer(path: str, store: Gate) -> AppendTable:
    """A sink's table that has just taken the partition over."""
    made = AppendTable(path, SCHEMA, store=DeltaStore(store.options()))
    made.take_over([TP])
    return made


def append(table: AppendTable, start: int) -> int:
    """Land one record."""
    row = pa.Table.from_pylist([{"__topic": TP.topic, "__partition": TP.partition, "__offset": start}], SCHEMA)
    return table.append(row, [Span(TP, start, start + 1)])


def offsets(path: str, store: Gate) -> list[int]:
    table = layout.open_delta(path, store.options())
    assert table is not None
    return sorted(table.to_pyarrow_table()["__offset"].to_pylist())


def test_a_commit_asks_for_what_is_new_and_not_for_the_log_from_its_checkpoint_on(path: str, store: Gate) -> None:
    table = writer(path, store)
    append(table, 0)
    store.take()
    for start in range(1, 41):
        append(table, start)
    seen = store.take()
    assert seen.total() / 40 < 15, seen
    assert seen["PUT data"] == 40
    assert seen["PUT log"] <= 40 + 2 * 4, "commits, and a checkpoint with its hint for each ten"
    assert offsets(path, store) == list(range(41))


def test_a_writer_that_holds_a_snapshot_sees_what_another_committed_and_writes_nothing(path: str, store: Gate) -> None:
    first = writer(path, store)
    for start in range(3):
        append(first, start)
    append(writer(path, store), 3)
    with pytest.raises(PartitionFenced):
        append(first, 3)
    assert offsets(path, store) == [0, 1, 2, 3]


def test_a_held_snapshot_of_a_table_that_was_deleted_is_not_written_on(path: str, store: Gate) -> None:
    first = writer(path, store)
    for start in range(3):
        append(first, start)
    layout.remove_all(path, store.options())
    with pytest.raises(CdcLakeError):
        append(first, 3)
    assert layout.open_delta(path, store.options()) is None


@pytest.mark.parametrize("commits", [3, 5])
def test_a_held_snapshot_of_a_table_that_was_made_anew_is_not_taken_for_it(
    path: str, store: Gate, commits: int
) -> None:
    first = writer(path, store)
    for start in range(3):
        append(first, start)
    layout.remove_all(path, store.options())
    other = AppendTable(path, SCHEMA, store=DeltaStore(store.options()))
    for number in range(commits):
        other.append(SCHEMA.empty_table(), [], once=f"of another table {number}")
    with pytest.raises(PartitionFenced):
        append(first, 3)
    assert offsets(path, store) == []


def test_a_held_snapshot_goes_on_over_commits_that_were_dropped_behind_a_checkpoint(path: str, store: Gate) -> None:
    first = writer(path, store)
    for start in range(3):
        append(first, start)
    other = AppendTable(path, SCHEMA, store=DeltaStore(store.options()))
    for number in range(25):
        other.append(SCHEMA.empty_table(), [], once=f"maintenance {number}")
    table = layout.open_delta(path, store.options())
    assert table is not None
    table.create_checkpoint()
    files = layout.open_store(path, store.options())
    for version in range(table.version()):
        files.delete_file(f"_delta_log/{version:020}.json")
    append(first, 3)
    assert offsets(path, store) == [0, 1, 2, 3]


class AwayAfter(DeltaStore):
    """A store whose server dies `number` requests later, and is back after the first wait for it."""

    def __init__(self, gate: Gate, number: int) -> None:
        super().__init__(gate.options())
        self._gate, self.waits = gate, 0
        gate.set(down_after=number)

    def pause(self, seconds: float) -> None:
        """Wait."""
        self._gate.set(down_after=-1)
        self.waits += 1


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 7])
def test_a_sink_waits_for_a_store_that_is_away_at_whatever_request(path: str, store: Gate, number: int) -> None:
    append(writer(path, store), 0)
    away = AwayAfter(store, number)
    table = AppendTable(path, SCHEMA, store=away)
    assert table.take_over([TP]) == {TP: 1}
    append(table, 1)
    store.set(down_after=-1)
    assert away.waits == 1
    assert offsets(path, store) == [0, 1]


@pytest.mark.parametrize("how", ["pause", "kill", "restart"])
def test_a_server_that_stands_still_or_dies_has_what_was_committed(path: str, store: Gate, how: str) -> None:
    table = writer(path, store)
    append(table, 0)
    store.hurt(how, 0.1)
    append(table, 1)
    assert offsets(path, store) == [0, 1]


def test_a_sink_refuses_a_store_that_forgets_and_its_words_hold_no_secret(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_SECRET", SECRET)
    with object_store(tmp_path / "forgetful", checks=False) as forgetful:
        options = json.dumps({**forgetful.options(), "aws_secret_access_key": "${LAKE_SECRET}"})
        written = tmp_path / "cdc-lake.yaml"
        written.write_text(f"lake: {{uri: '{path}', options: {options}}}\n")
        config = load_config(written)
        forgetful.set(forgets=True)
        with pytest.raises(LakeError) as refused:
            require_safe_store(config)
        assert refused.value.code == "store_overwrites"
        assert "single_writer" in refused.value.next
        assert SECRET not in f"{refused.value} {refused.value.why} {refused.value.next}"
        forgetful.set(forgets=False)
        require_safe_store(config)
