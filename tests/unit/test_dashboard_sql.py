"""SQL over HTTP: one SELECT over the lake, and nothing else of the machine; within its limits, or ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pytest

from cdc_lake.config import load_config
from cdc_lake.query.guard import Limits, check_select, close_doors
from cdc_lake.query.run import SqlError, run_sql
from cdc_lake.query.session import Session, open_session
from cdc_lake.serve.dashboard.actions import without_values
from cdc_lake.serve.dashboard.sql_box import SqlBox
from tests.dashboards import LIMITS, client, entered
from tests.shops import Shop

SECRET = "what-no-query-may-read"
ALLOWED = {
    "SELECT count(*) AS n FROM inventory": 1,
    "FROM stores": None,
    "SELECT s.name FROM history.public.stores s JOIN stores USING (store_id) LIMIT 2": 2,
    "WITH a AS (SELECT 1 AS x) SELECT * FROM a": 1,
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) FROM t": 5,
    "FROM lake.at('orders', '2026-11-24 12:01') LIMIT 1": 1,
    "FROM lake.tables": 7,
    "FROM range(3)": 3,
    "SELECT unnest([1, 2])": 2,
    "DESCRIBE orders": 8,
    "VALUES (1), (2)": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shop")
    shop = Shop.open(made)
    shelf = next(k for k, v in shop.rows["inventory"].items() if v["on_hand"] > 2)
    shop.sell(shelf[0], shelf[1], 1)
    (made / "secret.csv").write_text(f"a\n{SECRET}\n")
    return made


@pytest.fixture(scope="module")
def closed(folder: Path) -> Iterator[Session]:
    session = open_session(folder / "cdc-lake.yaml")
    close_doors(session, [str(folder / "lake")], Limits(256, 5))
    yield session
    session.close()


@pytest.fixture(scope="module")
def box(folder: Path) -> Iterator[SqlBox]:
    made = SqlBox(load_config(folder / "cdc-lake.yaml"), LIMITS, lambda: 1)
    yield made
    made.close()


def refused(folder: Path) -> dict[str, str]:
    """What must not run, and what its error says."""
    lake = folder / "lake"
    return {
        f"FROM read_csv('{folder}/secret.csv')": "read_csv is not allowed",
        f"FROM '{folder}/secret.csv'": "There is no table",
        f"SELECT * FROM (SELECT * FROM '{folder}/secret.csv')": "There is no table",
        f"SELECT (SELECT a FROM '{folder}/secret.csv')": "There is no table",
        f"FROM stores WHERE name IN (FROM read_text('{folder}/secret.csv'))": "read_text is not allowed",
        f"FROM read_parquet('{lake}/**/*.parquet')": "read_parquet is not allowed",
        f"FROM glob('{lake}/*')": "glob is not allowed",
        "FROM read_text('/proc/self/environ')": "read_text is not allowed",
        "FROM read_csv('https://example.com/x.csv')": "read_csv is not allowed",
        "FROM query('SELECT 1')": "query is not allowed",
        "FROM query_table('stores')": "query_table is not allowed",
        "FROM duckdb_settings()": "duckdb_settings is not allowed",
        "FROM duckdb_secrets()": "duckdb_secrets is not allowed",
        "SELECT cdc_lake_position('', 'x')": "not to be called",
        "SELECT system.main.cdc_lake_shape('../..', 'x', 'y', 1)": "not to be called",
        "FROM lake.internal.tables_at_open": "There is no table",
        "SELECT 1; SELECT 2": "2 statements",
        "": "0 statements",
        "-- nothing": "0 statements",
        f"COPY stores TO '{lake}/x.csv'": "Only a SELECT",
        "INSTALL httpfs": "Only a SELECT",
        "LOAD httpfs": "Only a SELECT",
        f"ATTACH '{folder}/x.db'": "Only a SELECT",
        "SET memory_limit = '8GB'": "Only a SELECT",
        "PRAGMA database_list": "Only a SELECT",
        "CREATE TABLE x AS SELECT 1": "Only a SELECT",
        "DROP VIEW memory.main.stores": "Only a SELECT",
        "WITH x AS (DELETE FROM lake.folds RETURNING *) FROM x": "Only a SELECT",
        "EXPLAIN ANALYZE SELECT 1": "Only a SELECT",
        "CALL pragma_version()": "Only a SELECT",
        "FROM folder": "There is no table",
        "FROM session": "There is no table",
    }


def rows_of(session: Session, sql: str) -> int:
    check_select(session, sql)
    result = run_sql(session, sql)
    assert result is not None
    return sum(batch.num_rows for batch in result.batches())


@pytest.mark.parametrize("sql", ALLOWED)
def test_a_select_over_the_lake_is_answered(sql: str, closed: Session) -> None:
    found = rows_of(closed, sql)
    assert found == (ALLOWED[sql] or found) > 0


def test_all_else_is_refused_before_it_runs(folder: Path, closed: Session) -> None:
    for sql, words in refused(folder).items():
        with pytest.raises(SqlError, match=words):
            check_select(closed, sql)


def test_a_text_without_end_is_refused(closed: Session) -> None:
    with pytest.raises(SqlError, match="too long"):
        check_select(closed, "SELECT " + "1," * 100_000 + "1")


def test_the_session_itself_reaches_nothing_though_the_text_is_not_looked_at(folder: Path, closed: Session) -> None:
    """The second barrier alone."""
    con = closed.connection
    for sql in (
        f"FROM read_csv('{folder}/secret.csv')",
        f"FROM '{folder}/secret.csv'",
        "FROM read_text('/etc/passwd')",
        f"COPY stores TO '{folder}/out.csv'",
        f"ATTACH '{folder}/x.db'",
        "INSTALL httpfs",
        "FROM read_csv('https://example.com/x.csv')",
        "SET enable_external_access = true",
        "SET memory_limit = '8GB'",
        "RESET lock_configuration",
        "FROM duckdb_secrets()",
        "FROM folder",
    ):
        with pytest.raises(duckdb.Error) as told:
            con.execute(sql).fetchall()
        assert SECRET not in str(told.value)
    assert not (folder / "out.csv").exists()


def test_rows_come_with_their_columns_and_no_more_than_the_limit(box: SqlBox) -> None:
    found = json.loads(box.ask("SELECT range AS i, 1.50 AS price, NULL AS nothing FROM range(1000)", None))
    assert [c["name"] for c in found["columns"]] == ["i", "price", "nothing"]
    assert found["rows"][:1] == [[0, "1.50", None]]
    assert (len(found["rows"]), found["truncated"]) == (LIMITS.rows, True)


def test_an_integer_that_a_browser_cannot_hold_stays_exact(box: SqlBox) -> None:
    found = json.loads(box.ask("SELECT 9007199254740993 AS n, [9007199254740993] AS ns, 7 AS small", None))
    assert found["rows"] == [["9007199254740993", ["9007199254740993"], 7]]


def test_a_past_moment_is_asked_as_of_then(folder: Path, box: SqlBox) -> None:
    now = json.loads(box.ask("SELECT count(*) FROM orders", None))["rows"][0][0]
    past = json.loads(box.ask("SELECT count(*) FROM orders", "2026-11-24T12:00:30Z"))
    assert past["rows"][0][0] == now - 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1000000000000)",
        "SELECT max(repeat('x', 900000000)) FROM range(400)",
        "SELECT lake.position('2026-11-24 12:01' || CAST(range AS VARCHAR)[:0]) FROM range(1000000)",
    ],
)
def test_a_query_that_takes_too_much_is_ended_and_the_next_one_is_answered(sql: str, box: SqlBox) -> None:
    box.ask("SELECT 1", None)
    with pytest.raises(SqlError) as told:
        box.ask(sql, None)
    assert told.value.code == "sql_limit"
    assert json.loads(box.ask("SELECT 1 AS one", None))["rows"] == [[1]]


def test_memory_is_bounded_where_duckdb_bounds_it(box: SqlBox) -> None:
    with pytest.raises(SqlError) as told:
        box.ask("SELECT count(DISTINCT md5(CAST(range AS VARCHAR))) FROM range(60000000)", None)
    assert told.value.code == "sql_limit"


def test_what_was_asked_leaves_a_row_without_its_values(folder: Path) -> None:
    with client(folder) as (web, _):
        entered(web)
        assert web.post("/api/sql", json={"sql": "SELECT 'Jane Doe' AS name, 42 -- who"}).status_code == 200
        assert web.post("/api/sql", json={"sql": "DROP TABLE x", "by": "ann"}).status_code == 422
    session = open_session(folder / "cdc-lake.yaml")
    rows = session.connection.execute(
        'SELECT what, detail, "by", outcome FROM lake.audit ORDER BY recorded_at'
    ).fetchall()
    session.close()
    assert rows[0] == ("sql", "SELECT ? AS name, ?", "tests", "answered")
    assert rows[1][2:] == ("ann", "refused: Only a SELECT is run here.")


def test_values_are_left_out_of_sql_wherever_they_stand() -> None:
    sql = """SELECT "a 1", x1, 'it''s', $$b$$, 1.5e3, E'c\\'d' FROM t /* Jane */ WHERE k = 'Jane' -- Jane"""
    assert "Jane" not in without_values(sql)
    assert without_values("SELECT x FROM t  WHERE a = 'b'") == "SELECT x FROM t WHERE a = ?"


def test_the_process_that_runs_sql_ends_with_the_dashboard(folder: Path) -> None:
    box = SqlBox(load_config(folder / "cdc-lake.yaml"), LIMITS, lambda: 1)
    box.ask("SELECT 1", None)
    mine = {p.pid for p in psutil.Process().children(recursive=True) if "sql_worker" in " ".join(p.cmdline())}
    assert mine
    box.close()
    assert not any(psutil.pid_exists(pid) for pid in mine) or len(mine) > 1
