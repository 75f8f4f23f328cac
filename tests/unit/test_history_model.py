"""`history` and every past moment equal a simple sequential model, whatever was delivered, torn, folded, moved."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest

from cdc_lake.events import TableId
from cdc_lake.project.as_of import read_as_of
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.fold import fold_source
from cdc_lake.project.history import history_sql
from cdc_lake.project.lake import Lake
from cdc_lake.project.life import Life
from cdc_lake.project.snapshot import SourceState, prepare, read_source
from cdc_lake.project.timeline import timeline_sql
from tests.history_model import Chronicle
from tests.lake_model import SOURCE, Feed
from tests.unit.test_project_model import BAG, TABLES, A, B, Workload

SHOWN = "c0, c1, c2, __op, __tx_id, (__previous_key->>'id')::INT, __ended_tx_id, __ended_by, (__next_key->>'id')::INT"


def opened(folder: Path) -> tuple[duckdb.DuckDBPyConnection, SourceState]:
    con = duckdb.connect()
    prepare(con)
    return con, read_source(con, Lake(str(folder / "lake")), SOURCE, lambda _table: True)


def histories(con: duckdb.DuckDBPyConnection, state: SourceState) -> dict[TableId, list[tuple[Any, ...]]]:
    found: dict[TableId, list[tuple[Any, ...]]] = {A: [], B: []}
    for table in state.tables:
        if table.table in found and table.shapes is not None:
            life = Life(table.shapes, tuple(table.log.paths), timeline_sql(state.transactions), state.cut.position)
            rows = con.execute(f"SELECT {SHOWN}, __unknown FROM ({history_sql(life)})").fetchall()
            assert [r for r in rows if r[-1]] == [], "a value is said to be unknown"
            found[table.table] = sorted((r[:-1] for r in rows), key=repr)
    return found


def rows_at(con: duckdb.DuckDBPyConnection, state: SourceState) -> dict[TableId, list[tuple[Any, ...]]]:
    found: dict[TableId, list[tuple[Any, ...]]] = {t: [] for t in TABLES}
    for number, table in enumerate(state.tables):
        view = state.view(con, table, f"settled_{number}")
        rows = con.execute(keyed_sql(view) if view.shapes.keyed else bag_sql(view)).fetchall()
        found[table.table] = sorted((r[:3] for r in rows), key=repr)
    return found


class Recorded(Workload):
    def __init__(self, feed: Feed, chance: Random) -> None:
        super().__init__(feed, chance)
        self.chronicle = Chronicle(feed)

    def transaction(self) -> None:
        tx = self.feed.begin()
        for _ in range(self.chance.randrange(1, 6)):
            self._change(tx)
        self.chronicle.commit(tx)
        if self.chance.random() < 0.15:
            self.feed.redeliver(self.chance.randrange(1, 4))
        if self.chance.random() < 0.1:
            self.feed.snapshot(self.chance.choice((A, B)))


def begun(folder: Path, chance: Random) -> tuple[Feed, Recorded]:
    """A source of three tables with a row each."""
    feed = Feed(folder, (A, B), (BAG,), partitions=chance.choice([1, 2, 3]))
    workload = Recorded(feed, chance)
    first = feed.begin()
    first.insert(A, 1, 1, "long text")
    first.insert(B, 1, 1, None)
    first.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
    workload.chronicle.commit(first)
    return feed, workload


@pytest.mark.parametrize("seed", range(8))
def test_history_and_every_past_moment_equal_the_model(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    feed, workload = begun(tmp_path, chance)
    feed.land()
    for _ in range(chance.randrange(2, 4)):
        for _ in range(chance.randrange(1, 10)):
            workload.transaction()
        feed.land(chance if chance.random() < 0.7 else None)
        con, state = opened(tmp_path)
        assert state.cut.tx_id is not None
        assert histories(con, state) == workload.chronicle.states[state.cut.tx_id], f"seed {seed} at {state.cut}"
        for tx_id in chance.sample(sorted(feed.states), min(3, len(feed.states))):
            if tx_id <= state.cut.tx_id:
                past = read_as_of(con, state, f"tx:{tx_id}", number=1)
                assert rows_at(con, past) == feed.states[tx_id], f"seed {seed} as of {tx_id}"
                assert histories(con, past) == workload.chronicle.states[tx_id], f"seed {seed} history as of {tx_id}"
        con.close()
        if chance.random() < 0.6:
            list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _table: True))
