"""A session for one query has what that query reads: the same answer, or the same words, as a whole session gives."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

import cdc_lake
from cdc_lake.errors import UsageError
from cdc_lake.events import TableId
from cdc_lake.query.needs import everything, needs_of_sql
from cdc_lake.query.news import News
from cdc_lake.query.session import Session, open_session
from tests.lake_model import Feed, config

ORDERS, ODD = TableId("public", "orders"), TableId("Shop", "Odd Name")
TABLES = [ORDERS, ODD, TableId("shop", "orders"), TableId("public", "select")]


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    feed = Feed(tmp_path, (ORDERS, ODD))
    land_one(feed, 1)
    return feed


def land_one(feed: Feed, key: int) -> None:
    tx = feed.begin()
    tx.insert(ORDERS, key, 10, "a")
    tx.insert(ODD, key, 20, "b")
    tx.commit()
    feed.land()


def views(session: Session) -> set[tuple[str, str, str]]:
    rows = session.connection.execute(
        """SELECT database_name, schema_name, view_name FROM duckdb_views()
        WHERE database_name IN ('current', 'changes', 'history') AND NOT internal"""
    ).fetchall()
    return {(c, s, v) for c, s, v in rows}


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("SELECT * FROM orders", {("current", ORDERS), ("current", TableId("shop", "orders"))}),
        ("FROM public.orders", {("current", ORDERS), ("changes", ORDERS), ("history", ORDERS)}),
        ("FROM history.public.ORDERS h", {("history", ORDERS)}),
        ('SELECT (SELECT max(id) FROM changes."Shop"."Odd Name")', {("changes", ODD)}),
        ('WITH x AS (FROM history."Shop"."odd name") FROM x, lake.cut', {("history", ODD)}),
        ("SELECT 1", set[tuple[str, TableId]]()),
        (
            'FROM public."select" UNION ALL FROM current.public.orders; SELECT 2',
            {(c, TableId("public", "select")) for c in ("current", "changes", "history")} | {("current", ORDERS)},
        ),
    ],
)
def test_only_what_a_query_names_is_needed(sql: str, read: set[tuple[str, TableId]]) -> None:
    needs = needs_of_sql(duckdb.connect(), sql, TABLES)
    assert {(c, t) for c in ("current", "changes", "history") for t in TABLES if needs(c, t)} == read


@pytest.mark.parametrize(
    "sql",
    [
        "FROM lake.at('orders', '2026-01-01')",
        "FROM query_table('orders')",
        "FROM orders, information_schema.tables",
        "SHOW TABLES",
        "DESCRIBE orders",
        "SUMMARIZE orders",
        "CREATE TABLE mine AS FROM orders",
        "FROM ordres",
        "FROM no.such.orders",
        "selec 1",
    ],
)
def test_everything_is_needed_where_the_text_does_not_tell(sql: str) -> None:
    assert needs_of_sql(duckdb.connect(), sql, TABLES) is everything


def test_a_session_for_a_query_has_no_other_views(feed: Feed) -> None:
    session = open_session(config(feed.folder), sql="SELECT count(*) FROM changes.public.orders")
    assert views(session) == {("changes", "public", "orders")}
    assert session.connection.sql("SELECT count(*) FROM changes.public.orders").fetchall() == [(1,)]
    assert set(session.tables) == {ORDERS, ODD}


def test_a_session_for_a_query_that_reads_no_table_has_no_views(feed: Feed) -> None:
    session = open_session(config(feed.folder), sql="SELECT count(*) FROM lake.transactions")
    assert views(session) == set()
    assert session.connection.sql("SELECT count(*) FROM lake.tables").fetchall() == [(2,)]


def test_a_connection_of_named_tables_has_their_three_views(feed: Feed) -> None:
    con = cdc_lake.connect(config(feed.folder), tables=["Shop.Odd Name"])
    for catalogue in ("current", "changes", "history"):
        assert con.sql(f'SELECT count(*) FROM {catalogue}."Shop"."Odd Name"').fetchall() == [(1,)]
    with pytest.raises(duckdb.CatalogException, match="orders"):
        con.sql("FROM orders")


def test_a_connection_of_an_unknown_table_suggests_the_near_one(feed: Feed) -> None:
    with pytest.raises(UsageError, match=r"There is no table ordres") as caught:
        cdc_lake.connect(config(feed.folder), tables=["ordres"])
    assert "orders" in caught.value.why


def test_news_are_commits_since_the_last_question(feed: Feed) -> None:
    news = News(config(feed.folder))
    assert news.arrived()
    assert not news.arrived()
    land_one(feed, 2)
    assert news.arrived()
    assert not news.arrived()


def test_a_lake_that_is_not_there_yet_has_no_news(tmp_path: Path) -> None:
    assert not News(config(tmp_path)).arrived()
