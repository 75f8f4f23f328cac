"""Whatever is moved to a tier and when, also by moves that die: present, past and history are the model's."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest

from cdc_lake import crashpoints
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.land.tiers import Tier
from cdc_lake.maintain.plan import COMPACT, Rules, Step
from cdc_lake.maintain.run import Job as MaintainJob
from cdc_lake.maintain.run import maintain
from cdc_lake.maintain.work import do
from cdc_lake.project.as_of import read_as_of
from cdc_lake.project.files import scan
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.project.moments import MomentError
from cdc_lake.project.snapshot import SourceState, prepare, read_source
from cdc_lake.retain.moving import move_older
from cdc_lake.retain.policy import Policy
from cdc_lake.retain.run import DONE, Job, retain
from tests.depth import seeds
from tests.lake_model import SOURCE, Feed
from tests.unit.test_history_model import Recorded, begun, histories, rows_at
from tests.unit.test_project_model import TABLES
from tests.unit.test_tiers import POINTS

_START = datetime(2026, 11, 24, tzinfo=UTC)
_AFTER, _KEPT = timedelta(hours=1), timedelta(hours=2)


class Died(BaseException):
    """What a point raises in place of a SIGKILL."""


def lake_of(folder: Path) -> Lake:
    return Lake(str(folder / "lake"), tiers=(Tier(str(folder / "cold"), None, "./cold"),))


def job(folder: Path, *, moved: int, gone: int = -(10**6)) -> Job:
    """Transactions up to the number `moved` are old enough for the tier, those up to `gone` for nothing."""
    lake = lake_of(folder)
    now = _START + timedelta(minutes=moved, seconds=1) + _AFTER
    policy = Policy("test", now - _START - timedelta(minutes=gone, seconds=1), after=_AFTER, tier=lake.tiers[0])
    return Job(lake, lambda _table: True, lambda _table: policy, apply=True, now=now)


def move(folder: Path, moved: int, point: str = "") -> bool:
    """Whether a move got through to its end."""

    def die(reached: str) -> None:
        if reached == point:
            raise Died

    crashpoints.on_reach = die
    try:
        reports = list(move_older(job(folder, moved=moved), lambda _line: None))
    except Died:
        return False
    finally:
        crashpoints.on_reach = None
    assert [(r.error.message, r.error.why) for r in reports if r.error is not None] == []
    return True


def opened(folder: Path) -> tuple[duckdb.DuckDBPyConnection, SourceState]:
    con = duckdb.connect()
    prepare(con)
    return con, read_source(con, lake_of(folder), SOURCE, lambda _table: True)


def rows_of(con: duckdb.DuckDBPyConnection, state: SourceState) -> dict[TableId, Counter[Any]]:
    """The rows of each log, as often as they are there."""
    return {
        t.table: Counter(map(repr, con.execute(f"SELECT * FROM {scan(t.log.paths)}").fetchall())) for t in state.tables
    }


def check(folder: Path, workload: Recorded, chance: Random) -> dict[TableId, Counter[Any]]:
    """The present and some moments of the past; the rows that the logs have."""
    con, state = opened(folder)
    feed = workload.feed
    assert [t.error for t in state.tables] == [None] * len(state.tables)
    assert rows_at(con, state) == feed.states[str(state.cut.tx_id)]
    whole = not any(t.log.start for t in state.tables)
    assert not whole or histories(con, state) == workload.chronicle.states[str(state.cut.tx_id)]
    moments = [t for t in sorted(feed.states) if t <= str(state.cut.tx_id)]
    for tx_id in chance.sample(moments, min(2, len(moments))):
        past = read_as_of(con, state, f"tx:{tx_id}", number=1)
        errors = [t.error for t in past.tables if t.error is not None]
        assert all(isinstance(e, MomentError) for e in errors), errors
        assert not (whole and errors)
        assert errors or rows_at(con, past) == feed.states[tx_id], tx_id
    found = rows_of(con, state)
    con.close()
    return found


def rewrite(folder: Path, feed: Feed, chance: Random) -> None:
    """Something that other commands do to a log and its tier."""
    lake, chosen = lake_of(folder), chance.choice(["compact", "maintain", "rebuild", "retain", ""])
    if chosen == "compact":
        for table in TABLES:
            do(log_path(lake.root, SOURCE, table), None, Step(COMPACT, "", level=1 << 20), timedelta(days=1))
    if chosen == "maintain":
        rules = Rules(target_bytes=1 << 20, keep=timedelta(hours=0))
        assert not any(r.failed for r in maintain(MaintainJob(lake, lambda _t: True, rules), lambda _line: None))
    if chosen == "rebuild":
        rebuilt = rebuild_table(lake, SOURCE, lambda _table: True, chance.choice(TABLES))
        assert rebuilt.error is None
    if chosen == "retain":
        assert [d.error for d in fold_source(lake, SOURCE, lambda _table: True) if d.error is not None] == []
        half = feed.transactions // 3
        reports = list(retain(job(folder, moved=feed.transactions, gone=half), lambda _line: None))
        assert [r.error for r in reports if r.error is not None] == []
        assert any(r.outcome == DONE for r in reports) or half < 3


@pytest.mark.parametrize("seed", seeds(1))
def test_whatever_is_moved_and_however_often_a_move_dies_the_whole_is_read_as_it_was(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    feed, workload = begun(tmp_path, chance)
    for _ in range(3):
        for _ in range(chance.randrange(4, 12)):
            workload.transaction()
            if chance.random() < 0.4:
                feed.land()
        feed.land(chance if chance.random() < 0.3 else None)
        if chance.random() < 0.6:
            assert [d.error for d in fold_source(lake_of(tmp_path), SOURCE, lambda _t: True) if d.error] == []
        before = check(tmp_path, workload, chance)
        until = chance.randrange(1, feed.transactions + 1)
        for _ in range(chance.randrange(0, 3)):
            move(tmp_path, chance.randrange(1, feed.transactions + 1), chance.choice(POINTS))
            assert check(tmp_path, workload, chance) == before
        assert move(tmp_path, until)
        assert check(tmp_path, workload, chance) == before
        rewrite(tmp_path, feed, chance)
        check(tmp_path, workload, chance)
