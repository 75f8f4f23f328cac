"""`history`: one claim at a time. The model in test_history_model.py holds all of them together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.events import TableId
from cdc_lake.query.session import open_session
from tests.lake_model import (
    _START,
    FIELDS,
    PLACEHOLDER,
    Feed,
    append_ends,
    append_log,
    append_schemas,
    config,
    end_row,
    log_row,
    schema_row,
)

A, BAG = TableId("public", "a"), TableId("public", "bag")


def ask(folder: Path, query: str) -> list[tuple[Any, ...]]:
    session = open_session(config(folder))
    try:
        return session.connection.sql(query).fetchall()
    finally:
        session.close()


def lines(folder: Path, columns: str = "id, qty, __op, __tx_id, __ended_by, __ended_tx_id") -> list[tuple[Any, ...]]:
    return ask(folder, f"SELECT {columns} FROM history.public.a ORDER BY __from_position, id")


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    feed = Feed(tmp_path, (A,), (BAG,), partitions=1)
    tx = feed.begin()
    tx.insert(A, 1, 1, "a long text")
    tx.commit()
    return feed


def test_the_contract_columns_follow_the_sources_own_in_their_order_and_types(feed: Feed) -> None:
    feed.land()
    described = ask(feed.folder, "SELECT column_name, column_type FROM (DESCRIBE history.public.a)")
    assert described[:8] == [
        ("id", "INTEGER"),
        ("qty", "INTEGER"),
        ("note", "VARCHAR"),
        ("__op", "VARCHAR"),
        ("__valid_from", "TIMESTAMP WITH TIME ZONE"),
        ("__valid_to", "TIMESTAMP WITH TIME ZONE"),
        ("__tx_id", "VARCHAR"),
        ("__lsn", "BIGINT"),
    ]


def test_a_delete_ends_the_line_and_a_reborn_key_begins_another(feed: Feed) -> None:
    tx = feed.begin()
    tx.delete(A, 1)
    tx.commit()
    tx = feed.begin()
    tx.insert(A, 1, 2, None)
    tx.commit()
    feed.land()
    assert lines(feed.folder) == [(1, 1, "c", "00001", "d", "00002"), (1, 2, "c", "00003", None, None)]
    gap = "SELECT max(__valid_to) < max(__valid_from) FROM history.public.a"
    assert ask(feed.folder, gap) == [(True,)]


def test_of_several_changes_in_one_transaction_the_last_is_the_version(feed: Feed) -> None:
    tx = feed.begin()
    tx.update(A, 1, 2)
    tx.update(A, 1, 3)
    tx.insert(A, 2, 1, "short-lived")
    tx.delete(A, 2)
    tx.commit()
    feed.land()
    assert lines(feed.folder) == [(1, 1, "c", "00001", "u", "00002"), (1, 3, "u", "00002", None, None)]
    assert ask(feed.folder, "SELECT count(*) FROM changes.public.a WHERE __tx_id = '00002'") == [(4,)]


def test_a_delete_and_an_insert_in_one_transaction_are_two_lines(feed: Feed) -> None:
    tx = feed.begin()
    tx.delete(A, 1)
    tx.insert(A, 1, 5, None)
    tx.commit()
    feed.land()
    assert lines(feed.folder) == [(1, 1, "c", "00001", "d", "00002"), (1, 5, "c", "00002", None, None)]


def test_lines_of_a_changed_key_name_each_other_and_carry_the_large_value_along(feed: Feed) -> None:
    tx = feed.begin()
    tx.move(A, [(1, 7)])
    tx.commit()
    tx = feed.begin()
    tx.update(A, 7, 3)
    tx.commit()
    feed.land()
    columns = "id, qty, note, __previous_key->>'id', __next_key->>'id', __ended_by"
    assert lines(feed.folder, columns) == [
        (1, 1, "a long text", None, "7", "d"),
        (7, 1, "a long text", "1", None, "u"),
        (7, 3, "a long text", None, None, None),
    ]


def test_a_key_that_goes_away_and_comes_back_in_one_transaction_is_one_new_version(feed: Feed) -> None:
    tx = feed.begin()
    tx.move(A, [(1, 7)])
    tx.update(A, 7, 9)
    tx.move(A, [(7, 1)])
    tx.move(A, [(1, 7)])
    tx.move(A, [(7, 1)])
    tx.commit()
    feed.land()
    assert lines(feed.folder, "id, qty, note, __previous_key, __next_key") == [
        (1, 1, "a long text", None, None),
        (1, 9, "a long text", None, None),
    ]


def test_a_truncate_ends_all_lines_and_hides_what_its_own_transaction_did_before(feed: Feed) -> None:
    tx = feed.begin()
    tx.insert(A, 2, 2, None)
    tx.truncate(A)
    tx.insert(A, 3, 3, None)
    tx.commit()
    feed.land()
    assert lines(feed.folder) == [(1, 1, "c", "00001", "t", "00002"), (3, 3, "c", "00002", None, None)]


def test_what_is_delivered_again_is_no_version(feed: Feed) -> None:
    tx = feed.begin()
    tx.update(A, 1, 2)
    tx.commit()
    feed.redeliver(2)
    feed.land()
    assert [row[1] for row in lines(feed.folder)] == [1, 2]


def test_a_snapshot_begins_lines_and_adds_a_version_only_where_it_shows_something_new(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", FIELDS, ("id",))])
    rows = [
        log_row(A, "r", i, key={"id": key}, after={"id": key, "qty": qty, "note": "x"}, schema_id="s")
        for i, (key, qty) in enumerate([(1, 1), (2, 2), (1, 1), (2, 5)])
    ]
    append_log(tmp_path, A, rows)
    append_ends(tmp_path, [end_row(0, "1", {})])
    assert lines(tmp_path) == [
        (1, 1, "r", None, None, None),
        (2, 2, "r", None, "r", None),
        (2, 5, "r", None, None, None),
    ]


def test_a_value_that_the_log_never_saw_is_null_and_named(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", FIELDS, ("id",))])
    after = {"id": 1, "qty": 1, "note": PLACEHOLDER}
    append_log(tmp_path, A, [log_row(A, "u", 0, key={"id": 1}, after=after, tx=("1", 1), schema_id="s")])
    append_ends(tmp_path, [end_row(0, "1", {"public.a": 1})])
    assert lines(tmp_path, "note, __unknown, __op") == [(None, ["note"], "u")]


def test_versions_of_a_transaction_that_is_not_complete_are_not_shown(feed: Feed) -> None:
    feed.land()
    tx = feed.begin()
    tx.update(A, 1, 2)
    tx.insert(A, 2, 2, None)
    tx.commit()
    feed.pending[A].pop()
    feed.land()
    assert lines(feed.folder) == [(1, 1, "c", "00001", None, None)]


def test_times_stand_still_while_the_sources_clock_is_set_back_and_the_order_is_that_of_transactions(
    tmp_path: Path,
) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", FIELDS, ("id",))])
    rows, ends = [], []
    for i, (key, minute) in enumerate([(1, 10), (1, 3), (2, 4), (1, 20)]):
        when = _START + timedelta(minutes=minute)
        after = {"id": key, "qty": i, "note": "x"}
        op = "u" if i in {1, 3} else "c"
        rows.append(log_row(A, op, i, key={"id": key}, after=after, tx=(str(i), 1), schema_id="s", when=when))
        ends.append(end_row(i * 2, str(i), {"public.a": 1}, when=when))
    append_log(tmp_path, A, rows)
    append_ends(tmp_path, ends)
    shown = lines(tmp_path, f"qty, date_diff('minute', TIMESTAMPTZ '{_START.isoformat()}', __valid_from)")
    assert shown == [(0, 10), (1, 10), (2, 10), (3, 20)]


def test_without_transaction_metadata_each_instant_is_a_version_and_redelivery_is_none(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (A,), partitions=2, metadata=False)
    lsn = 0
    for qty in (1, 2, 3):
        tx = feed.begin()
        tx.insert(A, 1, qty, "x") if qty == 1 else tx.update(A, 1, qty)
        for _, event in tx.events:
            lsn += 1
            event["__lsn"] = lsn
        tx.commit()
    feed.redeliver(2)
    feed.land()
    rows = ask(tmp_path, "SELECT qty, __valid_to IS NULL FROM history.public.a ORDER BY __valid_from")
    assert rows == [(1, False), (2, False), (3, True)]


def test_a_row_without_a_key_is_there_from_when_it_appeared_until_it_went(feed: Feed) -> None:
    tx = feed.begin()
    for qty in (1, 1, 2):
        tx.bag_insert(BAG, {"id": 1, "qty": qty, "note": None})
    tx.commit()
    tx = feed.begin()
    tx.bag_delete(BAG, 0)
    tx.bag_insert(BAG, {"id": 9, "qty": 9, "note": None})
    tx.bag_delete(BAG, 2)
    tx.commit()
    tx = feed.begin()
    tx.bag_update(BAG, 0, 7)
    tx.commit()
    feed.land()
    columns = "qty, __op, __tx_id, __ended_by, __ended_tx_id"
    assert ask(
        feed.folder, f"SELECT {columns} FROM history.public.bag ORDER BY __from_position, qty, __to_position"
    ) == [
        (1, "c", "00002", "d", "00003"),
        (1, "c", "00002", "u", "00004"),
        (2, "c", "00002", None, None),
        (7, "u", "00004", None, None),
    ]


def test_a_truncate_empties_a_table_without_a_key(feed: Feed) -> None:
    tx = feed.begin()
    tx.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
    tx.commit()
    tx = feed.begin()
    tx.truncate(BAG)
    tx.commit()
    feed.land()
    assert ask(feed.folder, "SELECT __ended_by, __ended_tx_id FROM history.public.bag") == [("t", "00003")]


def test_a_source_column_called_like_one_of_ours_is_kept_under_another_name(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", {"id": "int32", "__op": "string"}, ("id",))])
    row = log_row(A, "c", 0, key={"id": 1}, after={"id": 1, "__op": "mine"}, tx=("1", 1), schema_id="s")
    append_log(tmp_path, A, [row])
    append_ends(tmp_path, [end_row(0, "1", {"public.a": 1})])
    assert lines(tmp_path, "__op, __op_source") == [("c", "mine")]
