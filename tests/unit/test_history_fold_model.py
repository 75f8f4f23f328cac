"""A folded history and what has come since equal the log and a simple model, wherever folds fall and whatever comes."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from cdc_lake.project import history_base, history_fold, rules
from cdc_lake.project.keys import WHOLE_NUMBERS
from tests.depth import seeds
from tests.history_model import Chronicle
from tests.lake_model import Feed
from tests.unit.test_history_fold import check, fold, folded_query, opened
from tests.unit.test_history_model import SHOWN
from tests.unit.test_project_model import BAG, A, B, Workload


class Chances(Workload):
    """Random changes with clocks that go wrong, and without snapshots unless they are asked for."""

    def __init__(self, feed: Feed, chance: Random, *, snapshots: bool) -> None:
        super().__init__(feed, chance)
        self.chronicle, self.snapshots = Chronicle(feed), snapshots

    def transaction(self) -> None:
        tx = self.feed.begin()
        for _ in range(self.chance.randrange(1, 6)):
            self._change(tx)
        drift = self.chance.choice([0, 0, 30, 90, -90])
        for _, event in tx.events:
            when: datetime = event["__source_ts"]
            event["__source_ts"] = when + timedelta(seconds=drift)
        self.chronicle.commit(tx)
        if self.chance.random() < 0.15:
            self.feed.redeliver(self.chance.randrange(1, 4))
        if self.snapshots and self.chance.random() < 0.1:
            self.feed.snapshot(self.chance.choice((A, B)))


def small(monkeypatch: pytest.MonkeyPatch, chance: Random) -> None:
    monkeypatch.setattr(rules, "_FEW_ROWS", chance.choice([0, 0, 5]))
    monkeypatch.setattr(rules, "_TIMES", chance.choice([0, 1]))
    monkeypatch.setattr(rules, "_PATCH_SHARE", chance.choice([0, 0, 1, 2]))
    monkeypatch.setattr(rules, "_FILE_ROWS", chance.choice([1, 2, 4]))
    monkeypatch.setattr(rules, "_SMALL_FILES", chance.choice([1, 3]))
    # Keys are compared by their text then.
    monkeypatch.setattr(history_base, "WHOLE_NUMBERS", chance.choice([WHOLE_NUMBERS, ()]))
    # So much that a few changes fill the memory: the keys are shared out.
    monkeypatch.setattr(history_fold, "image_bytes", lambda *_: chance.choice([100, 1 << 25]))


def play(folder: Path, chance: Random, said: str, *, snapshots: bool) -> Counter[bool | None]:
    feed = Feed(folder, (A, B), (BAG,), partitions=chance.choice([1, 2, 3]))
    workload = Chances(feed, chance, snapshots=snapshots)
    first = feed.begin()
    first.insert(A, 1, 1, "long text")
    first.insert(B, 1, 1, None)
    first.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
    workload.chronicle.commit(first)
    feed.land()
    found: Counter[bool | None] = Counter()
    for _ in range(chance.randrange(3, 7)):
        for _ in range(chance.randrange(1, 8)):
            workload.transaction()
        feed.land(chance if chance.random() < 0.7 else None)
        found += check(folder, f"{said} before a fold")
        against_model(folder, workload.chronicle, said)
        if chance.random() < 0.7:
            fold(folder, chance.choice([None, None, [A], [B, BAG]]))
            found += check(folder, f"{said} after a fold")
    return found


def against_model(folder: Path, chronicle: Chronicle, said: str) -> None:
    con, state = opened(folder)
    assert state.cut.tx_id is not None
    for number, table in enumerate(t for t in state.tables if t.table in (A, B)):
        columns = SHOWN.replace("c0, c1, c2", "id, qty, note")
        query = folded_query(con, state, table, number)
        found = sorted(con.execute(f"SELECT {columns} FROM ({query})").fetchall(), key=repr)
        assert found == chronicle.states[state.cut.tx_id][table.table], f"{said} at {state.cut}"
    con.close()


@pytest.mark.parametrize("seed", seeds(6))
def test_folded_history_and_tail_equal_the_log_and_the_model(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(seed)
    small(monkeypatch, chance)
    found = play(tmp_path, chance, f"seed {seed}", snapshots=seed % 4 == 3)
    if seed % 4 != 3:
        assert found[True] > found[False], "the folds are not read"
