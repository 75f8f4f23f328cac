"""What is read within the kept window is the same before and after older changes are taken away, as often as it is."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path, log_path
from cdc_lake.maintain.plan import COMPACT, Step
from cdc_lake.maintain.work import do
from cdc_lake.project.as_of import read_as_of
from cdc_lake.project.fold import rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.project.moments import MomentError
from cdc_lake.query.history_views import history_view
from cdc_lake.retain.policy import Policy
from cdc_lake.retain.run import DONE, Job, Report, retain
from tests.commands import fold
from tests.depth import seeds
from tests.lake_model import SOURCE, Feed
from tests.unit.test_history_model import begun, opened, rows_at
from tests.unit.test_project_model import TABLES

_START = datetime(2026, 11, 24, tzinfo=UTC)
_KEPT = timedelta(hours=1)
History = dict[TableId, list[tuple[Any, ...]]]


def apply(folder: Path, until: int) -> dict[TableId, Report]:
    """Retention when all transactions up to the number `until` are older than it allows."""
    lake, now = Lake(str(folder / "lake")), _START + timedelta(minutes=until, seconds=1) + _KEPT
    job = Job(lake, lambda _table: True, lambda _table: Policy("test", _KEPT), apply=True, now=now)
    found = {r.table: r for r in retain(job, lambda _line: None)}
    assert [(r.error.message, r.error.why) for r in found.values() if r.error is not None] == []
    return found


def history(folder: Path, starts: dict[TableId, int]) -> History:
    """The versions that hold behind `starts`; the first of them begin there."""
    con, state = opened(folder)
    found: History = {}
    for table in state.tables:
        start = starts.get(table.table, 0)
        rows = con.execute(
            f"""SELECT id, qty, note, __key::VARCHAR, greatest(__from_position, {start}), __to_position, __ended_by,
            __ended_tx_id, __next_key::VARCHAR, __unknown, __unread,
            __valid_to, CASE WHEN __from_position > {start}
            THEN (__op, __tx_id, __previous_key::VARCHAR, __valid_from)::VARCHAR END
            FROM ({history_view(state, table)}) WHERE coalesce(__to_position > {start}, true)"""
        ).fetchall()
        found[table.table] = sorted(rows, key=repr)
    con.close()
    return found


def start_of_logs(folder: Path) -> dict[TableId, int]:
    con, state = opened(folder)
    con.close()
    return {t.table: t.log.start for t in state.tables}


def compact(folder: Path) -> None:
    """Starting rows and others come to lie in one file."""
    lake = Lake(str(folder / "lake"))
    for table in TABLES:
        do(log_path(lake.root, SOURCE, table), None, Step(COMPACT, "", level=1 << 20), timedelta(days=1))


def lake_copy(folder: Path, name: str) -> Path:
    shutil.copytree(folder / "lake", folder / name / "lake")
    return folder / name


def check_moments(folder: Path, feed: Feed, chance: Random) -> int:
    """Every table at a number of moments: as the model has it, or refused. How many were refused."""
    con, state = opened(folder)
    refused = 0
    moments = [t for t in sorted(feed.states) if t <= (state.cut.tx_id or "")]
    for tx_id in {*chance.sample(moments, min(4, len(moments))), moments[-1]}:
        past = read_as_of(con, state, f"tx:{tx_id}", number=1)
        sound = tuple(t for t in past.tables if t.error is None)
        for table in past.tables:
            assert (table.error is None) == (past.cut.position >= table.log.start), tx_id
            assert table.error is None or isinstance(table.error, MomentError)
        refused += len(past.tables) - len(sound)
        found = rows_at(con, past) if len(sound) == len(past.tables) else None
        assert found is None or found == feed.states[tx_id], f"as of {tx_id}"
    con.close()
    return refused


def check_now(folder: Path, feed: Feed) -> None:
    con, state = opened(folder)
    assert rows_at(con, state) == feed.states[str(state.cut.tx_id)]
    con.close()


@pytest.mark.parametrize("seed", seeds(2))
def test_what_the_kept_window_shows_is_the_same_however_often_older_changes_go(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    feed, workload = begun(tmp_path, chance)
    done = 0
    for round_ in range(3):
        for _ in range(chance.randrange(6, 16)):
            workload.transaction()
            if chance.random() < 0.4:
                feed.land()
        feed.land()
        fold(tmp_path)
        for _ in range(chance.randrange(0, 5)):
            workload.transaction()
        feed.land(chance)
        if round_ == 1 and chance.random() < 0.5:
            feed.land()
            fold(tmp_path)
        until = chance.randrange(feed.transactions // 2, feed.transactions)
        before = lake_copy(tmp_path, f"before-{round_}")
        reports = apply(tmp_path, until)
        done += sum(r.outcome == DONE for r in reports.values())
        starts = start_of_logs(tmp_path)
        after = history(tmp_path, starts)
        assert after == history(before, starts)
        again = {t: r.outcome for t, r in apply(tmp_path, until).items()}
        assert DONE not in again.values(), again
        check_now(tmp_path, feed)
        check_moments(tmp_path, feed, chance)
        if chance.random() < 0.5:
            compact(tmp_path)
            assert history(tmp_path, starts) == after
            check_now(tmp_path, feed)
        if chance.random() < 0.4:
            table = chance.choice(TABLES)
            rebuilt = rebuild_table(Lake(str(tmp_path / "lake")), SOURCE, lambda _table: True, table)
            assert rebuilt.error is None
            check_now(tmp_path, feed)
        if chance.random() < 0.3:
            shutil.rmtree(current_path(str(tmp_path / "lake"), SOURCE, chance.choice(TABLES)), ignore_errors=True)
            check_now(tmp_path, feed)
    assert done
