"""A fold rewrites what its changes touch, or lays a patch over the table; both show the same as a whole fold."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import duckdb
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path, patch_path
from cdc_lake.project import rules
from cdc_lake.project.base import LAYOUT
from cdc_lake.project.checkpoint import read_checkpoint
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import prepare, read_source
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, Feed, config
from tests.unit.test_project_fold import fold_until_killed
from tests.unit.test_project_model import play

ORDERS, BAG = TableId("public", "orders"), TableId("public", "bag")
KEYS = 40


def always_patch(setattr_: pytest.MonkeyPatch) -> None:
    setattr_.setattr(rules, "_FEW_ROWS", 0)
    setattr_.setattr(rules, "_TIMES", 0)
    setattr_.setattr(rules, "_PATCH_SHARE", 0)


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """A table of forty rows, folded into files of ten."""
    monkeypatch.setattr(rules, "_FILE_ROWS", 10)
    monkeypatch.setattr(rules, "_WHOLE_SHARE", 0)
    feed = Feed(tmp_path, (ORDERS,), (BAG,))
    tx = feed.begin()
    for key in range(KEYS):
        tx.insert(ORDERS, key, key, "long text")
        tx.bag_insert(BAG, {"id": key, "qty": 1, "note": None})
    tx.commit()
    feed.land()
    # As the first fold of an empty table, which writes all.
    fold(feed)
    return feed


def lake(feed: Feed) -> Lake:
    return Lake(str(feed.folder / "lake"))


def fold(feed: Feed) -> int:
    """Rows written."""
    done = list(fold_source(lake(feed), SOURCE, lambda _table: True))
    assert {d.error for d in done} == {None}
    return sum(d.rows for d in done)


def files(feed: Feed, table: TableId = ORDERS) -> set[str]:
    return set(DeltaTable(current_path(lake(feed).root, SOURCE, table)).file_uris())


def current(feed: Feed, table: TableId = ORDERS) -> list[tuple[object, ...]]:
    session = open_session(config(feed.folder))
    try:
        return sorted(session.connection.sql(f"SELECT * FROM {table.name}").fetchall(), key=repr)
    finally:
        session.close()


def update(feed: Feed, *keys: int, delete: tuple[int, ...] = ()) -> None:
    tx = feed.begin()
    for key in keys:
        if key in feed.rows[ORDERS]:
            tx.update(ORDERS, key, 100 + key)
        else:
            tx.insert(ORDERS, key, key, "new")
    for key in delete:
        tx.delete(ORDERS, key)
    tx.commit()
    feed.land()


def patched(feed: Feed) -> DeltaTable:
    return DeltaTable(patch_path(lake(feed).root, SOURCE, ORDERS))


@pytest.mark.parametrize("seed", range(300, 312))
def test_current_equals_the_model_whatever_folds_rewrite(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(seed)
    monkeypatch.setattr(rules, "_FEW_ROWS", chance.choice([0, 0, 5]))
    monkeypatch.setattr(rules, "_TIMES", chance.choice([0, 1]))
    monkeypatch.setattr(rules, "_PATCH_SHARE", chance.choice([0, 0, 1, 2]))
    monkeypatch.setattr(rules, "_FILE_ROWS", chance.choice([1, 2, 4]))
    monkeypatch.setattr(rules, "_WHOLE_SHARE", 0)
    monkeypatch.setattr(rules, "_SMALL_FILES", chance.choice([1, 3]))
    metadata = chance.random() < 0.8
    play(tmp_path, seed, torn=metadata and chance.random() < 0.7, metadata=metadata)


def test_changes_of_recent_keys_rewrite_only_the_last_files(feed: Feed) -> None:
    before = files(feed)
    update(feed, 38, 40, 41, delete=(39,))

    assert fold(feed) == 11
    assert len(files(feed) & before) == 3
    assert current(feed) == feed.expected(ORDERS)


def test_rows_that_are_only_inserted_rewrite_nothing(feed: Feed) -> None:
    before = files(feed)
    update(feed, 40, 41)

    assert fold(feed) == 2
    assert files(feed) > before


def test_small_files_do_not_pile_up(feed: Feed) -> None:
    for key in range(KEYS, KEYS + 30):
        update(feed, key)
        fold(feed)

    assert len(files(feed)) <= 4 + 3 + 9
    assert current(feed) == feed.expected(ORDERS)


def test_a_table_without_a_key_rewrites_only_the_files_of_rows_that_go(feed: Feed) -> None:
    before = files(feed, BAG)
    tx = feed.begin()
    tx.bag_delete(BAG, 3)
    tx.bag_insert(BAG, {"id": 99, "qty": 1, "note": None})
    tx.commit()
    feed.land()
    fold(feed)

    assert len(files(feed, BAG) & before) == 3
    assert current(feed, BAG) == feed.expected(BAG)


def test_changes_all_over_the_table_leave_its_files_alone(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(feed)
    always_patch(monkeypatch)
    update(feed, 1, 11, 21, 31, 45, delete=(5,))

    assert fold(feed) == 6
    assert files(feed) == before
    assert current(feed) == feed.expected(ORDERS)
    assert fold(feed) == 0, "what is in the patch is folded"


def test_a_patch_takes_up_what_comes_later_and_is_merged_in_the_end(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as rule:
        always_patch(rule)
        update(feed, 1, 11, 45, delete=(5,))
        fold(feed)
        update(feed, 1, 5, 12, delete=(45,))
        assert fold(feed) == 5
        assert current(feed) == feed.expected(ORDERS)
    update(feed, 2)
    fold(feed)

    assert current(feed) == feed.expected(ORDERS)
    rows = DeltaTable(current_path(lake(feed).root, SOURCE, ORDERS)).to_pyarrow_table().to_pylist()
    assert sorted(((r["id"], r["qty"], r["note"]) for r in rows), key=repr) == feed.expected(ORDERS)


def test_a_patch_over_an_older_writing_of_the_table_does_not_count(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as rule:
        always_patch(rule)
        update(feed, 1, 11)
        fold(feed)
    update(feed, 1, 12)
    fold(feed)
    assert patched(feed).version() == 0, "the patch is still there"
    assert current(feed) == feed.expected(ORDERS)


def test_a_patch_over_a_newer_writing_of_the_table_does_not_count(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader may open the table just before it is written anew, and its patch just after that."""
    path, opened = current_path(lake(feed).root, SOURCE, ORDERS), feed.folder / "opened"
    shutil.copytree(path, opened)
    update(feed, 1, 11)
    fold(feed)
    always_patch(monkeypatch)
    update(feed, 2)
    fold(feed)
    assert patched(feed).version() == 0
    shutil.rmtree(path)
    shutil.copytree(opened, path)

    assert current(feed) == feed.expected(ORDERS)


