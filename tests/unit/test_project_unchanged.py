"""A value that an update leaves out is the last one known; text that only looks like the mark is the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest

from cdc_lake.events import TableId
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import prepare, read_source
from tests.lake_model import FIELDS, PLACEHOLDER, SOURCE, Feed, append_log, append_schemas, log_row, schema_row, text

T = TableId("public", "t")
LONG = "a long text"


def shown(folder: Path) -> list[tuple[object, ...]]:
    """id, qty, note, and the names of unknown columns."""
    con = duckdb.connect()
    prepare(con)
    state = read_source(con, Lake(str(folder / "lake")), SOURCE, lambda _table: True)
    view = state.view(con, state.tables[0], "settled")
    return sorted((r[0], r[1], r[2], r[4]) for r in con.execute(keyed_sql(view)).fetchall())


def fold(folder: Path) -> None:
    assert [d.outcome for d in fold_source(Lake(str(folder / "lake")), SOURCE, lambda _table: True)] == ["folded"]


def events(folder: Path, *rows: tuple[str, dict[str, object] | None, Mapping[str, object]], first: int = 0) -> None:
    """Rows (op, after, key) without a transaction, in one partition."""
    append_log(
        folder,
        T,
        [log_row(T, op, first + i, key=key, after=after, schema_id="s") for i, (op, after, key) in enumerate(rows)],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    append_schemas(tmp_path, [schema_row(T, "s", FIELDS, ("id",))])
    return tmp_path


def row(qty: int, note: str | None, key: int = 1) -> dict[str, object]:
    return {"id": key, "qty": qty, "note": note}


KEY = {"id": 1}


@pytest.mark.parametrize("folded", [False, True])
def test_the_value_comes_from_the_base_or_from_earlier_in_the_tail(folder: Path, folded: bool) -> None:
    events(folder, ("r", row(1, LONG), KEY))
    if folded:
        fold(folder)
    events(folder, ("u", row(2, PLACEHOLDER), KEY), ("u", row(3, PLACEHOLDER), KEY), first=1)

    assert shown(folder) == [(1, 3, LONG, [])]
    fold(folder)
    assert shown(folder) == [(1, 3, LONG, [])]


def test_a_value_that_became_null_stays_null(folder: Path) -> None:
    events(folder, ("r", row(1, LONG), KEY), ("u", row(2, None), KEY), ("u", row(3, PLACEHOLDER), KEY))

    assert shown(folder) == [(1, 3, None, [])]


def test_a_value_the_log_never_saw_is_null_and_said_to_be_unknown(folder: Path) -> None:
    events(folder, ("u", row(2, PLACEHOLDER), KEY))

    assert shown(folder) == [(1, 2, None, ["note"])]
    fold(folder)
    assert shown(folder) == [(1, 2, None, ["note"])]
    events(folder, ("u", row(3, PLACEHOLDER), KEY), first=1)
    assert shown(folder) == [(1, 3, None, ["note"])]
    events(folder, ("u", row(4, LONG), KEY), first=2)
    assert shown(folder) == [(1, 4, LONG, [])]


def test_a_value_of_a_row_that_died_does_not_come_back_with_its_key(folder: Path) -> None:
    events(folder, ("r", row(1, LONG), KEY))
    fold(folder)
    events(folder, ("d", None, KEY), ("c", row(2, "new"), KEY), ("u", row(3, PLACEHOLDER), KEY), first=1)

    assert shown(folder) == [(1, 3, "new", [])]


@pytest.mark.parametrize("op", ["c", "r"])
def test_a_user_may_store_the_very_text_of_the_mark(folder: Path, op: str) -> None:
    events(folder, (op, row(1, PLACEHOLDER), KEY))

    assert shown(folder) == [(1, 1, PLACEHOLDER, [])]
    fold(folder)
    events(folder, ("u", row(2, PLACEHOLDER), KEY), first=1)
    assert shown(folder) == [(1, 2, PLACEHOLDER, [])]


def test_an_update_with_the_whole_old_row_leaves_nothing_out(folder: Path) -> None:
    events(folder, ("r", row(1, LONG), KEY))
    update = log_row(T, "u", 1, key=KEY, before=row(1, LONG), after=row(2, PLACEHOLDER), schema_id="s")
    append_log(folder, T, [update])

    assert shown(folder) == [(1, 2, PLACEHOLDER, [])]


@pytest.mark.parametrize("folded", [False, True])
def test_the_value_travels_with_a_key_change(folder: Path, folded: bool) -> None:
    events(folder, ("r", row(1, LONG), KEY))
    if folded:
        fold(folder)
    moved = {"id": 2}
    append_log(
        folder,
        T,
        [
            log_row(T, "d", 1, key=KEY, headers={"__debezium.newkey": text(moved) or ""}, schema_id="s"),
            log_row(
                T,
                "c",
                2,
                key=moved,
                after=row(1, PLACEHOLDER, 2),
                headers={"__debezium.oldkey": text(KEY) or ""},
                schema_id="s",
            ),
            log_row(T, "u", 3, key=moved, after=row(5, PLACEHOLDER, 2), schema_id="s"),
        ],
    )

    assert shown(folder) == [(2, 5, LONG, [])]
    fold(folder)
    assert shown(folder) == [(2, 5, LONG, [])]


def test_a_swap_of_two_keys_keeps_both_rows_and_their_values(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (T,))
    tx = feed.begin()
    tx.insert(T, 1, 1, "text of one")
    tx.insert(T, 2, 2, "text of two")
    tx.commit()
    feed.land()
    fold(tmp_path)
    tx = feed.begin()
    tx.move(T, [(1, 2), (2, 1)])
    tx.commit()
    feed.land()

    assert shown(tmp_path) == [(1, 2, "text of two", []), (2, 1, "text of one", [])]
