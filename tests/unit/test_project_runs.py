"""A complete snapshot ends what it does not have; one that was killed and begun again counts once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc_lake.events import TableId
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, Row, append_ends, append_log, append_schemas, config, end_row, log_row, schema_row

ORDERS, VISITS = TableId("public", "orders"), TableId("public", "visits")


class Log:
    """Writes what one connector sends: snapshots and transactions of a table, one partition, offsets as they come."""

    def __init__(self, folder: Path, table: TableId, *, keyed: bool) -> None:
        self.folder, self.table, self.keyed = folder, table, keyed
        self.offset = self.end = 0
        append_schemas(folder, [schema_row(table, "s", {"id": "int32", "qty": "int32"}, ("id",) if keyed else ())])

    def _rows(self, rows: list[Row]) -> None:
        append_log(self.folder, self.table, rows)

    def _row(self, op: str, row: Row, *, before: bool = False, **values: Any) -> Row:
        key = {"id": row["id"]} if self.keyed else None
        values |= {"before" if before else "after": row}
        made = log_row(self.table, op, self.offset, key=key, schema_id="s", **values)
        self.offset += 1
        return made

    def snapshot(self, lsn: int, *rows: tuple[int, int], whole: bool = True) -> None:
        """A snapshot at `lsn`; without `whole`, it is killed behind these rows."""
        marks = ["first_in_data_collection", *["true"] * len(rows)][: len(rows)]
        if whole:
            marks[-1] = "last_in_data_collection"
        made = [self._row("r", {"id": i, "qty": q}, lsn=lsn) for i, q in rows]
        self._rows([{**r, "__snapshot": m} for r, m in zip(made, marks, strict=True)])

    def incremental(self, *rows: tuple[int, int]) -> None:
        made = [self._row("r", {"id": i, "qty": q}) for i, q in rows]
        self._rows([{**r, "__snapshot": "incremental", "__lsn": None} for r in made])

    def transaction(self, lsn: int, *changes: tuple[str, int, int]) -> None:
        """One transaction of (op, id, qty)."""
        tx = str(self.end + 1)
        self._rows(
            [
                self._row(op, {"id": i, "qty": q}, before=op == "d", tx=(tx, n + 1), lsn=lsn)
                for n, (op, i, q) in enumerate(changes)
            ]
        )
        append_ends(self.folder, [end_row(self.end, tx, {str(self.table): len(changes)}, lsn=lsn)])
        self.end += 1

    def heartbeat(self, lsn: int) -> None:
        """A transaction of another table."""
        append_ends(self.folder, [end_row(self.end, str(self.end + 1), {"cdc_lake.heartbeat": 1}, lsn=lsn)])
        self.end += 1


def shown(log: Log, as_of: str | None = None) -> list[tuple[Any, ...]]:
    session = open_session(config(log.folder), as_of)
    try:
        return session.connection.sql(f"SELECT id, qty FROM {log.table.name} ORDER BY ALL").fetchall()
    finally:
        session.close()


def standing(log: Log, position: int) -> list[tuple[Any, ...]]:
    """What `history` shows at a position."""
    session = open_session(config(log.folder))
    try:
        return session.connection.sql(
            f"""SELECT id, qty FROM history.public.{log.table.name} WHERE __from_position <= {position}
            AND (__to_position IS NULL OR __to_position > {position}) ORDER BY ALL"""
        ).fetchall()
    finally:
        session.close()


def fold(log: Log) -> str:
    (done,) = fold_source(Lake(str(log.folder / "lake")), SOURCE, lambda _: True)
    assert done.error is None, done.error
    return done.outcome


@pytest.fixture(params=[True, False], ids=["with key", "without key"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    """Three rows by a snapshot at LSN 100, then one change, then one row deleted unseen."""
    made = Log(tmp_path, ORDERS if request.param else VISITS, keyed=request.param)
    made.snapshot(100, (1, 1), (2, 2), (3, 3))
    made.transaction(110, ("c", 4, 4))
    return made


@pytest.mark.parametrize("folded", [False, True])
def test_rows_that_a_complete_snapshot_does_not_have_end_with_it(log: Log, folded: bool) -> None:
    if folded:
        assert fold(log) == "folded"
    log.heartbeat(120)
    log.snapshot(130, (1, 1), (3, 30))
    assert shown(log) == [(1, 1), (3, 30)]
    log.transaction(140, ("c", 5, 5))
    wanted = [(1, 1), (3, 30), (5, 5)]
    assert shown(log) == wanted
    assert fold(log) == "folded"
    assert shown(log) == wanted
    assert rebuild_table(Lake(str(log.folder / "lake")), SOURCE, lambda _: True, log.table).error is None
    assert shown(log) == wanted
    before = [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert shown(log, "tx:1") == standing(log, 1) == before
    assert shown(log, "tx:2") == standing(log, 2) == [(1, 1), (3, 30)]
    assert shown(log, "tx:3") == standing(log, 3) == wanted


def test_a_snapshot_on_its_way_ends_nothing_and_no_fold_forgets_what_it_read(log: Log) -> None:
    fold(log)
    log.heartbeat(120)
    log.snapshot(130, (1, 10), (2, 20), whole=False)
    outcome = [(1, 10), (2, 20), (3, 3), (4, 4)] if log.keyed else [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert shown(log) == outcome
    assert fold(log) == "current"
    made = log._row("r", {"id": 4, "qty": 4}, lsn=130)
    log._rows([{**made, "__snapshot": "last"}])
    assert shown(log) == [(1, 10), (2, 20), (4, 4)]
    assert fold(log) == "folded"
    assert shown(log) == [(1, 10), (2, 20), (4, 4)]


@pytest.mark.parametrize("keyed", [True, False], ids=["with key", "without key"])
def test_a_first_snapshot_on_its_way_is_not_folded_and_what_it_read_early_stays(tmp_path: Path, keyed: bool) -> None:
    log = Log(tmp_path, ORDERS if keyed else VISITS, keyed=keyed)
    log.snapshot(100, (1, 1), (2, 2), whole=False)
    assert fold(log) == "current"
    assert shown(log) == [(1, 1), (2, 2)]
    made = log._row("r", {"id": 3, "qty": 3}, lsn=100)
    log._rows([{**made, "__snapshot": "last"}])
    log.transaction(110, ("c", 4, 4))
    wanted = [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert shown(log) == standing(log, 1) == wanted
    assert fold(log) == "folded"
    assert shown(log) == standing(log, 1) == wanted


def test_a_fold_that_an_earlier_version_made_in_the_middle_of_a_first_snapshot_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, ORDERS, keyed=True)
    log.snapshot(100, (1, 1), (2, 2), whole=False)
    with monkeypatch.context() as earlier:
        earlier.setattr("cdc_lake.project.snapshot.with_runs", lambda _con, tail, *_, **__: tail)
        assert fold(log) == "folded"
    made = log._row("r", {"id": 3, "qty": 3}, lsn=100)
    log._rows([{**made, "__snapshot": "last"}])
    log.transaction(110, ("c", 4, 4))
    wanted = [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert shown(log) == wanted
    assert fold(log) == "folded"
    assert shown(log) == wanted


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("again", [100, 101])
def test_a_first_snapshot_that_is_killed_and_begun_again_counts_once(tmp_path: Path, keyed: bool, again: int) -> None:
    log = Log(tmp_path, ORDERS, keyed=keyed)
    log.snapshot(100, (1, 1), (2, 2), whole=False)
    assert shown(log) == [(1, 1), (2, 2)]
    fold(log)
    log.snapshot(again, (1, 1), (3, 3))
    assert shown(log) == [(1, 1), (3, 3)]
    assert fold(log) == "folded"
    assert shown(log) == [(1, 1), (3, 3)]
    log.transaction(110, ("c", 4, 4))
    assert shown(log) == standing(log, 1) == [(1, 1), (3, 3), (4, 4)]


def test_versions_of_rows_that_a_snapshot_reads_unchanged_go_on(tmp_path: Path) -> None:
    log = Log(tmp_path, ORDERS, keyed=True)
    log.snapshot(100, (1, 1), (2, 2))
    log.transaction(110, ("u", 1, 5))
    log.snapshot(120, (1, 5), (3, 3))
    session = open_session(config(tmp_path))
    rows = session.connection.sql(
        "SELECT id, qty, __op, __ended_by FROM history.public.orders ORDER BY id, __from_position"
    ).fetchall()
    session.close()
    assert rows == [(1, 1, "r", "u"), (1, 5, "u", None), (2, 2, "r", "d"), (3, 3, "r", None)]


def test_a_streamed_change_wins_over_an_older_chunk_of_an_incremental_snapshot(tmp_path: Path) -> None:
    log = Log(tmp_path, ORDERS, keyed=True)
    log.snapshot(100, (1, 1), (2, 2))
    log.incremental((1, 1))
    log.transaction(110, ("u", 1, 5), ("d", 2, 2))
    assert shown(log) == [(1, 5)]
    log.incremental((1, 5))
    assert shown(log) == [(1, 5)]
