"""A model that is wrong, or could not be kept up incrementally, is refused before it runs, with a way out."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cdc_lake.errors import CdcLakeError
from cdc_lake.query.placed import Log, open_logs
from cdc_lake.react.run import open_connection
from cdc_lake.react.stream.modelfile import ModelError, load_model
from cdc_lake.react.stream.shape import Shape, check
from tests.lake_model import Feed, config
from tests.unit.test_rules_model import SALES, STOCK

W = "-- window: tumbling 1 hour\n"
NOT_INCREMENTAL = {
    "an aggregate without a window": "SELECT id, count(*) AS n FROM changes.sales GROUP BY id",
    "an order": "SELECT id FROM changes.sales ORDER BY id",
    "a limit": "SELECT id FROM changes.sales LIMIT 3",
    "distinct": "SELECT DISTINCT id FROM changes.sales",
    "the clock": "SELECT id FROM changes.sales WHERE __source_ts > now() - INTERVAL 1 HOUR",
    "the date": "SELECT id, current_date AS d FROM changes.sales",
    "chance": "SELECT id FROM changes.sales WHERE random() < 0.5",
    "a subquery": "SELECT id FROM changes.sales WHERE id IN (SELECT id FROM current.stock)",
    "a window function": "SELECT id, row_number() OVER () AS n FROM changes.sales",
    "several queries": "SELECT id FROM changes.sales UNION ALL SELECT id FROM changes.stock",
    "a with": "WITH a AS (SELECT id FROM changes.sales) SELECT id FROM a",
    "a star": "SELECT * FROM changes.sales",
    "a full join": "SELECT s.id FROM changes.sales s FULL JOIN current.stock k ON s.id = k.id",
    "using": "SELECT s.id FROM changes.sales s JOIN current.stock k USING (id)",
    "a join without a span": "SELECT s.id FROM changes.sales s JOIN changes.stock k ON s.id = k.id",
    "history": "SELECT id FROM history.sales",
    "a median": W + "SELECT window_start, median(qty) AS m FROM changes.sales GROUP BY window_start",
    "inexact sums": W + "SELECT window_start, sum(qty / 3) AS m FROM changes.sales GROUP BY window_start",
}
WRONG = {
    "no select": ("SELEC id FROM changes.sales", "1: it is no SELECT"),
    "two statements": ("SELECT id FROM changes.sales; SELECT id FROM changes.sales", "2 statements"),
    "an unknown table": ("SELECT id\nFROM changes.salles", "2: There is no table salles"),
    "an unknown column": ("SELECT qti FROM changes.sales", "no column qti"),
    "no stream": ("SELECT id FROM current.sales", "begins with the table sales"),
    "no name": ("SELECT qty + 1 FROM changes.sales", "has no name of its own"),
    "one name twice": ("SELECT id, qty AS id FROM changes.sales", "two of its columns are called id"),
    "our own names": ("SELECT __op FROM changes.sales", "begins with __"),
    "an unknown key": ("-- windows: tumbling 1 hour\nSELECT id FROM changes.sales", "1: `windows`"),
    "a bad window": ("--\n-- window: hopping 1 hour\nSELECT id FROM changes.sales", "2: `window`"),
    "a window that is not used": (W + "SELECT id FROM changes.sales", "does not group by"),
    "a window in WHERE": (
        W + "SELECT window_start, count(*) AS n FROM changes.sales WHERE window_start > '2026-01-01' GROUP BY 1",
        "WHERE names the window",
    ),
    "no time": ("-- time: qty\nSELECT id FROM changes.sales", "no time"),
    "the time of nothing": ("-- time x: __source_ts\nSELECT id FROM changes.sales", "of no stream"),
    "a span for one": ("-- within: 1 hour\nSELECT id FROM changes.sales", "only one stream"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    feed = Feed(folder, (SALES, STOCK))
    tx = feed.begin()
    for table in (SALES, STOCK):
        tx.insert(table, 1, 1, None)
    tx.commit()
    feed.land()
    return folder


@pytest.fixture(scope="module")
def lake(folder: Path) -> tuple[duckdb.DuckDBPyConnection, list[Log]]:
    con = open_connection()
    return con, open_logs(con, config(folder))


def checked(lake: tuple[duckdb.DuckDBPyConnection, list[Log]], folder: Path, text: str) -> Shape:
    file = folder / "it.sql"
    file.write_text(text)
    return check(lake[0], load_model(file), lake[1])


@pytest.mark.parametrize("name", NOT_INCREMENTAL)
def test_what_cannot_be_kept_up_is_refused(
    lake: tuple[duckdb.DuckDBPyConnection, list[Log]], folder: Path, name: str
) -> None:
    with pytest.raises(ModelError) as stop:
        checked(lake, folder, NOT_INCREMENTAL[name])
    assert stop.value.code == "model_not_incremental"
    assert stop.value.why
    assert stop.value.next.endswith("cdc-lake stream check it")


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(lake: tuple[duckdb.DuckDBPyConnection, list[Log]], folder: Path, name: str) -> None:
    text, words = WRONG[name]
    with pytest.raises(CdcLakeError) as stop:
        checked(lake, folder, text)
    assert stop.value.code == "model"
    assert words in stop.value.message


def test_a_model_is_another_one_when_its_rows_may_be_others(
    lake: tuple[duckdb.DuckDBPyConnection, list[Log]], folder: Path
) -> None:
    text = W + "-- lateness: 1 minute\nSELECT id, window_start, sum(qty) AS n FROM changes.sales GROUP BY ALL"
    first = checked(lake, folder, text).fingerprint
    same = "-- Sales.\n-- start: now\n" + text.replace("SELECT", "SELECT\n ")
    assert checked(lake, folder, same).fingerprint == first
    for old, new in (("1 hour", "2 hours"), ("1 minute", "2 minutes"), ("sum(qty)", "max(qty)"), ("id, ", "")):
        assert checked(lake, folder, text.replace(old, new)).fingerprint != first, new
