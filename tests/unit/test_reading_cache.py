"""A process that reads a lake again and again opens what is new, and is never wrong about what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from cdc_lake.events import TableId
from cdc_lake.land.layout import local_path, log_path, open_as, transactions_path
from cdc_lake.project.cache import Cache
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import SourceState, prepare, read_source
from tests.lake_model import SOURCE, Feed

A = TableId("public", "a")


def reading(folder: Path, cache: Cache | None) -> SourceState:
    con = duckdb.connect()
    prepare(con)
    state = read_source(con, Lake(str(folder / "lake"), cache=cache), SOURCE, lambda _table: True)
    con.close()
    return state


def same(one: SourceState, other: SourceState) -> bool:
    """Whether two readings saw the same."""

    def tables(state: SourceState) -> list[object]:
        return [(t.table, t.log, t.base, t.checkpoint, t.tail, t.shapes, t.error) for t in state.tables]

    return (one.cut, tables(one)) == (other.cut, tables(other))


def trade(feed: Feed, *keys: int) -> None:
    for key in keys:
        tx = feed.begin()
        tx.insert(A, key, key, "x")
        tx.commit()
    feed.land()


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    made = Feed(tmp_path, (A,), (), partitions=1, metadata=True)
    trade(made, 1, 2)
    return made


def files_of(path: str) -> list[Path]:
    return sorted(Path(local_path(path)).glob("*.parquet"), key=lambda f: f.stat().st_mtime_ns)


def test_a_second_reading_opens_no_file_that_the_first_one_looked_into(tmp_path: Path, feed: Feed) -> None:
    cache, lake = Cache(), str(tmp_path / "lake")
    reading(tmp_path, cache)
    trade(feed, 3)
    fresh = reading(tmp_path, None)
    looked_into = [*files_of(log_path(lake, SOURCE, A))[:-1], *files_of(transactions_path(lake, SOURCE))[:-1]]
    assert len(looked_into) >= 2
    for file in looked_into:
        file.write_bytes(b"not Parquet any more")
    again = reading(tmp_path, cache)
    assert again.cut == fresh.cut
    assert [t.tail.facts for t in again.tables] == [t.tail.facts for t in fresh.tables]
    with pytest.raises(duckdb.Error):
        reading(tmp_path, None)


def test_a_table_that_did_not_change_is_not_opened_again(
    tmp_path: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, opened = Cache(), list[str]()

    def counted(kind: type[DeltaTable], path: str, options: None) -> DeltaTable | None:
        opened.append(path)
        return open_as(kind, path, options)

    monkeypatch.setattr("cdc_lake.project.cache.open_as", counted)
    reading(tmp_path, cache)
    assert opened
    opened.clear()
    reading(tmp_path, cache)
    trade(feed, 3)
    assert same(reading(tmp_path, cache), reading(tmp_path, None))
    assert opened == []


def test_a_lake_that_was_deleted_and_made_anew_is_read_anew(tmp_path: Path, feed: Feed) -> None:
    cache = Cache()
    assert reading(tmp_path, cache).cut.position > 0
    shutil.rmtree(tmp_path / "lake")
    other = Feed(tmp_path, (A,), (), partitions=1, metadata=True)
    trade(other, *range(10, 14))
    trade(other, 20)
    trade(other, 21)
    assert same(reading(tmp_path, cache), reading(tmp_path, None))


def test_a_commit_that_is_taken_back_is_not_seen_any_more(tmp_path: Path, feed: Feed) -> None:
    cache, lake = Cache(), str(tmp_path / "lake")
    trade(feed, 3)
    before = reading(tmp_path, cache)
    for path in (log_path(lake, SOURCE, A), transactions_path(lake, SOURCE)):
        version = DeltaTable(path).version()
        (Path(local_path(path)) / "_delta_log" / f"{version:020}.json").unlink()
    after = reading(tmp_path, cache)
    assert after.cut.position < before.cut.position
    assert same(after, reading(tmp_path, None))


def test_what_a_fold_took_is_no_longer_in_the_tail(tmp_path: Path, feed: Feed) -> None:
    cache = Cache()
    for keys in ((3,), (4, 5), (6,)):
        reading(tmp_path, cache)
        trade(feed, *keys)
        assert same(reading(tmp_path, cache), reading(tmp_path, None))
        assert [f.outcome for f in fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _table: True)] == ["folded"]
        assert same(reading(tmp_path, cache), reading(tmp_path, None))


def test_files_that_were_merged_are_forgotten(tmp_path: Path, feed: Feed) -> None:
    cache, lake = Cache(), str(tmp_path / "lake")
    for key in range(3, 9):
        trade(feed, key)
    reading(tmp_path, cache)
    for path in (log_path(lake, SOURCE, A), transactions_path(lake, SOURCE)):
        DeltaTable(path).optimize.compact()
    merged = reading(tmp_path, cache)
    assert same(merged, reading(tmp_path, None))
    kept = cache.of(SOURCE, merged.transactions)
    assert set(kept.facts) <= {f.path for t in merged.tables for f in t.log.own}
    assert len(kept.ends) == 1
    assert kept.closed == {str(A): set(merged.tables[0].tail.files)}


def commit(path: str, name: str, version: int) -> None:
    """A commit of an app transaction and nothing else of interest."""
    table = DeltaTable(path)
    told = CommitProperties(app_transactions=[Transaction(name, version)])
    write_deltalake(table, table.to_pyarrow_table().slice(0, 0), mode="append", commit_properties=told)


def test_a_handle_that_moved_on_knows_the_app_transactions_of_every_commit(tmp_path: Path, feed: Feed) -> None:
    cache, path = Cache(), log_path(str(tmp_path / "lake"), SOURCE, A)
    names = ("one", "other", "never")

    def told() -> list[int | None]:
        held = cache.open(path, None)
        assert held is not None
        return [held.transaction_version(n) for n in names]

    assert told() == [None, None, None]
    commit(path, "one", 1)
    commit(path, "other", 7)
    assert told() == [1, 7, None]
    for version in range(2, 5):
        commit(path, "one", version)
    # What was committed meanwhile lies behind a checkpoint, and its own files are gone.
    DeltaTable(path).create_checkpoint()
    for file in sorted((Path(local_path(path)) / "_delta_log").glob("*.json"))[:-1]:
        file.unlink()
    assert told() == [4, 7, None]
    commit(path, "never", 1)
    assert told() == [4, 7, 1]