@pytest.mark.parametrize("point", ["fold:before-write", "fold:writing", "fold:after-commit"])
@pytest.mark.parametrize("patch", [True, False])
def test_a_fold_of_a_part_killed_at_any_point_loses_and_doubles_nothing(
    feed: Feed, point: str, patch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = (
        "from cdc_lake.project import rules; rules._WHOLE_SHARE = 0; rules._FILE_ROWS = 10;"
        f"rules._FEW_ROWS, rules._TIMES, rules._PATCH_SHARE = {(0, 0, 0) if patch else (99, 9, 0)};"
    )
    update(feed, 1, 11, 45, delete=(5,))
    fold_until_killed(feed, point, setup=setup)
    assert current(feed) == feed.expected(ORDERS)
    update(feed, 2, 11)
    if patch:
        always_patch(monkeypatch)
    fold(feed)

    assert current(feed) == feed.expected(ORDERS)


def test_a_damaged_patch_is_named_and_mended_by_a_rebuild(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    always_patch(monkeypatch)
    update(feed, 1, 11)
    fold(feed)
    for file in Path(patch_path(lake(feed).root, SOURCE, ORDERS)).glob("*.parquet"):
        file.unlink()
    with pytest.raises((CdcLakeError, duckdb.Error)):
        current(feed)

    rebuild_table(lake(feed), SOURCE, lambda _table: True, ORDERS)

    assert current(feed) == feed.expected(ORDERS)


def test_a_fold_by_an_earlier_version_is_read_and_folded_on(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one file in no order, and nothing says when it was written."""
    path = current_path(lake(feed).root, SOURCE, ORDERS)
    table = DeltaTable(path)
    known = read_checkpoint(table, [(f"{SOURCE}.{ORDERS}", p) for p in range(2)])
    layout = table.transaction_version(LAYOUT)
    rows: pa.Table = table.to_pyarrow_table().sort_by([("qty", "descending")])
    shutil.rmtree(path)
    held = [*known.transactions(), Transaction(LAYOUT, layout or 0)]
    write_deltalake(path, rows, commit_properties=CommitProperties(app_transactions=held))

    update(feed, 1, 11, 45, delete=(5,))
    assert current(feed) == feed.expected(ORDERS)
    with monkeypatch.context() as rule:
        always_patch(rule)
        fold(feed)
        assert current(feed) == feed.expected(ORDERS)
    update(feed, 3)
    fold(feed)
    assert current(feed) == feed.expected(ORDERS)
    assert len(files(feed)) == 4


def test_a_fold_that_an_earlier_version_makes_below_a_patch_voids_it(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That version knows of no patch: it folds what the table's own checkpoint leaves, and tells nobody."""
    path = current_path(lake(feed).root, SOURCE, ORDERS)
    with monkeypatch.context() as rule:
        always_patch(rule)
        update(feed, 1, 11)
        fold(feed)
    update(feed, 1, 12)
    shutil.copytree(path, feed.folder / "before")
    fold(feed)
    table = DeltaTable(path)
    known = read_checkpoint(table, [(f"{SOURCE}.{ORDERS}", p) for p in range(2)])
    held = [*known.transactions(), Transaction(LAYOUT, table.transaction_version(LAYOUT) or 0)]
    rows = table.to_pyarrow_table()
    shutil.rmtree(path)
    shutil.copytree(feed.folder / "before", path)
    write_deltalake(path, rows, mode="overwrite", commit_properties=CommitProperties(app_transactions=held))

    assert current(feed) == feed.expected(ORDERS)
    # A moment before it must be read from the log.
    con = duckdb.connect()
    prepare(con)
    state = next(t for t in read_source(con, lake(feed), SOURCE, lambda _table: True).tables if t.table == ORDERS)
    assert state.checkpoint.cut == known.cut
