"""Rows of small tables are read in the thread that asks, and are those that delta-rs would read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, write_deltalake

from cdc_lake.land.reading import read_rows

PACKAGE = Path(__file__).parents[2] / "cdc_lake"
AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def table(tmp_path: Path) -> DeltaTable:
    """Three files, of which the first has a column less."""
    path = str(tmp_path / "a table")
    write_deltalake(path, pa.table({"n": [1, 2], "text": ["a", None]}))
    for n in (3, 5):
        rows = pa.table({"n": [n, n + 1], "text": ["ü", "b"], "at": [AT, None], "list": [["x", None], []]})
        write_deltalake(path, rows, mode="append", schema_mode="merge")
    return DeltaTable(path)


def test_rows_are_those_that_delta_rs_reads(table: DeltaTable) -> None:
    expected = table.to_pyarrow_table().sort_by("n")
    found = read_rows(table).sort_by("n")
    assert found.schema == expected.schema
    assert found.to_pylist() == expected.to_pylist()
    assert found["n"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_columns_and_rows_can_be_chosen(table: DeltaTable) -> None:
    found = read_rows(table, ["text"], ds.field("n") > 3)
    assert found.schema.names == ["text"]
    assert sorted(found["text"].to_pylist()) == ["b", "b", "ü"]
    assert read_rows(table, ["n"], ds.field("n") > 99).num_rows == 0


def test_nothing_reads_rows_on_threads_that_the_end_of_the_process_can_meet() -> None:
    # Rows on their way to a topic, a receiver or a service may be too many for one table, and the process goes on
    # behind them.
    allowed = {"land/reading.py", "react/stream/http.py", "react/stream/topic.py", "service/lake.py"}
    others = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if re.search(r"\bto_pyarrow_(table|dataset)\(|\bread_table\(", file.read_text())
    }
    assert others <= allowed
