"""The lake as of a moment: what a moment may be, where its boundary lies, and what is refused in which words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cdc_lake
from cdc_lake.events import TableId
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.project.moments import MomentError
from cdc_lake.query.session import open_session
from tests.lake_model import (
    _START,
    FIELDS,
    SOURCE,
    Feed,
    append_ends,
    append_log,
    append_schemas,
    config,
    end_row,
    log_row,
    schema_row,
)

A, B = TableId("public", "a"), TableId("public", "b")


def at(minutes: float) -> str:
    return (_START + timedelta(minutes=minutes)).isoformat()


def ask(folder: Path, query: str, as_of: str | None = None) -> list[tuple[Any, ...]]:
    session = open_session(config(folder), as_of)
    try:
        return session.connection.sql(query).fetchall()
    finally:
        session.close()


def qty(folder: Path, moment: str) -> list[tuple[Any, ...]]:
    return ask(folder, "SELECT (SELECT sum(qty) FROM a), (SELECT sum(qty) FROM b)", moment)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Three transactions at minutes 1, 2 and 3 with LSNs 1001, 1002 and 1003; a and b sum up to 10 after each."""
    feed = Feed(tmp_path, (A, B), partitions=1)
    for number in (1, 2, 3):
        tx = feed.begin()
        if number == 1:
            tx.insert(A, 1, number, "x")
            tx.insert(B, 1, 10 - number, "x")
        else:
            tx.update(A, 1, number)
            tx.update(B, 1, 10 - number)
        tx.commit()
    feed.land()
    return feed


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("tx:00002", (2, 8)),
        ("00002", (2, 8)),
        (at(2), (2, 8)),
        (at(2.999), (2, 8)),
        ("2026-11-24 00:02:30", (2, 8)),
        ("2026-11-24T01:02:30+01:00", (2, 8)),
        ("20261124T000230Z", (2, 8)),
        ("time:20261124T000230", (2, 8)),
        ("lsn:1002", (2, 8)),
        ("1002", (2, 8)),
        ("0/3EA", (2, 8)),
        ("0/3eb", (3, 7)),
        ("lsn:0/3EA", (2, 8)),
        (at(3), (3, 7)),
        (at(1), (1, 9)),
    ],
)
@pytest.mark.parametrize("folded", [False, True])
def test_all_tables_are_as_they_were_at_a_moment_however_it_is_named(
    feed: Feed, moment: str, shown: tuple[int, int], folded: bool
) -> None:
    if folded:
        list(fold_source(Lake(str(feed.folder / "lake")), SOURCE, lambda _table: True))
    assert qty(feed.folder, moment) == [shown]


@pytest.mark.parametrize(
    ("moment", "code", "words"),
    [
        ("yesterday", "as_of", "ISO 8601"),
        ("", "as_of", "ISO 8601"),
        ("2026-13-01", "as_of", "ISO 8601"),
        ("0/XYZ", "as_of", "0/16B3748"),
        ("tx:", "as_of", "tx:774"),
        ("9" * 5000, "as_of", "ISO 8601"),
        ("lsn:" + "9" * 5000, "as_of", "0/16B3748"),
        ("tx:" + "9" * 5000, "as_of_unknown_transaction", "complete up to"),
        ("2026-03-29T02:30:00 Europe/Vienna", "as_of", "without a zone UTC"),
        ("tx:9", "as_of_unknown_transaction", "complete up to transaction 00003"),
        ("9", "as_of_unknown_transaction", "complete up to transaction 00003"),
        (at(0.5), "as_of_before_log", "Its first transaction is 00001"),
        ("lsn:7", "as_of_before_log", "there is no snapshot before it"),
        (at(3.5), "as_of_after_cut", "complete up to transaction 00003"),
        ("0001-01-01", "as_of_before_log", "first transaction"),
        ("9999-12-31T23:59:59.999999-23:59", "as_of", "ISO 8601"),
        ("9999-12-31", "as_of_after_cut", "LSN 0/3EB"),
        ("F/0", "as_of_after_cut", "LSN 0/3EB"),
    ],
)
def test_a_moment_that_cannot_be_read_is_named_with_the_way_out(feed: Feed, moment: str, code: str, words: str) -> None:
    with pytest.raises(MomentError) as caught:
        open_session(config(feed.folder), moment)
    assert caught.value.code == code
    assert words in caught.value.why
    assert caught.value.next
    assert caught.value.exit_code == 2


