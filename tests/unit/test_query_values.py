"""Results leave as JSON, CSV and Parquet with nothing rounded and nothing out of range."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_lake.query import formats
from cdc_lake.query.run import Result, run_sql
from cdc_lake.query.session import Session, open_session
from tests.lake_model import config


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    opened = open_session(config(tmp_path_factory.mktemp("empty")))
    yield opened
    opened.close()


def result(session: Session, query: str) -> Result:
    found = run_sql(session, query)
    assert found is not None
    return found


def as_json(session: Session, query: str) -> Any:
    out = io.StringIO()
    formats.write_json(result(session, query), out)
    return json.loads(out.getvalue())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("NULL", None),
        ("true", True),
        ("9007199254740993", 9007199254740993),
        ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
        ("1.10::DECIMAL(10,2)", "1.10"),
        ("'-0.00000000000000000000000000000000000001'::DECIMAL(38,38)", "-0.00000000000000000000000000000000000001"),
        ("0.1::DOUBLE", 0.1),
        ("'nan'::DOUBLE", "NaN"),
        ("'-inf'::FLOAT", "-Infinity"),
        ("'a\"b\n🛒'", 'a"b\n🛒'),
        ("'\\x00\\xFF'::BLOB", "AP8="),
        ("'10110'::BIT", "10110"),
        ("DATE '2026-11-24'", "2026-11-24"),
        ("DATE '0044-03-15 (BC)'", "-0043-03-15"),
        ("DATE '5874897-12-31'", "5874897-12-31"),
        ("'infinity'::DATE", "infinity"),
        ("TIME '23:59:59.999999'", "23:59:59.999999"),
        ("TIMESTAMP '2026-11-24 01:02:03'", "2026-11-24T01:02:03"),
        ("TIMESTAMP '1969-12-31 23:59:59.5'", "1969-12-31T23:59:59.500000"),
        ("'-infinity'::TIMESTAMP", "-infinity"),
        ("TIMESTAMPTZ '290000-01-01 00:00:00+00'", "290000-01-01T00:00:00+00:00"),
        ("TIMESTAMPTZ '2026-11-24 12:00:00+02'", "2026-11-24T10:00:00+00:00"),
        ("INTERVAL '14 months 3 days -1.5 seconds'", "P1Y2M3DT-1.5S"),
        ("INTERVAL '0 days'", "P0D"),
        ("'6f1c9e9c-0000-0000-0000-000000000007'::UUID", "6f1c9e9c-0000-0000-0000-000000000007"),
        ("'a'::ENUM('a', 'b')", "a"),
        ("[1.5::DECIMAL(4,2), NULL]", ["1.50", None]),
        ("[[DATE '2026-01-01'], NULL]", [["2026-01-01"], None]),
        ("{'x': 1, 'y': TIME '01:00:00'}", {"x": 1, "y": "01:00:00"}),
        ("MAP {1: 'a'}", {"1": "a"}),
    ],
)
def test_a_value_leaves_as_json_says_it(session: Session, sql: str, expected: object) -> None:
    assert as_json(session, f"SELECT {sql} AS v UNION ALL SELECT NULL") == [{"v": expected}, {"v": None}]


def test_json_goes_out_as_it_is(session: Session) -> None:
    out = io.StringIO()
    formats.write_json(result(session, """SELECT '{"a": 1.10, "b": 1e400}'::JSON AS v"""), out)
    assert out.getvalue() == '[{"v":{"a": 1.10, "b": 1e400}}]\n'


def test_no_rows_are_an_empty_list(session: Session) -> None:
    assert as_json(session, "SELECT 1 WHERE false") == []


def test_columns_of_one_name_are_told_apart(session: Session) -> None:
    assert as_json(session, "SELECT 1 AS id, 2 AS id, 3 AS id") == [{"id": 1, "id_1": 2, "id_2": 3}]


def test_csv_has_a_header_and_quotes_what_needs_it(session: Session) -> None:
    out = io.StringIO()
    formats.write_csv(result(session, "SELECT 1 AS a, 'x,\"y\"' AS b, NULL AS c, [1] AS d"), out)
    assert out.getvalue() == 'a,b,c,d\n1,"x,""y""",,[1]\n'


def test_parquet_is_read_back(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "r.parquet"
    with file.open("wb") as out:
        formats.write_parquet(result(session, "SELECT i, INTERVAL 1 DAY AS t, NULL AS n FROM range(5000) r(i)"), out)
    rows = duckdb.execute(f"SELECT count(*), sum(i), any_value(t), count(n) FROM '{file}'").fetchall()
    assert rows == [(5000, 12497500, "P1D", 0)]


@settings(deadline=None)
@given(st.datetimes(min_value=dt.datetime(1, 1, 1), max_value=dt.datetime(9999, 12, 31)))
def test_timestamps_are_those_of_python_where_python_has_them(session: Session, moment: dt.datetime) -> None:
    assert as_json(session, f"SELECT TIMESTAMP '{moment.isoformat(' ')}' AS v") == [{"v": moment.isoformat()}]
