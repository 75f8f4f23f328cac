"""What `lake.tables` and `tables` tell of a table's files, and that it costs nobody who does not ask."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.maintain.look import look
from cdc_lake.maintain.plan import Rules
from cdc_lake.maintain.run import Job, maintain
from cdc_lake.maintain.shape import Asked, shapes_of
from cdc_lake.project.lake import Lake
from cdc_lake.query import lake_views
from cdc_lake.query.session import open_session
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed, config

ORDERS, BAG = TableId("public", "orders"), TableId("public", "bag")
_SHAPE = "files, bytes, small_file_ratio, oldest_readable_version, next_due, next_due_why"


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Ten files in the log of orders, one in that of the bag."""
    made = Feed(tmp_path, (ORDERS,), (BAG,))
    for number in range(1, 11):
        tx = made.begin()
        tx.insert(ORDERS, number, number, None)
        if number == 1:
            tx.bag_insert(BAG, {"id": number, "qty": 1, "note": None})
        tx.commit()
        made.land()
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: {tmp_path}/lake}}\n")
    return made


def lake(folder: Path) -> Lake:
    return Lake(str(folder / "lake"))


def log(folder: Path, table: TableId) -> str:
    return layout.log_path(str(folder / "lake"), SOURCE, table)


def keep_in_shape(folder: Path) -> None:
    rules = Rules(keep=timedelta(0), fold=False)
    assert not [r for r in maintain(Job(lake(folder), lambda _table: True, rules), lambda _line: None) if r.failed]


def told(folder: Path) -> dict[str, tuple[object, ...]]:
    session = open_session(config(folder))
    try:
        rows = session.connection.sql(f'SELECT "table", {_SHAPE} FROM lake.tables').fetchall()
    finally:
        session.close()
    return {name: tuple(rest) for name, *rest in rows}


def on_disk(folder: Path, *kinds: str) -> tuple[int, int]:
    files = [f for k in kinds for f in (folder / "lake" / SOURCE / k / "public" / "orders").rglob("part-*.parquet")]
    return len(files), sum(f.stat().st_size for f in files)


def test_a_table_tells_its_files_bytes_and_what_maintenance_does_next(feed: Feed) -> None:
    shape = told(feed.folder)
    assert shape["orders"][:5] == (*on_disk(feed.folder, "log"), 1.0, 0, "remember")
    assert shape["bag"][0] == 1
    fold(feed.folder)
    assert told(feed.folder)["orders"][:2] == on_disk(feed.folder, "log", "current", "history")
    keep_in_shape(feed.folder)
    assert told(feed.folder)["orders"][4:] == (None, None)


def test_the_small_files_are_those_below_half_of_the_size_that_files_grow_to(feed: Feed) -> None:
    path = log(feed.folder, ORDERS)
    seen = look(path, None, timedelta(0))
    assert seen is not None
    middle = sorted(seen.sizes)[5]
    (shape,) = shapes_of(lake(feed.folder), [Asked(SOURCE, ORDERS, 0)], Rules(target_bytes=2 * middle))
    assert shape is not None
    assert shape.small_file_ratio == sum(s < middle for s in seen.sizes) / 10


def test_a_table_whose_changes_are_not_folded_is_folded_next(feed: Feed) -> None:
    (shape,) = shapes_of(lake(feed.folder), [Asked(SOURCE, ORDERS, 2_000)])
    assert shape is not None
    assert (shape.due, shape.why) == ("fold", "2,000 changes are not folded, against 0 folded rows")


def test_the_oldest_readable_version_is_the_first_whose_files_and_commits_are_all_there(feed: Feed) -> None:
    path = log(feed.folder, ORDERS)
    keep_in_shape(feed.folder)
    keep_in_shape(feed.folder)
    oldest = told(feed.folder)["orders"][3]
    assert isinstance(oldest, int)
    newest = DeltaTable(path).version()
    assert 0 < oldest <= newest
    for version in range(oldest, newest + 1):
        assert DeltaTable(path, version=version).to_pyarrow_table().num_rows == 10
    with pytest.raises(OSError, match="parquet"):
        DeltaTable(path, version=9).to_pyarrow_table()


def test_commits_that_were_taken_away_are_not_readable_versions(feed: Feed) -> None:
    path = log(feed.folder, ORDERS)
    DeltaTable(path).create_checkpoint()
    assert told(feed.folder)["orders"][3] == 0
    for version in range(4):
        (Path(path) / "_delta_log" / f"{version:020}.json").unlink()
    assert told(feed.folder)["orders"][3] == 9


def test_no_data_file_is_opened_to_tell_it(feed: Feed) -> None:
    (before,) = shapes_of(lake(feed.folder), [Asked(SOURCE, ORDERS, 0)])
    for file in Path(log(feed.folder, ORDERS)).glob("*.parquet"):
        file.unlink()
    assert shapes_of(lake(feed.folder), [Asked(SOURCE, ORDERS, 0)]) == [before]
    assert before is not None


def test_who_does_not_ask_for_it_does_not_wait_for_it_and_who_asks_waits_once(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(lake: Lake, asked: list[Asked]) -> object:
        calls.append(len(asked))
        return shapes_of(lake, asked)

    monkeypatch.setattr(lake_views, "shapes_of", counted)
    session = open_session(config(feed.folder))
    assert session.connection.sql('SELECT "table", rows_landed, error FROM lake.tables').fetchall()
    assert session.connection.sql("SELECT count(*) FROM lake.tables").fetchall() == [(2,)]
    assert calls == []
    assert len(session.connection.sql("FROM lake.tables").fetchall()) == 2
    assert calls == [2]
    session.close()


def test_a_table_that_cannot_be_read_has_no_shape_and_the_others_have(feed: Feed) -> None:
    commits = Path(log(feed.folder, ORDERS)) / "_delta_log"
    (commits / f"{3:020}.json").write_text("no JSON")
    shape = told(feed.folder)
    assert shape["orders"] == (None,) * 6
    assert shape["bag"][0] == 1


def test_the_command_says_the_same_and_why(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    code, document = run(feed.folder, "tables", capfd=capfd)
    shape = told(feed.folder)
    assert code == 0
    for row in document["tables"]:
        due = {"action": row["next_due"]["action"], "why": row["next_due"]["why"]} if row["next_due"] else None
        files, size, small, oldest, action, why = shape[row["table"].removeprefix("public.")]
        assert (row["files"], row["bytes"], row["small_file_ratio"]) == (files, size, small)
        assert (row["oldest_readable_version"], due) == (oldest, {"action": action, "why": why} if action else None)


def test_what_an_erasure_deletes_at_once_is_no_readable_version(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    fold(feed.folder)
    assert run(feed.folder, "erase", "orders", "3", "--now", capfd=capfd)[0] == 0
    path = log(feed.folder, ORDERS)
    oldest = told(feed.folder)["orders"][3]
    assert isinstance(oldest, int)
    assert DeltaTable(path, version=oldest).to_pyarrow_table().num_rows == 10
    with pytest.raises(OSError, match="parquet"):
        DeltaTable(path, version=9).to_pyarrow_table()
