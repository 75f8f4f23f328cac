"""Wrong SQL is answered in words: what, where, and what is near."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_lake.events import TableId
from cdc_lake.query.run import SqlError, run_sql
from cdc_lake.query.session import Session, open_session
from tests.lake_model import Feed, append_log, config, log_row


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder: Path = tmp_path_factory.mktemp("lake")
    feed = Feed(folder, (TableId("public", "orders"), TableId("sales", "stores")))
    tx = feed.begin()
    tx.insert(TableId("public", "orders"), 1, 1, "x")
    tx.insert(TableId("sales", "stores"), 1, 1, "x")
    tx.commit()
    feed.land()
    for name in ("Twice", "twice"):
        table = TableId("public", name)
        append_log(folder, table, [log_row(table, "c", 0, key={"id": 1}, after={"id": 1})])
    opened = open_session(config(folder))
    yield opened
    opened.close()


def error(session: Session, query: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        read(session, query)
    return caught.value


def read(session: Session, query: str) -> None:
    result = run_sql(session, query)
    if result is not None:
        list(result.batches())


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("oders", "orders"),
        ("public.oders", "public.orders"),
        ("sales.store", "sales.stores"),
        ("current.public.oders", "current.public.orders"),
        ("changes.public.ordrs", "changes.public.orders"),
        ("lake.tabels", "lake.tables"),
    ],
)
def test_a_misspelt_table_is_answered_with_the_near_one(session: Session, typed: str, near: str) -> None:
    found = error(session, f"SELECT * FROM {typed}")

    assert "There is no table" in found.message
    assert f'Did you mean "{near}"?' in found.why


def test_a_table_that_is_near_to_none_is_answered_with_those_there_are(session: Session) -> None:
    assert "There are: Twice, orders, twice, sales.stores" in error(session, "FROM zzz").why


def test_a_misspelt_column_is_answered_with_the_near_one(session: Session) -> None:
    found = error(session, "SELECT nte FROM orders")

    assert (found.message, 'Did you mean "note"?' in found.why) == ("There is no column nte.", True)


def test_broken_sql_shows_where_with_a_caret_under_it(session: Session) -> None:
    lines = error(session, "SELECT id\nFRO orders").why.splitlines()

    assert lines[-2].startswith("LINE 2: FRO orders")
    assert lines[-1].index("^") == lines[-2].index("FRO") or lines[-2][lines[-1].index("^") :].startswith("orders")


@pytest.mark.parametrize("query", ["SELECT 'x'::INTEGER", "SELECT (note || 'x')::INTEGER FROM orders"])
def test_a_value_that_cannot_be_computed_is_an_error_in_words(session: Session, query: str) -> None:
    found = error(session, query)

    assert "Could not convert" in found.message
    assert found.exit_code == 1


def test_a_refused_table_says_why_and_what_next(session: Session) -> None:
    found = error(session, "SELECT count(*) FROM twice")

    assert "differ only in case" in found.message
    assert found.why == "DuckDB ignores case in names, so a session cannot show both."
    assert found.next.startswith("rename one in the source")


def test_the_connection_goes_on_after_an_error(session: Session) -> None:
    error(session, "SELECT (note || 'x')::INTEGER FROM orders")
    result = run_sql(session, "SELECT count(*) FROM orders")
    assert result is not None
    assert next(result.batches()).column(0).to_pylist() == [1]
    result.close()


def test_a_text_without_a_statement_has_no_result(session: Session) -> None:
    assert run_sql(session, "-- nothing") is None
