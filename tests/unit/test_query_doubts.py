"""What no event told of a table is shown by `tables` and `doctor`, with the command that settles it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from cdc_lake.checks import Status
from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.events import TableId
from cdc_lake.query.check_doubts import check_columns_told, check_source_tables
from cdc_lake.query.doubts import Doubts, read_doubts
from cdc_lake.query.overview import examine_sources, table_rows
from cdc_lake.query.session import read_sources
from tests.lake_model import _START, SOURCE, append_log, append_schemas, config, log_row, schema_row
from tests.unit.test_shapes_over_time import ID, INT, TEXT, A, Lab, T, column, told

UNSURE = column(3, "x", unsure=True)
MEND = "cdc-lake verify --repair public.t"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two rows of a first shape."""
    lab = Lab(tmp_path)
    lab.shape("v1", {"id": INT, "a": TEXT}, [ID, A])
    lab.write("v1", {"id": 1, "a": "1"}, {"id": 2, "a": "2"})
    return lab


def doubts(lab: Lab) -> Doubts:
    con = duckdb.connect()
    try:
        ((table,),) = [s.tables for s in read_sources(con, config(lab.folder))]
        return read_doubts(con, table)
    finally:
        con.close()


def grow(lab: Lab) -> None:
    lab.shape("v2", {"id": INT, "a": INT, "x": INT}, [ID, A, UNSURE])
    lab.write("v2", {"id": 3, "a": 3, "x": 3})


def test_a_table_whose_rows_were_all_told_is_in_no_doubt(lab: Lab) -> None:
    assert doubts(lab) == Doubts(oid=100)
    assert not doubts(lab).open


def test_columns_that_no_event_told_are_in_doubt_until_a_repair(lab: Lab) -> None:
    def repaired(minutes: int) -> None:
        row = log_row(T, "r", minutes, key={"id": 1}, after={"id": 1, "a": 1, "x": 9}, schema_id="v2")
        when = _START + timedelta(minutes=minutes)
        append_log(lab.folder, T, [{**row, "__tx_order": 1, "__ingested_at": when, "__topic": "pos:repair"}])

    repaired(-1)
    grow(lab)
    found = doubts(lab)
    assert (found.unsure, found.converted, found.open) == (("x",), ("a",), True)
    repaired(9)
    found = doubts(lab)
    assert (found.unsure, found.converted, found.open, found.words) == (("x",), ("a",), False, "")


def test_a_table_that_was_made_anew_with_the_same_columns_is_in_doubt(lab: Lab) -> None:
    later = told("v1", [ID, A], 5)
    append_schemas(lab.folder, [{**later, "definition": later["definition"].replace("100", "101")}])
    found = doubts(lab)
    assert (found.recreated, found.oid, found.open) == (True, 101, True)
    assert found.words == "dropped and made anew in the source"


def test_tables_shows_each_doubt_and_the_next_command(
    lab: Lab, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[str, str]:
        with pytest.raises(SystemExit):
            cli.main(list(arguments))
        found = capfd.readouterr()
        return found.out, found.err

    monkeypatch.chdir(lab.folder)
    (before,) = json.loads(run("tables", "--json")[0])["tables"]
    grow(lab)
    (after,) = json.loads(run("tables", "--json")[0])["tables"]
    out, err = run("tables")
    output.configure(config=None, as_json=False, verbosity=0)

    assert (before["unsure_columns"], before["converted_columns"], before["next"], before["note"]) == (
        [],
        [],
        None,
        None,
    )
    assert (after["unsure_columns"], after["converted_columns"], after["next"]) == (["x"], ["a"], MEND)
    assert "no event tells" in " ".join(out.split())
    assert err == f"Next: {MEND}\n"


def test_a_table_that_got_a_key_or_whose_older_rows_do_not_tell_it_is_in_doubt(lab: Lab) -> None:
    append_schemas(lab.folder, [schema_row(T, "v2", {"id": INT, "a": TEXT}, (), 2)])
    append_log(lab.folder, T, [log_row(T, "t", 2, schema_id="v2")])
    assert not doubts(lab).rekeyed, "a truncate has no key"
    append_log(lab.folder, T, [log_row(T, "c", 3, after={"id": 3, "a": "3"}, schema_id="v2")])
    found = doubts(lab)
    assert (found.rekeyed, found.open, found.words) == (True, True, "older rows do not tell its key of today")
    check = check_columns_told({"public.t": found})
    assert (check.status, check.found) == (Status.WARN, "older rows do not tell the key of public.t")


def test_a_key_that_older_rows_do_not_have_is_in_doubt(lab: Lab) -> None:
    append_schemas(lab.folder, [schema_row(T, "v2", {"id": INT, "a": TEXT, "number": INT}, ("number",), 2)])
    row = {"id": 3, "a": "3", "number": 1}
    append_log(lab.folder, T, [log_row(T, "c", 2, key={"number": 1}, after=row, schema_id="v2")])
    assert doubts(lab).rekeyed


@pytest.mark.parametrize(
    ("there", "note", "command"),
    [
        (None, None, None),
        ({T: 100}, None, None),
        ({}, "no longer in the source: its last rows are shown", None),
        ({T: 101}, "dropped and made anew in the source", MEND),
    ],
)
def test_tables_says_when_the_source_has_a_table_no_longer_or_made_it_anew(
    lab: Lab, there: dict[TableId, int] | None, note: str | None, command: str | None
) -> None:
    (row,) = table_rows(config(lab.folder), lambda source, tables: there if (source, tables) == (SOURCE, [T]) else None)
    assert (row["note"], row["next"], row["gone"]) == (note, command, there == {})


def test_doctor_warns_of_columns_in_doubt_and_says_how_to_settle_them(lab: Lab) -> None:
    assert check_columns_told({"public.t": doubts(lab)}).status is Status.OK
    grow(lab)
    (found,) = examine_sources(config(lab.folder)).values()
    check = check_columns_told({str(t): d for t, d in found.doubts.items()})
    assert (check.status, check.found) == (Status.WARN, "older rows may show another value in public.t.x, public.t.a")
    assert MEND in check.fix


@pytest.mark.parametrize(
    ("doubt", "present", "captured", "words", "fix"),
    [
        (Doubts(oid=7), {"public.t": 7}, {"public.t"}, "", ""),
        (Doubts(), {}, {"public.t"}, "", ""),
        (Doubts(), {"public.t": 7}, {"public.t"}, "", ""),
        (Doubts(oid=7), {}, set[str](), "", ""),
        (Doubts(recreated=True, oid=7, repaired=True), {"public.t": 7}, {"public.t"}, "", ""),
        (Doubts(oid=7), {}, {"public.t"}, "no longer in the source: public.t", "exclude: true"),
        (Doubts(oid=7), {"public.t": 8}, {"public.t"}, "made anew in the source: public.t", MEND),
        (Doubts(recreated=True, oid=7), {"public.t": 7}, {"public.t"}, "made anew in the source: public.t", MEND),
    ],
)
def test_doctor_warns_of_a_table_that_is_gone_or_another_one(
    doubt: Doubts, present: dict[str, int], captured: set[str], words: str, fix: str
) -> None:
    check = check_source_tables({"public.t": doubt}, present, captured)
    assert check.status is (Status.WARN if words else Status.OK)
    assert words in check.found
    assert fix in check.fix


def test_an_empty_lake_is_examined(tmp_path: Path) -> None:
    (found,) = examine_sources(config(tmp_path)).values()
    assert (found.cut["position"], found.doubts) == (0, {})
