"""A folded history and what has come since show what the whole log shows, wherever folds fall and whatever comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import history_path
from cdc_lake.land.tables import REPAIR_OFFSETS, repair_topic
from cdc_lake.maintain.plan import CHECKPOINT, VACUUM, Step
from cdc_lake.maintain.work import do
from cdc_lake.project import rules
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.history_base import CLOSED, OPEN, PART, PATCH
from cdc_lake.project.history_fold import HistoryFold, clear_history, unfolded_history
from cdc_lake.project.history_tail import find_behind
from cdc_lake.project.history_writing import Fresh
from cdc_lake.project.lake import Lake
from cdc_lake.project.segments import segments_of
from cdc_lake.project.snapshot import SourceState, TableState, prepare, read_source
from cdc_lake.query.history_views import history_query, history_view, open_history
from cdc_lake.retain.policy import Policy
from cdc_lake.retain.run import DONE, Job, retain
from tests.lake_model import (
    FIELDS,
    SOURCE,
    Feed,
    Transaction,
    append_ends,
    append_log,
    append_schemas,
    end_row,
    log_row,
    schema_row,
)
from tests.unit.test_project_fold import fold_until_killed
from tests.unit.test_project_fold_types import SENT, T
from tests.unit.test_project_model import BAG, A, B

Lines = list[tuple[Any, ...]]


def lake(folder: Path) -> Lake:
    return Lake(str(folder / "lake"))


def fold(folder: Path, wanted: list[TableId] | None = None) -> None:
    for done in fold_source(lake(folder), SOURCE, lambda _table: True, wanted):
        assert done.error is None, done.error.why


def opened(folder: Path) -> tuple[duckdb.DuckDBPyConnection, SourceState]:
    con = duckdb.connect()
    prepare(con)
    return con, read_source(con, lake(folder), SOURCE, lambda _table: True)


def goes_on(con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState) -> bool | None:
    """Whether the folded history of a table counts; None when there is none."""
    found = state.lake.open(history_path(state.lake.root, SOURCE, table.table))
    return None if found is None else find_behind(con, state, table, found, "lake.internal.asked") is not None


def folded_query(con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState, number: int) -> str:
    return history_query(con, state, table, open_history(state, table), f"lake.internal.history_{number}")


def rows(con: duckdb.DuckDBPyConnection, query: str) -> Lines:
    return sorted(con.execute(f"SELECT * FROM ({query})").fetchall(), key=repr)


def check(folder: Path, said: str) -> Counter[bool | None]:
    """Every table's history is that of its log, in all its columns; how many came from a fold, and how many did not."""
    con, state = opened(folder)
    found: Counter[bool | None] = Counter()
    for number, table in enumerate(state.tables):
        whole = rows(con, history_view(state, table, renaming=state.renaming(con, table)))
        shown = rows(con, folded_query(con, state, table, number))
        if shown != whole:
            extra = [r for r in shown if r not in whole]
            missing = [r for r in whole if r not in shown]
            twice = [r for r in set(map(repr, shown)) if [*map(repr, shown)].count(r) != [*map(repr, whole)].count(r)]
            pytest.fail(f"{said}, {table.table}: missing {missing}, extra {extra}, as often {twice}")
        found[goes_on(con, state, table)] += 1
    con.close()
    return found


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Two tables, folded, each with a row that was moved, one that was deleted and one that has a long text."""
    monkeypatch.setattr(rules, "_FILE_ROWS", 2)
    feed = Feed(tmp_path, (A, B))
    for table in (A, B):
        tx = feed.begin()
        for key in range(6):
            tx.insert(table, key, key, "long text")
        tx.commit()
        tx = feed.begin()
        tx.move(table, [(1, 11), (2, 3), (3, 2)])
        tx.delete(table, 5)
        tx.commit()
    feed.land()
    fold(tmp_path)
    return feed


def change(feed: Feed, table: TableId = A) -> None:
    tx = feed.begin()
    tx.update(table, 0, 100)
    tx.move(table, [(11, 12)])
    tx.insert(table, 5, 55, None)
    tx.commit()


def counts(feed: Feed, table: TableId = A) -> bool | None:
    """Whether the folded history of a table is gone on with; its history is compared in any case."""
    check(feed.folder, "as it is")
    con, state = opened(feed.folder)
    found = goes_on(con, state, next(t for t in state.tables if t.table == table))
    con.close()
    return found


def table_of(feed: Feed, table: TableId = A) -> DeltaTable:
    return DeltaTable(history_path(lake(feed.folder).root, SOURCE, table))


def parts(feed: Feed) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for segment in segments_of(table_of(feed)):
        found.setdefault(str(segment.partition[PART]), []).append(segment.name)
    return found


def test_a_tail_is_read_behind_the_fold_and_folded_with_it(feed: Feed) -> None:
    change(feed)
    feed.land()
    assert counts(feed)
    fold(feed.folder)
    assert counts(feed)
    assert table_of(feed).version() == 1


def test_a_fold_writes_nothing_where_nothing_has_come(feed: Feed) -> None:
    change(feed, B)
    feed.land()
    fold(feed.folder)
    assert (table_of(feed).version(), table_of(feed, B).version()) == (0, 1)
    assert counts(feed)


def test_lines_that_ended_are_written_once(feed: Feed) -> None:
    before = parts(feed)[CLOSED]
    change(feed)
    feed.land()
    fold(feed.folder)
    assert set(before) < set(parts(feed)[CLOSED])


def test_small_files_do_not_pile_up(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_FILE_ROWS", 10)
    for _ in range(20):
        tx = feed.begin()
        tx.update(A, 0, 1)
        tx.commit()
        feed.land()
        fold(feed.folder)
    assert {part: len(names) <= 12 for part, names in parts(feed).items()} == {CLOSED: True, OPEN: True}
    assert counts(feed)


def test_changes_all_over_the_table_leave_its_open_files_alone(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FEW_ROWS", "_TIMES", "_PATCH_SHARE"):
        monkeypatch.setattr(rules, name, 0)
    before = parts(feed)[OPEN]
    for _ in range(3):
        change(feed)
        tx = feed.begin()
        tx.delete(A, 5)
        tx.move(A, [(12, 11)])
        tx.commit()
        feed.land()
        fold(feed.folder)
        assert counts(feed)
    assert parts(feed)[OPEN] == before
    assert len(parts(feed)[PATCH]) == 1


def test_a_snapshot_behind_the_fold_is_read_from_the_log_until_the_history_is_made_anew(feed: Feed) -> None:
    feed.snapshot(A)
    feed.land()
    assert (counts(feed), counts(feed, B)) == (False, True)
    fold(feed.folder)
    assert counts(feed)


def test_a_repair_behind_the_fold_is_read_from_the_log_until_the_history_is_made_anew(feed: Feed) -> None:
    row = log_row(A, "r", 0, key={"id": 0}, after={"id": 0, "qty": 7, "note": "x"}, schema_id=f"s-{A}")
    own = {"__topic": repair_topic(SOURCE), "__offset": REPAIR_OFFSETS, "__snapshot": "repair"}
    con, state = opened(feed.folder)
    con.close()
    append_log(feed.folder, A, [{**row, **own, "__tx_order": state.cut.position}])
    assert not counts(feed)
    fold(feed.folder)
    assert counts(feed)


def test_a_row_of_a_folded_transaction_that_comes_late_is_shown(feed: Feed) -> None:
    """It was missing when the fold was made, as after a letter that was dropped; a row that comes again is not late."""
    feed.redeliver(2)
    feed.land()
    assert counts(feed)
    late = log_row(A, "u", 0, key={"id": 0}, after={"id": 0, "qty": 7, "note": "x"}, tx=("00002", 99))
    feed.place(A, late)
    feed.land()
    assert not counts(feed)
    fold(feed.folder)
    assert counts(feed)


def test_another_shape_is_read_from_the_log_until_the_history_is_made_anew(feed: Feed) -> None:
    fields = {**FIELDS, "more": "string"}
    append_schemas(feed.folder, [schema_row(A, "s-new", fields, ("id",), 50)])
    tx = feed.begin()
    tx.insert(A, 20, 20, "x")
    after = '{"id":20,"qty":20,"note":"x","more":"y"}'
    late = datetime(2027, 1, 1, tzinfo=UTC)
    tx.events[0][1].update({"__schema_id": "s-new", "__after": after, "__ingested_at": late})
    tx.commit()
    feed.land()
    assert not counts(feed)
    fold(feed.folder)
    assert counts(feed)


def test_a_table_without_a_key_or_without_transactions_is_read_from_its_log(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "one", (A,), (BAG,), metadata=False)
    tx = feed.begin()
    tx.insert(A, 1, 1, "x")
    tx.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
    tx.commit()
    feed.land()
    fold(feed.folder)
    assert (counts(feed), counts(feed, BAG)) == (None, None)


def test_a_row_that_the_log_never_saw_moves_away_and_another_takes_its_key(feed: Feed) -> None:
    """Without a snapshot a table has rows that nothing tells of."""
    for table in (A, B):
        tx = feed.begin()
        feed.rows[table][7] = {"id": 7, "qty": 7, "note": "long text"}
        tx.move(table, [(7, 8)])
        tx.commit()
    feed.land()
    fold(feed.folder, [A])
    for table in (A, B):
        tx = feed.begin()
        tx.insert(table, 7, 70, "long text")
        tx.update(table, 8, 80)
        tx.commit()
        tx = feed.begin()
        tx.delete(table, 7)
        tx.commit()
    feed.land()
    assert counts(feed)
    con, state = opened(feed.folder)
    for shown in state.tables:
        query = folded_query(con, state, shown, 0)
        ended = con.execute(f"SELECT __next_key FROM ({query}) WHERE id = 7 AND __ended_by = 'd'").fetchall()
        assert ended == [(None,)]
    con.close()


def test_a_truncate_ends_all_lines_behind_a_fold(feed: Feed) -> None:
    for _ in range(2):
        tx = feed.begin()
        tx.truncate(A)
        tx.insert(A, 4, 44, "long text")
        tx.commit()
        feed.land()
        assert counts(feed)
        fold(feed.folder)
        assert counts(feed)
        change_of_four = feed.begin()
        change_of_four.update(A, 4, 45)
        change_of_four.commit()
        feed.land()
        assert counts(feed)


@pytest.mark.parametrize("point", ["history:before-write", "history:writing", "history:after-commit"])
@pytest.mark.parametrize("anew", [True, False])
def test_a_fold_of_a_history_killed_at_any_point_loses_and_doubles_nothing(feed: Feed, point: str, anew: bool) -> None:
    if anew:
        feed.snapshot(A)
    change(feed)
    feed.land()
    fold_until_killed(feed, point)
    check(feed.folder, point)
    fold(feed.folder)
    assert counts(feed)


def test_of_two_folds_of_a_history_one_counts(feed: Feed) -> None:
    change(feed)
    feed.land()
    con, state = opened(feed.folder)
    stale = next(t for t in state.tables if t.table == A)
    behind = find_behind(con, state, stale, table_of(feed), "lake.internal.first")
    assert behind is not None
    first = HistoryFold(con, state, stale, behind.base.shapes, table_of(feed))
    fold(feed.folder)
    assert first.part(behind) == 0
    con.close()
    assert table_of(feed).version() == 1
    assert counts(feed)


def test_a_rebuild_makes_the_history_anew(feed: Feed) -> None:
    for name in parts(feed)[CLOSED]:
        Path(history_path(lake(feed.folder).root, SOURCE, A), name).unlink()
    done = rebuild_table(lake(feed.folder), SOURCE, lambda _table: True, A)
    assert done.error is None
    assert counts(feed)


def test_what_retention_took_away_is_in_no_folded_history(feed: Feed) -> None:
    for _ in range(3):
        change(feed)
        feed.land()
        tx = feed.begin()
        tx.delete(A, 5)
        tx.move(A, [(12, 11)])
        tx.commit()
    feed.land()
    fold(feed.folder)
    kept = timedelta(hours=1)
    now = datetime(2026, 11, 24, tzinfo=UTC) + timedelta(minutes=6, seconds=1) + kept
    job = Job(lake(feed.folder), lambda _: True, lambda _: Policy("test", kept), apply=True, now=now)
    assert {r.outcome for r in retain(job, lambda _line: None) if r.table == A} == {DONE}
    assert parts(feed) == {}
    assert not counts(feed)
    fold(feed.folder)
    assert counts(feed)
    change(feed)
    feed.land()
    assert counts(feed)


def commit_later(tx: Transaction) -> None:
    """Commit by a clock that is set back afterwards."""
    for _, event in tx.events:
        event["__source_ts"] += timedelta(hours=1)
    tx.commit()


def bear(feed: Feed, key: int) -> None:
    """Insert a row; it is right before it is folded and afterwards."""
    tx = feed.begin()
    tx.insert(A, key, 1, None)
    tx.commit()
    feed.land()
    assert counts(feed)
    fold(feed.folder)
    assert counts(feed)


@pytest.mark.parametrize("patched", [True, False])
def test_a_row_that_is_born_again_begins_where_its_key_ended_though_the_clock_was_set_back(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, patched: bool
) -> None:
    if patched:
        for name in ("_FEW_ROWS", "_TIMES", "_PATCH_SHARE"):
            monkeypatch.setattr(rules, name, 0)
    for keys in ((4,), (0,)):
        tx = feed.begin()
        for key in keys:
            tx.delete(A, key)
        commit_later(tx)
        feed.land()
        fold(feed.folder)
    for key in (4, 0):
        bear(feed, key)


def test_a_row_behind_a_truncate_begins_no_earlier_than_that_though_the_clock_was_set_back(feed: Feed) -> None:
    tx = feed.begin()
    tx.truncate(A)
    commit_later(tx)
    feed.land()
    fold(feed.folder)
    for key in (4, 5):
        bear(feed, key)


def test_a_fold_that_needs_more_memory_than_there_is_takes_fewer_keys_at_a_time(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, each = list[int](), HistoryFold._each

    def short(self: HistoryFold, fresh: Fresh, *further: Any) -> Iterator[None]:
        asked.append(further[-1])
        if further[-1] < 4:
            raise duckdb.OutOfMemoryException("short")
        return each(self, fresh, *further)

    monkeypatch.setattr(HistoryFold, "_each", short)
    change(feed)
    feed.land()
    fold(feed.folder, [A])
    assert asked == [1, 4]
    assert counts(feed)


def test_a_history_is_not_made_anew_again_and_again_while_a_snapshot_is_on_its_way(feed: Feed) -> None:
    tx = feed.begin()
    for key in range(20, 60):
        tx.insert(A, key, 1, None)
    tx.commit()
    feed.land()
    fold(feed.folder)
    for keys, version, read in ((range(100, 104), 1, False), (range(104, 190), 2, True)):
        for key in keys:
            row = log_row(A, "r", 0, key={"id": key}, after={"id": key, "qty": 1, "note": None}, schema_id=f"s-{A}")
            feed.place(A, {**row, "__ingested_at": datetime.now(UTC)})
        feed.land()
        fold(feed.folder)
        assert (table_of(feed).version(), counts(feed)) == (version, read)


def test_a_history_is_folded_though_all_of_current_is(feed: Feed) -> None:
    clear_history(lake(feed.folder), SOURCE, A)
    assert not counts(feed)
    con, state = opened(feed.folder)
    table = next(t for t in state.tables if t.table == A)
    assert unfolded_history(con, state, table) == (table.log.rows, 0)
    con.close()
    done = {d.table: d for d in fold_source(lake(feed.folder), SOURCE, lambda _table: True)}
    assert (done[A].outcome, done[A].rows, done[A].history_rows > 0, done[B].outcome) == ("folded", 0, True, "current")
    con, state = opened(feed.folder)
    assert unfolded_history(con, state, next(t for t in state.tables if t.table == A))[0] == 0
    con.close()


def test_maintenance_deletes_replaced_files_of_a_history_and_no_others(feed: Feed) -> None:
    path = history_path(lake(feed.folder).root, SOURCE, A)
    for _ in range(2):
        tx = feed.begin()
        tx.update(A, 0, 1)
        tx.commit()
        feed.land()
        fold(feed.folder)
    for action in (CHECKPOINT, VACUUM):
        do(path, None, Step(action, ""), timedelta(0))
    found = {p.relative_to(path).as_posix() for p in Path(path).rglob("part-*.parquet")}
    assert found == {n for names in parts(feed).values() for n in names}
    assert counts(feed)


def test_a_folded_version_has_the_values_that_arrived_whatever_their_types(tmp_path: Path) -> None:
    """All kinds of values as they were recorded, in lines that ended, in open ones, and behind the fold."""
    fields = {"id": "int32"} | {name: event["field"] | {"field": name} for name, event in SENT.items()}
    append_schemas(tmp_path, [schema_row(T, "s", fields, ("id",))])
    images = [
        {"id": i} | {name: e["stream"][i] for name, e in SENT.items() if i < len(e["stream"])}
        for i in range(max(len(e["stream"]) for e in SENT.values()))
    ]
    for number in range(3):
        rows = [
            log_row(
                T, "u" if number else "c", number * 100 + i, key={"id": i}, after=image, schema_id="s",
                tx=(f"{number}", i + 1),
            )
            for i, image in enumerate(images)
        ]  # fmt: skip
        append_log(tmp_path, T, rows)
        append_ends(tmp_path, [end_row(number * 2, f"{number}", {str(T): len(rows)})])
        if number == 1:
            fold(tmp_path)
    con, state = opened(tmp_path)
    (table,) = state.tables
    assert goes_on(con, state, table)
    expected, found = (
        con.execute(f"SELECT COLUMNS(*)::VARCHAR FROM ({query}) ORDER BY id, __from_position").fetchall()
        for query in (history_view(state, table), folded_query(con, state, table, 0))
    )
    names = [d[0] for d in con.description or []]
    assert len(names) > 100
    for column, name in enumerate(names):
        assert [r[column] for r in found] == [r[column] for r in expected], name
    con.close()