def test_a_number_that_is_a_transaction_and_an_lsn_is_asked_back(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", FIELDS, ("id",))])
    for i, tx_id in enumerate(("50", "60")):
        row = log_row(A, "c", i, key={"id": i}, after={"id": i, "qty": 1, "note": ""}, tx=(tx_id, 1), schema_id="s")
        append_log(tmp_path, A, [row])
        append_ends(tmp_path, [end_row(i * 2, tx_id, {"public.a": 1}, lsn=55 + i * 10)])
    with pytest.raises(MomentError, match="both") as caught:
        open_session(config(tmp_path), "60")
    assert caught.value.code == "as_of_ambiguous"
    assert "tx:60 or --as-of lsn:60" in caught.value.next
    assert ask(tmp_path, "SELECT count(*) FROM a", "lsn:60") == [(1,)]
    assert ask(tmp_path, "SELECT count(*) FROM a", "tx:60") == [(2,)]
    assert ask(tmp_path, "SELECT count(*) FROM a", f"{(7 << 32) + 60}") == [(2,)], "all 64 bits of the id"


def test_a_transaction_id_that_was_used_twice_is_asked_back(feed: Feed) -> None:
    append_ends(feed.folder, [end_row(100, "00002", {}, lsn=9999)])
    with pytest.raises(MomentError) as caught:
        open_session(config(feed.folder), "tx:00002")
    assert caught.value.code == "as_of_ambiguous"


def test_a_moment_between_the_cut_and_what_has_landed_says_what_is_missing(feed: Feed) -> None:
    tx = feed.begin()
    tx.update(A, 1, 4)
    tx.update(B, 1, 6)
    tx.commit()
    feed.pending[B].clear()
    feed.land()
    with pytest.raises(MomentError) as caught:
        open_session(config(feed.folder), "tx:00004")
    assert caught.value.code == "as_of_after_cut"
    assert "1 of 1 rows of public.b have not landed" in caught.value.why
    assert qty(feed.folder, at(3.5)) == [(3, 7)], "the next transaction is known, so nothing was before it"


def test_a_clock_that_was_set_back_does_not_reorder_the_past(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", FIELDS, ("id",))])
    for i, minute in enumerate((1, 10, 3, 20)):
        when = _START + timedelta(minutes=minute)
        after = {"id": i, "qty": i, "note": "x"}
        row = log_row(A, "c", i, key={"id": i}, after=after, tx=(str(i), 1), schema_id="s", when=when)
        append_log(tmp_path, A, [row])
        append_ends(tmp_path, [end_row(i * 2, str(i), {"public.a": 1}, when=when)])
    counts = [ask(tmp_path, "SELECT count(*) FROM a", at(m)) for m in (1, 5, 10, 15, 20)]
    assert counts == [[(1,)], [(1,)], [(3,)], [(3,)], [(4,)]]


def test_a_time_tells_transactions_of_one_millisecond_apart(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(A, "s", FIELDS, ("id",))])
    for i in range(3):
        when = _START + timedelta(microseconds=5100 + i * 300)
        after = {"id": i, "qty": i, "note": "x"}
        row = log_row(A, "c", i, key={"id": i}, after=after, tx=(str(i), 1), schema_id="s", when=when)
        append_log(tmp_path, A, [row])
        end = _START + timedelta(milliseconds=5)
        append_ends(tmp_path, [end_row(i * 2, str(i), {"public.a": 1}, when=end)])
    moments = [(_START + timedelta(microseconds=m)).isoformat() for m in (5100, 5399, 5400, 5999)]
    assert [ask(tmp_path, "SELECT count(*) FROM a", m) for m in moments] == [[(1,)], [(1,)], [(2,)], [(3,)]]


def snapshot(folder: Path, table: TableId, offset: int, when: float, key: int = 1) -> None:
    row = {"id": key, "qty": 5, "note": "x"}
    moment = _START + timedelta(minutes=when)
    read = log_row(table, "r", offset, key={"id": key}, after=row, schema_id=f"s-{table}", when=moment, lsn=900)
    append_log(folder, table, [read])


def test_between_the_first_snapshot_and_the_first_transaction_the_lake_is_the_snapshot(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (A, B), partitions=1)
    snapshot(tmp_path, A, 0, 0.5)
    snapshot(tmp_path, B, 0, 0.5)
    feed.offsets = {(A, 0): 1, (B, 0): 1}
    feed.rows = {A: {1: {"id": 1, "qty": 5, "note": "x"}}, B: {}}
    tx = feed.begin()
    tx.update(A, 1, 6)
    tx.commit()
    feed.land()
    assert qty(tmp_path, at(0.7)) == [(5, 5)]
    assert qty(tmp_path, "lsn:950") == [(5, 5)]
    assert qty(tmp_path, "950") == [(5, 5)]
    assert qty(tmp_path, at(1)) == [(6, 5)]
    with pytest.raises(MomentError, match="before the log"):
        open_session(config(tmp_path), at(0.4))
    with pytest.raises(MomentError, match="before the log"):
        open_session(config(tmp_path), "lsn:899")


def test_a_table_whose_rows_a_later_snapshot_brought_says_so_and_the_others_are_read(feed: Feed) -> None:
    snapshot(feed.folder, B, feed.offsets[B, 0], 3.5, key=77)
    assert ask(feed.folder, "SELECT sum(qty) FROM a", "tx:00002") == [(2,)]
    with pytest.raises(Exception, match=r"public\.b cannot be read as of tx:00002"):
        qty(feed.folder, "tx:00002")
    assert qty(feed.folder, "tx:00003") == [(3, 12)]


def test_a_snapshot_of_rows_that_are_known_already_changes_no_past(feed: Feed) -> None:
    feed.snapshot(B)
    feed.land()
    assert qty(feed.folder, "tx:00002") == [(2, 8)]


def test_changes_and_history_of_a_past_session_end_at_its_moment(feed: Feed) -> None:
    query = """SELECT (SELECT count(*) FROM changes.public.a), (SELECT count(*) FROM history.public.a),
        (SELECT max(__valid_to) FROM history.public.a WHERE __tx_id = '00002'), (SELECT tx_id FROM lake.cut)"""
    assert ask(feed.folder, query, "tx:00002") == [(2, 2, None, "00002")]


def test_sql_reads_a_table_at_a_moment_beside_the_present(feed: Feed) -> None:
    query = "SELECT past.qty, now.qty FROM lake.at('{}', {}) past JOIN a now USING (id)"
    assert ask(feed.folder, query.format("a", "'tx:00001'")) == [(1, 3)]
    assert ask(feed.folder, query.format("public.a", f"TIMESTAMPTZ '{at(2.5)}'")) == [(2, 3)]
    assert ask(feed.folder, query.format("A", "(SELECT 'tx:' || tx_id FROM lake.cut)")) == [(3, 3)]
    assert ask(feed.folder, "DESCRIBE SELECT * FROM lake.at('a', 'tx:00001')") == ask(feed.folder, "DESCRIBE a")
    positions = "SELECT lake.position('tx:00001') < lake.position('tx:00002'), lake.position(NULL)"
    assert ask(feed.folder, positions) == [(True, None)]


def test_sql_refuses_a_moment_in_the_same_words(feed: Feed) -> None:
    with pytest.raises(Exception, match="'yesterday' is no moment"):
        ask(feed.folder, "FROM lake.at('a', 'yesterday')")
    with pytest.raises(Exception, match="after what the lake holds"):
        ask(feed.folder, f"FROM lake.at('a', '{at(9)}')")


def test_connect_takes_a_moment(feed: Feed) -> None:
    assert cdc_lake.connect(config(feed.folder), as_of="tx:00001").sql("SELECT qty FROM a").fetchall() == [(1,)]


def test_a_source_without_transaction_metadata_has_no_past_moments(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (A,), metadata=False)
    tx = feed.begin()
    tx.insert(A, 1, 1, "x")
    tx.commit()
    feed.land()
    with pytest.raises(MomentError) as caught:
        open_session(config(tmp_path), at(2))
    assert caught.value.code == "as_of_unavailable"
    assert "provide.transaction.metadata" in caught.value.next


def test_an_empty_lake_has_no_moments(tmp_path: Path) -> None:
    with pytest.raises(MomentError, match="empty"):
        open_session(config(tmp_path), at(2))
