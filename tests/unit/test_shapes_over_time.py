"""A table whose columns come, go, and change: rows of every shape are read together, as the source shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.events import TableId
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, Row, append_log, append_schemas, config, log_row, schema_row

T = TableId("public", "t")
INT, TEXT, LONG = "int32", "string", "int64"


def told(version: str, columns: list[dict[str, Any]], offset: int) -> Row:
    """What the catalogue said of the columns when `version` was seen."""
    row = schema_row(T, version, {}, (), offset)
    return {**row, "kind": "columns", "definition": json.dumps({"oid": 100, "columns": columns})}


def column(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "name": name, **more}


ID, A = column(1, "id"), column(2, "a")


class Lab:
    """A lake of one table, written by hand: shapes and events, in the order given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.offset = 0

    def shape(self, version: str, fields: dict[str, Any], columns: list[dict[str, Any]] | None) -> None:
        append_schemas(self.folder, [schema_row(T, version, fields, ("id",), self.offset)])
        if columns is not None:
            append_schemas(self.folder, [told(version, columns, self.offset)])

    def write(self, version: str, *rows: Row, op: str = "c") -> None:
        found = [
            log_row(T, op, self.offset + i, key={"id": row["id"]}, after=row, schema_id=version)
            for i, row in enumerate(rows)
        ]
        append_log(self.folder, T, found)
        self.offset += len(rows)

    def fold(self) -> None:
        assert [d.outcome for d in fold_source(Lake(str(self.folder / "lake")), SOURCE, lambda _: True)] == ["folded"]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        session = open_session(config(self.folder))
        try:
            return session.connection.execute(sql).fetchall()
        finally:
            session.close()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two rows of the first shape: id and a."""
    lab = Lab(tmp_path)
    lab.shape("v1", {"id": INT, "a": TEXT}, [ID, A])
    lab.write("v1", {"id": 1, "a": "one"}, {"id": 2, "a": "two"})
    return lab


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    ("kind", "default", "shown"),
    [
        (INT, ("7", "7"), 7),
        (TEXT, ('it\'s "so"', '"it\'s \\"so\\""'), 'it\'s "so"'),
        ({"type": "boolean"}, ("t", "true"), True),
        ({"type": "array", "items": {"type": INT, "optional": True}}, ("{1,NULL}", "[1,null]"), [1, None]),
        ({"type": "bytes"}, ("\\xdead", '"\\\\xdead"'), b"\xde\xad"),
    ],
)
def test_a_row_older_than_a_column_shows_what_the_source_shows_there(
    lab: Lab, folded: bool, kind: Any, default: tuple[str, str], shown: Any
) -> None:
    if folded:
        lab.fold()
    x = column(3, "x", missing=default[0], missing_json=default[1])
    lab.shape("v2", {"id": INT, "a": TEXT, "x": kind}, [ID, A, x])
    lab.write("v2", {"id": 2, "a": "two", "x": None}, op="u")
    expected = [(1, "one", shown), (2, "two", None)]
    assert lab.ask("SELECT * FROM t ORDER BY id") == expected
    assert lab.ask("SELECT id, a, x FROM history.public.t WHERE __valid_to IS NULL ORDER BY id") == expected
    lab.fold()
    assert lab.ask("SELECT * FROM t ORDER BY id") == expected


def test_a_column_without_a_default_is_null_in_older_rows_and_nothing_is_unsure(lab: Lab) -> None:
    lab.shape("v2", {"id": INT, "a": TEXT, "x": INT}, [ID, A, column(3, "x")])
    lab.write("v2", {"id": 3, "a": "three", "x": 3})
    assert lab.ask("SELECT id, x FROM t ORDER BY id") == [(1, None), (2, None), (3, 3)]
    assert lab.ask("SELECT unsure_columns FROM lake.tables") == [([],)]


@pytest.mark.parametrize("columns", [[ID, A, column(3, "x", unsure=True)], None])
def test_a_value_that_nothing_tells_is_said_to_be_unsure(lab: Lab, columns: Any) -> None:
    lab.shape("v2", {"id": INT, "a": TEXT, "x": INT}, columns)
    lab.write("v2", {"id": 3, "a": "three", "x": 3})
    assert lab.ask("SELECT unsure_columns FROM lake.tables") == [(["x"],)]


@pytest.mark.parametrize("folded", [False, True])
def test_a_renamed_column_keeps_its_values(lab: Lab, folded: bool) -> None:
    if folded:
        lab.fold()
    lab.shape("v2", {"id": INT, "b": TEXT}, [ID, column(2, "b")])
    lab.write("v2", {"id": 3, "b": "three"})
    expected = [(1, "one"), (2, "two"), (3, "three")]
    assert lab.ask("SELECT id, b FROM t ORDER BY id") == expected
    assert lab.ask("SELECT id, b FROM history.public.t ORDER BY id") == expected
    lab.fold()
    assert lab.ask("SELECT id, b FROM t ORDER BY id") == expected


def test_a_rename_is_seen_also_when_the_catalogue_was_asked_only_afterwards(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    now = [ID, column(4, "c"), column(5, "x")]
    lab.shape("v1", {"id": INT, "a": TEXT, "gone": INT, "b": TEXT}, now)
    lab.write("v1", {"id": 1, "a": "dropped", "gone": 1, "b": "kept"})
    lab.shape("v2", {"id": INT, "a": TEXT, "gone": INT, "b": TEXT, "x": INT}, now)
    lab.write("v2", {"id": 2, "a": "dropped", "gone": 2, "b": "kept too", "x": 2})
    lab.shape("v3", {"id": INT, "c": TEXT, "x": INT}, now)
    lab.write("v3", {"id": 3, "c": "new", "x": 3})
    assert lab.ask("SELECT id, c, x FROM t ORDER BY id") == [(1, "kept", None), (2, "kept too", 2), (3, "new", 3)]


@pytest.mark.parametrize("folded", [False, True])
def test_a_column_dropped_and_added_again_forgets_its_old_values(lab: Lab, folded: bool) -> None:
    if folded:
        lab.fold()
    lab.shape("v2", {"id": INT, "a": INT}, [ID, column(3, "a", missing="9", missing_json="9")])
    lab.write("v2", {"id": 3, "a": 3})
    assert lab.ask("SELECT id, a FROM t ORDER BY id") == [(1, 9), (2, 9), (3, 3)]


@pytest.mark.parametrize("folded", [False, True])
def test_a_dropped_column_is_gone_from_the_tables_and_stays_in_the_log(lab: Lab, folded: bool) -> None:
    if folded:
        lab.fold()
    lab.shape("v2", {"id": INT}, [ID])
    lab.write("v2", {"id": 3})
    assert lab.ask("SELECT * FROM t ORDER BY id") == [(1,), (2,), (3,)]
    assert lab.ask("SELECT __after->>'a' FROM changes.public.t ORDER BY __offset") == [("one",), ("two",), (None,)]


@pytest.mark.parametrize("folded", [False, True])
def test_a_value_that_does_not_fit_the_new_type_is_kept_as_it_arrived_and_reported(lab: Lab, folded: bool) -> None:
    lab.write("v1", {"id": 4, "a": "44"})
    if folded:
        lab.fold()
    lab.shape("v2", {"id": INT, "a": INT}, [ID, A])
    lab.write("v2", {"id": 3, "a": 3})
    assert lab.ask("SELECT id, a FROM t ORDER BY id") == [(1, None), (2, None), (3, 3), (4, 44)]
    shown = [(1, None, '{"a":"one"}'), (2, None, '{"a":"two"}'), (3, 3, None), (4, 44, None)]
    assert lab.ask("SELECT id, a, __unread FROM history.public.t ORDER BY id") == shown
    assert lab.ask("SELECT id, a, __unread FROM changes.public.t ORDER BY id") == shown
    assert lab.ask("SELECT converted_columns FROM lake.tables") == [(["a"],)]


@pytest.mark.parametrize("folded", [False, True])
def test_a_widened_column_keeps_every_value_and_is_no_conversion(lab: Lab, folded: bool) -> None:
    lab.shape("v2", {"id": INT, "a": TEXT, "n": INT}, [ID, A, column(3, "n")])
    lab.write("v2", {"id": 3, "a": "three", "n": 2**31 - 1})
    if folded:
        lab.fold()
    lab.shape("v3", {"id": INT, "a": TEXT, "n": LONG}, [ID, A, column(3, "n")])
    lab.write("v3", {"id": 4, "a": "four", "n": 2**40})
    assert lab.ask("SELECT id, n FROM t ORDER BY id") == [(1, None), (2, None), (3, 2**31 - 1), (4, 2**40)]
    assert lab.ask("SELECT converted_columns FROM lake.tables") == [([],)]


def test_a_truncate_without_a_key_does_not_take_the_key_from_the_table(lab: Lab) -> None:
    fields = {"id": INT, "a": TEXT}
    append_schemas(lab.folder, [schema_row(T, "bare", fields, (), lab.offset)])
    append_log(lab.folder, T, [log_row(T, "t", lab.offset, schema_id="bare")])
    lab.offset += 1
    assert lab.ask("SELECT * FROM t") == []
    assert lab.ask("SELECT key FROM lake.tables") == [(["id"],)]
