"""The cut is the last boundary up to which every transaction is complete; redelivery changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from cdc_lake.config import Table
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.project.order import Wait
from cdc_lake.project.snapshot import SourceState, prepare, read_source
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, Feed, append_ends, append_log, config, end_row, log_row

ORDERS, LINES = TableId("public", "orders"), TableId("public", "lines")


def state(folder: Path, captured: Callable[[TableId], bool] = lambda _table: True) -> SourceState:
    con = duckdb.connect()
    prepare(con)
    return read_source(con, Lake(str(folder / "lake")), SOURCE, captured)


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    session = open_session(config(folder))
    try:
        return session.connection.sql(query).fetchall()
    finally:
        session.close()


def fold(folder: Path) -> None:
    assert all(d.error is None for d in fold_source(Lake(str(folder / "lake")), SOURCE, lambda _table: True))


def one_order(feed: Feed, key: int) -> None:
    """An order and its two lines, in one transaction."""
    tx = feed.begin()
    tx.insert(ORDERS, key, 2, None)
    tx.insert(LINES, key * 10, 1, None)
    tx.insert(LINES, key * 10 + 1, 1, None)
    tx.commit()


def test_a_transaction_is_shown_when_all_its_rows_are_there_and_not_before(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), partitions=1)
    one_order(feed, 1)
    feed.land()
    one_order(feed, 2)
    held = feed.pending[LINES].pop()
    feed.land()

    cut = state(tmp_path).cut
    assert (cut.position, cut.tx_id, cut.stalled) == (1, "00001", True)
    assert cut.waits == (Wait("00002", "public.lines", 1, 2),)
    assert rows(tmp_path, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM lines)") == [(1, 2)]

    append_log(tmp_path, LINES, [held])
    cut = state(tmp_path).cut
    assert (cut.position, cut.tx_id, cut.waits) == (3, "00002", ())
    assert rows(tmp_path, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM lines)") == [(2, 4)]


def test_a_redelivered_row_does_not_stand_in_for_a_missing_one(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), partitions=1)
    one_order(feed, 1)
    feed.land()
    one_order(feed, 2)
    held = feed.pending[LINES].pop()
    feed.pending[LINES].append({**feed.pending[LINES][-1], "__offset": held["__offset"]})
    feed.land()

    assert state(tmp_path).cut.waits == (Wait("00002", "public.lines", 1, 2),)


def test_rows_whose_transaction_has_not_ended_are_not_shown(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), partitions=1)
    one_order(feed, 1)
    feed.land()
    one_order(feed, 2)
    feed.pending_ends.clear()
    feed.land()

    assert rows(tmp_path, "SELECT id FROM orders") == [(1,)]
    assert not state(tmp_path).cut.stalled


def test_an_end_that_comes_again_does_not_move_its_transaction(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS,), partitions=1)
    for qty in (1, 2):
        tx = feed.begin()
        if qty == 1:
            tx.insert(ORDERS, 1, 1, None)
        else:
            tx.update(ORDERS, 1, 2)
        tx.commit()
    feed.land()
    tx_id, events, counts = feed.delivered[0]
    feed.deliver(tx_id, events, counts)
    feed.land()

    assert rows(tmp_path, "SELECT qty FROM orders") == [(2,)]


@pytest.mark.parametrize("end_too", [True, False])
def test_a_folded_transaction_that_comes_again_changes_nothing_and_does_not_hold_the_next_fold_back(
    tmp_path: Path, end_too: bool
) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), partitions=1)
    one_order(feed, 1)
    feed.land()
    fold(tmp_path)
    feed.redeliver(1)
    if not end_too:
        feed.pending_ends.clear()
    one_order(feed, 2)
    feed.land()
    fold(tmp_path)

    found = state(tmp_path)
    assert rows(tmp_path, "SELECT id FROM orders ORDER BY id") == [(1,), (2,)]
    assert [t.tail.facts.empty for t in found.tables] == [True, True]


def test_a_table_the_configuration_leaves_out_is_not_waited_for(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), partitions=1)
    one_order(feed, 1)
    feed.land()
    one_order(feed, 2)
    feed.pending[LINES].clear()
    feed.land()

    assert state(tmp_path).cut.position == 1
    assert state(tmp_path, lambda table: table == ORDERS).cut.position == 3


def order_of_two_tables(folder: Path, other: str) -> None:
    """A whole transaction, and one behind it that lacks its rows of `other`, a table without a log."""
    for i, (tx_id, counts) in enumerate([("6", {"public.orders": 1}), ("7", {"public.orders": 1, other: 3})]):
        append_log(folder, ORDERS, [log_row(ORDERS, "c", i, key={"id": i}, after={"id": i}, tx=(tx_id, 1))])
        append_ends(folder, [end_row(i * 2, tx_id, counts)])


@pytest.mark.parametrize("folded", [False, True])
def test_a_captured_table_whose_first_rows_have_not_landed_is_waited_for(tmp_path: Path, folded: bool) -> None:
    order_of_two_tables(tmp_path, "public.lines")
    if folded:
        fold(tmp_path)

    cut = state(tmp_path).cut
    assert (cut.tx_id, cut.waits) == ("6", (Wait("7", "public.lines", 3, 3),))
    assert rows(tmp_path, "SELECT count(*) FROM orders") == [(1,)]

    for i in range(3):
        append_log(tmp_path, LINES, [log_row(LINES, "c", i, key={"id": i}, after={"id": i}, tx=("7", 2 + i))])
    assert (state(tmp_path).cut.tx_id, state(tmp_path).cut.waits) == ("7", ())


def test_rows_of_a_captured_table_are_waited_for_also_when_no_table_has_landed(tmp_path: Path) -> None:
    append_ends(tmp_path, [end_row(0, "7", {"public.lines": 1})])

    assert state(tmp_path).cut.waits == (Wait("7", "public.lines", 1, 1),)


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        ("public.lines", {"*.*": {}, "public.lines": {"exclude": True}}),
        ("public.lines", {"public.orders": {}}),
        ("cdc_lake.heartbeat", {"*.*": {}}),
    ],
)
def test_a_table_without_a_log_that_nobody_captures_is_not_waited_for(
    tmp_path: Path, other: str, settings: dict[str, dict[str, bool]]
) -> None:
    order_of_two_tables(tmp_path, other)
    captures = (
        config(tmp_path)
        .model_copy(update={"tables": {g: Table.model_validate(s) for g, s in settings.items()}})
        .captures
    )

    assert (state(tmp_path, captures).cut.tx_id, state(tmp_path, captures).cut.waits) == ("7", ())


def test_a_table_that_cannot_be_read_does_not_hold_the_others(tmp_path: Path) -> None:
    order_of_two_tables(tmp_path, "public.lines")
    append_log(tmp_path, LINES, [log_row(LINES, "c", 0, key={"id": 0}, after={"id": 0}, tx=("7", 2))])
    for file in Path(log_path(str(tmp_path / "lake"), SOURCE, LINES)).glob("**/*.parquet"):
        file.unlink()

    assert state(tmp_path).cut.tx_id == "7"


def test_without_transaction_metadata_every_landed_row_is_shown(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), metadata=False)
    one_order(feed, 1)
    feed.land()

    assert rows(tmp_path, "SELECT count(*) FROM lines") == [(2,)]
    cut = state(tmp_path).cut
    assert (cut.position, cut.tx_id, cut.stalled, cut.age_seconds) == (0, None, False, None)


def test_a_row_of_a_snapshot_waits_for_the_changes_before_it_in_its_partition(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES), partitions=1)
    one_order(feed, 1)
    feed.land()
    tx = feed.begin()
    tx.update(ORDERS, 1, 99)
    tx.insert(LINES, 5, 5, None)
    tx.commit()
    feed.snapshot(ORDERS)
    feed.pending[LINES].clear()
    feed.land()

    assert state(tmp_path).cut.tx_id == "00001"
    assert rows(tmp_path, "SELECT qty FROM orders") == [(2,)]


def test_the_cut_says_which_transaction_it_stands_at_also_when_all_is_folded(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS, LINES))
    one_order(feed, 1)
    one_order(feed, 2)
    feed.land()
    fold(tmp_path)

    cut = state(tmp_path).cut
    assert (cut.tx_id, cut.position, cut.lsn) == ("00002", 3, 1002)
    assert cut.as_dict()["behind"] == 0
