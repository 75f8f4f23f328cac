"""Promise: any past moment of the source can be read, all tables together, as the source showed them at that moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import duckdb
import psycopg
import pytest

from cdc_lake.config import load_config
from cdc_lake.errors import CdcLakeError
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from cdc_lake.query.session import open_session
from tests.projects import Project

TABLES = ("goods", "stock", "seats", "visits")
SCHEMA = """
CREATE TABLE goods (id int PRIMARY KEY, name text NOT NULL, price numeric(8,2), story text);
ALTER TABLE goods ALTER story SET STORAGE EXTERNAL;
CREATE TABLE seats (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, who text);
ALTER TABLE seats REPLICA IDENTITY FULL;
CREATE TABLE stock (store int, good int, pieces int, seen timestamptz, PRIMARY KEY (store, good));
CREATE TABLE visits (who text, page text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO goods SELECT i, 'good ' || i, i * 1.10, repeat('story ' || i || ' ', 500) FROM generate_series(1, 12) i;
INSERT INTO stock SELECT s, g, 10, '2026-01-01' FROM generate_series(1, 3) s, generate_series(1, 12) g;
INSERT INTO seats SELECT i, 'guest ' || i FROM generate_series(1, 9) i;
INSERT INTO visits SELECT 'w' || i % 3, 'p' || i % 4 FROM generate_series(1, 20) i;
"""
# Each is one transaction. Large values stay untouched wherever they are not set.
TRANSACTIONS = (
    "UPDATE goods SET price = price + 1 WHERE id <= 3",
    "INSERT INTO goods VALUES (20, 'new', 5, repeat('tale ', 900)); INSERT INTO stock VALUES (1, 20, 1, now())",
    "UPDATE goods SET id = 100 WHERE id = 4; UPDATE stock SET good = 100 WHERE good = 4",
    "UPDATE seats SET id = 3 - id WHERE id < 3; DELETE FROM visits WHERE who = 'w1'",
    "UPDATE goods SET id = 0 WHERE id = 1; UPDATE goods SET id = 1 WHERE id = 2; UPDATE goods SET id = 2 WHERE id = 0",
    "INSERT INTO visits SELECT * FROM visits; UPDATE stock SET pieces = pieces - 1 WHERE store = 2",
    "DELETE FROM goods WHERE id = 6; INSERT INTO goods VALUES (6, 'reborn', 6, NULL)",
    "UPDATE goods SET price = 0; UPDATE goods SET price = 7 WHERE id = 20; DELETE FROM goods WHERE id = 12",
    "TRUNCATE visits; INSERT INTO visits VALUES ('w9', 'p9'), ('w9', 'p9')",
    "UPDATE goods SET id = id + 500 WHERE id BETWEEN 7 AND 9; UPDATE seats SET id = id + 1 WHERE id > 1",
    "UPDATE goods SET story = NULL WHERE id = 3; UPDATE stock SET seen = now() WHERE store = 1 AND good < 4",
    "UPDATE visits SET page = 'p0' WHERE ctid = (SELECT min(ctid) FROM visits)",
    "TRUNCATE stock",
    "INSERT INTO stock SELECT 1, id, 3, NULL FROM goods; UPDATE goods SET name = name || '!' WHERE id = 100",
    "UPDATE goods SET id = 4 WHERE id = 100; UPDATE seats SET id = 11 - id; DELETE FROM visits",
)
Rows = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Moment:
    """What the source showed right after a transaction, and that moment's three names."""

    tx: str
    time: str
    lsn: str
    rows: Rows


def show(connection: psycopg.Connection[Any] | duckdb.DuckDBPyConnection) -> Rows:
    """All rows of all tables."""
    found = {t: connection.execute(f"SELECT * FROM {t}").fetchall() for t in TABLES}
    return {t: sorted((tuple(row) for row in rows), key=repr) for t, rows in found.items()}


def play(dsn: str) -> list[Moment]:
    """Run the transactions one after the other, and write down what the source shows after each."""
    moments = []
    with psycopg.connect(dsn, autocommit=True) as source:
        source.execute("SET TimeZone = 'UTC'")
        for text in TRANSACTIONS:
            with source.transaction():
                for statement in text.split("; "):
                    source.execute(statement.encode())
                row = source.execute("SELECT pg_current_xact_id()::text").fetchone()
            tx = row[0] if row else ""
            after = source.execute("SELECT clock_timestamp(), pg_current_wal_lsn()::text").fetchone()
            assert after is not None
            moments.append(Moment(tx, after[0].isoformat(), after[1], show(source)))
    return moments


def lake(project: Project, moment: str | None = None) -> Rows:
    """All rows of all tables of the lake, as of a moment."""
    session = open_session(load_config(project.folder / "cdc-lake.yaml"), moment)
    try:
        return show(session.connection)
    finally:
        session.close()


@pytest.fixture
def shop(project: Project) -> Project:
    """A captured database, its first rows landed."""
    with psycopg.connect(project.dsn, autocommit=True) as source:
        for statement in filter(str.strip, SCHEMA.split(";")):
            source.execute(statement.encode())
    project.register()
    project.ok("sink", "run", "--until-caught-up")
    return project


def test_the_lake_as_of_each_transaction_is_what_the_source_showed_after_it(shop: Project) -> None:
    before = lake(shop)
    moments = play(shop.dsn)
    with psycopg.connect(shop.dsn) as source:
        source.execute("INSERT INTO visits VALUES ('nobody', 'never')")
        row = source.execute("SELECT pg_current_xact_id()::text").fetchone()
        source.rollback()
    shop.ok("sink", "run", "--until-caught-up")
    for folded in (False, True):
        if folded:
            shop.ok("fold")
        for number, moment in enumerate(moments):
            other = moment.time if number % 2 else moment.lsn
            for name in (f"tx:{moment.tx}",) if folded else (f"tx:{moment.tx}", other):
                assert lake(shop, name) == moment.rows, f"{TRANSACTIONS[number]}, as of {name}, folded: {folded}"
    assert lake(shop) == moments[-1].rows
    assert before != moments[0].rows
    with pytest.raises(CdcLakeError, match="has no transaction"):
        lake(shop, f"tx:{row[0] if row else ''}")


def test_history_holds_each_of_these_moments(shop: Project) -> None:
    moments = play(shop.dsn)
    shop.ok("sink", "run", "--until-caught-up")
    session = open_session(load_config(shop.folder / "cdc-lake.yaml"))
    try:
        for moment in moments:
            for table in TABLES:
                query = f"FROM lake.at('{table}', 'tx:{moment.tx}')"
                found = sorted(session.connection.execute(query).fetchall(), key=repr)
                assert found == moment.rows[table], f"{table} as of {moment.tx}"
        unknown = session.connection.execute("SELECT count(*) FROM history.public.goods WHERE __unknown <> []")
        assert unknown.fetchall() == [(0,)]
    finally:
        session.close()


def test_at_any_moment_of_a_living_shop_orders_equal_the_sum_of_their_lines(project: Project) -> None:
    create_schema(project.dsn)
    load(project.dsn, Size.for_rows(1000))
    project.register()
    workload = Workload(project.dsn, rate=40)
    workload.start()
    try:
        time.sleep(4)  # not a wait: so long the shop is open
    finally:
        workload.stop()
    project.ok("sink", "run", "--until-caught-up")
    config = load_config(project.folder / "cdc-lake.yaml")
    session = open_session(config)
    ends = """SELECT tx_id FROM lake.transactions WHERE status = 'END' AND data_collections LIKE '%orders%'
        ORDER BY __offset"""
    ids = [tx for (tx,) in session.connection.execute(ends).fetchall()]
    session.close()
    assert len(ids) > 20
    counts = set()
    for tx in ids[:: len(ids) // 8]:
        past = open_session(config, f"tx:{tx}")
        wrong = """SELECT count(*) FROM orders o FULL JOIN
            (SELECT order_id, sum(line_total) AS total FROM order_lines GROUP BY order_id) l USING (order_id)
            WHERE o.total IS DISTINCT FROM coalesce(l.total, 0)"""
        assert past.connection.execute(wrong).fetchall() == [(0,)], f"as of {tx}"
        counts.add(past.connection.execute("SELECT count(*), sum(total) FROM orders").fetchone())
        past.close()
    assert len(counts) > 4, "the moments differ"
