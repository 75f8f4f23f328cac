"""A fold is atomic, resumable and alone: killed anywhere or overtaken, nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from cdc_lake import crashpoints
from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path, open_delta
from cdc_lake.project import fold as fold_module
from cdc_lake.project.checkpoint import read_checkpoint
from cdc_lake.project.fold import Folded, fold_source, fold_table
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import prepare, read_source
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, Feed, config

ORDERS = TableId("public", "orders")
POINTS = ("fold:before-write", "fold:writing", "fold:after-commit")


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """A table with a few rows, of which the first are folded."""
    feed = Feed(tmp_path, (ORDERS,))
    for key in range(5):
        change(feed, key)
    fold(feed)
    for key in (3, 4, 5, 6):
        change(feed, key)
    return feed


def fold_until_killed(feed: Feed, point: str, *, setup: str = "") -> None:
    """Fold in a process of its own, after the statements `setup`; it kills itself at `point`."""
    script = (
        f"import sys; {setup}from cdc_lake.project.fold import fold_source; from cdc_lake.project.lake import Lake;"
        "list(fold_source(Lake(sys.argv[1]), sys.argv[2], lambda table: True))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, lake(feed).root, SOURCE],
        env={**os.environ, "CDC_LAKE_CRASH_AT": point},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


def change(feed: Feed, key: int) -> None:
    tx = feed.begin()
    if key in feed.rows[ORDERS]:
        tx.update(ORDERS, key, 100 + key)
    else:
        tx.insert(ORDERS, key, key, "long text")
    tx.commit()
    feed.land()


def lake(feed: Feed) -> Lake:
    return Lake(str(feed.folder / "lake"))


def fold(feed: Feed) -> list[Folded]:
    return list(fold_source(lake(feed), SOURCE, lambda _table: True))


def current(feed: Feed) -> list[tuple[object, ...]]:
    session = open_session(config(feed.folder))
    try:
        return session.connection.sql("SELECT * FROM orders ORDER BY ALL").fetchall()
    finally:
        session.close()


def base_rows(feed: Feed) -> list[tuple[object, ...]]:
    table = open_delta(current_path(lake(feed).root, SOURCE, ORDERS))
    assert table is not None
    return sorted((r["id"], r["qty"], r["note"]) for r in table.to_pyarrow_table().to_pylist())


def version(feed: Feed) -> int:
    table = open_delta(current_path(lake(feed).root, SOURCE, ORDERS))
    return int(table.version()) if table is not None else -1


def test_a_fold_holds_the_rows_of_the_cut(feed: Feed) -> None:
    done = fold(feed)

    assert [(d.table, d.outcome, d.rows) for d in done] == [(ORDERS, "folded", 7)]
    assert base_rows(feed) == feed.expected(ORDERS)


def test_a_second_fold_finds_nothing_new_and_writes_nothing(feed: Feed) -> None:
    fold(feed)
    before = version(feed)

    assert [d.outcome for d in fold(feed)] == ["current"]
    assert version(feed) == before


@pytest.mark.parametrize("point", POINTS)
def test_a_fold_killed_at_any_point_loses_and_doubles_nothing(feed: Feed, point: str) -> None:
    fold_until_killed(feed, point)
    assert current(feed) == feed.expected(ORDERS)

    fold(feed)

    assert base_rows(feed) == feed.expected(ORDERS) == current(feed)


def test_a_fold_that_was_overtaken_before_it_began_writes_nothing(feed: Feed) -> None:
    con = duckdb.connect()
    prepare(con)
    stale = read_source(con, lake(feed), SOURCE, lambda _table: True)
    fold(feed)

    assert fold_table(con, stale, stale.tables[0]).outcome == "overtaken"
    assert base_rows(feed) == feed.expected(ORDERS)


def test_of_two_folds_at_once_one_wins(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other commit comes between the look at the checkpoint and the own commit."""

    def commit_of_another(point: str) -> None:
        if point == "fold:before-write":
            monkeypatch.setattr(fold_module, "reach", crashpoints.reach)
            change(feed, 9)
            assert [d.outcome for d in fold(feed)] == ["folded"]

    monkeypatch.setattr(fold_module, "reach", commit_of_another)
    before = version(feed)

    assert [d.outcome for d in fold(feed)] == ["overtaken"]
    assert version(feed) == before + 1
    assert base_rows(feed) == feed.expected(ORDERS) == current(feed)


def test_of_two_first_folds_at_once_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(tmp_path, (ORDERS,))
    change(feed, 1)
    test_of_two_folds_at_once_one_wins(feed, monkeypatch)


def test_a_checkpoint_is_read_back_from_the_commit_it_was_written_with(feed: Feed) -> None:
    table = open_delta(current_path(lake(feed).root, SOURCE, ORDERS))
    found = read_checkpoint(table, [(f"{SOURCE}.{ORDERS}", p) for p in range(3)])

    # Five inserts, each with an END at every second offset; the third partition has no rows.
    assert (found.cut, found.log_version) == (9, 4)
    assert sorted(found.lows) == [(f"{SOURCE}.{ORDERS}", 0), (f"{SOURCE}.{ORDERS}", 1)]
    assert sum(found.lows.values()) == 5


def test_a_table_that_cannot_be_folded_does_not_stop_the_others(tmp_path: Path) -> None:
    broken = TableId("public", "broken")
    feed = Feed(tmp_path, (broken, ORDERS))
    tx = feed.begin()
    tx.insert(broken, 1, 1, None)
    tx.insert(ORDERS, 1, 1, None)
    tx.commit()
    feed.land()
    for file in Path(current_path(lake(feed).root, SOURCE, broken).replace("/current/", "/log/")).glob("*.parquet"):
        file.write_bytes(b"not parquet")

    done = {d.table: d for d in fold(feed)}

    assert done[ORDERS].outcome == "folded"
    error = done[broken].error
    assert error is not None
    assert error.code == "file_unreadable"
    assert ".parquet" in error.why
