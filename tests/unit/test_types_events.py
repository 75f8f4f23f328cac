"""Events recorded from the real connector (tests/integration/test_types.py) read as the source printed the values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc_lake.project.limits import unchanged_as_null, unsent
from cdc_lake.project.pgtypes import parse_type
from tests.type_cases import CASES, Case
from tests.type_reading import column_of, is_unchanged, printed_and_lossy, read, schemas

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "type_events.json").read_text(encoding="utf-8")
)
SETTINGS: dict[str, str] = RECORDED["settings"]
PLACEHOLDER = SETTINGS["unavailable.value.placeholder"]
# Bytes of a user's type: the wire cannot tell a domain over bytea from a composite.
UNTOLD = ("connect", "blob")


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.type)
def test_a_value_reads_as_the_source_prints_it(case: Case, engine: duckdb.DuckDBPyConnection) -> None:
    event = RECORDED["values"][case.type]
    for origin, schema in schemas(event, SETTINGS).items():
        column = column_of(schema)
        assert (column is not None) == case.sent
        if column is None or (origin, case.type) == UNTOLD:
            continue
        for phase, lost in (("snapshot", {*case.lost, *case.lost_in_snapshot}), ("stream", set(case.lost))):
            for i, (printed, lossy, type_) in enumerate(printed_and_lossy(engine, schema, column, event[phase])):
                assert type_ == column.lake_type
                assert (printed == event["printed"][i]) == (i not in lost), (origin, phase, i, printed)
                assert not lossy or i in lost


@pytest.mark.parametrize("case", [c for c in CASES if not c.sent], ids=lambda c: c.type)
def test_a_column_that_never_arrives_is_left_out_with_its_reason(case: Case) -> None:
    entry = {"columns": [RECORDED["values"][case.type]["column"]]}
    assert "cannot write" in unsent(entry)["v"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.type)
def test_both_schemas_show_a_column_in_the_same_type(case: Case) -> None:
    found = {origin: column_of(s) for origin, s in schemas(RECORDED["values"][case.type], SETTINGS).items()}
    assert len({c.lake_type if c else None for c in found.values()}) == 1


@pytest.mark.parametrize("type_", RECORDED["large"])
def test_an_unchanged_large_value_is_recognised_or_known_to_arrive_as_null(
    type_: str, engine: duckdb.DuckDBPyConnection
) -> None:
    event = RECORDED["large"][type_]
    for schema in schemas(event, SETTINGS).values():
        column = column_of(schema)
        assert column is not None
        answer = is_unchanged(engine, schema, column, [event["unchanged"]], PLACEHOLDER)
        if unchanged_as_null(parse_type(column.source_type)):
            assert event["unchanged"] is None
            assert not any(answer or ())
        else:
            assert answer == [True]


@pytest.mark.parametrize("case", [c for c in CASES if c.sent], ids=lambda c: c.type)
def test_an_ordinary_value_or_null_is_never_taken_for_unchanged(case: Case, engine: duckdb.DuckDBPyConnection) -> None:
    event = RECORDED["values"][case.type]
    for schema in schemas(event, SETTINGS).values():
        column = column_of(schema)
        assert column is not None
        assert not any(is_unchanged(engine, schema, column, [*event["stream"], None], PLACEHOLDER) or ())


@pytest.mark.parametrize("case", [c for c in CASES if c.sent], ids=lambda c: c.type)
def test_null_reads_as_null_and_loses_nothing(case: Case, engine: duckdb.DuckDBPyConnection) -> None:
    for schema in schemas(RECORDED["values"][case.type], SETTINGS).values():
        column = column_of(schema)
        assert column is not None
        assert read(engine, schema, column, [None], "{typed} IS NULL") == [True]
        assert printed_and_lossy(engine, schema, column, [None])[0][:2] == (None, False)
