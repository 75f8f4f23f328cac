"""`current` equals a simple sequential model: any interleaving, redelivery, torn landing, at any point of folding."""

from __future__ import annotations

from pathlib import Path
from random import Random

import duckdb
import pytest

from cdc_lake.events import TableId
from cdc_lake.project import writing
from cdc_lake.project.bag import bag_sql
from cdc_lake.project.cache import Cache
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.project.order import Cut
from cdc_lake.project.snapshot import prepare, read_source
from tests.lake_model import SOURCE, Feed, Transaction

A, B, BAG = TableId("public", "a"), TableId("public", "b"), TableId("public", "bag")
TABLES = (A, B, BAG)
Shown = dict[TableId, list[tuple[object, ...]]]


def shown(folder: Path, cache: Cache | None = None) -> tuple[Cut, Shown]:
    """The cut, and the rows of all tables, sorted. No value may be unknown."""
    con = duckdb.connect()
    prepare(con)
    state = read_source(con, Lake(str(folder / "lake"), cache=cache), SOURCE, lambda _table: True)
    found: Shown = {t: [] for t in TABLES}
    for number, table in enumerate(state.tables):
        view = state.view(con, table, f"settled_{number}")
        rows = con.execute(keyed_sql(view) if view.shapes.keyed else bag_sql(view)).fetchall()
        assert [r for r in rows if r[-1]] == [], "a value is said to be unknown"
        found[table.table] = sorted((r[:3] for r in rows), key=repr)
    con.close()
    return state.cut, found


def fold(folder: Path, wanted: list[TableId] | None = None) -> None:
    for done in fold_source(Lake(str(folder / "lake")), SOURCE, lambda _table: True, wanted):
        assert done.error is None
        assert done.outcome in ("folded", "current")


class Workload:
    """Random changes over few keys, so that they meet often."""

    def __init__(self, feed: Feed, chance: Random) -> None:
        self.feed, self.chance, self.notes = feed, chance, 0

    def transaction(self) -> None:
        tx = self.feed.begin()
        for _ in range(self.chance.randrange(1, 6)):
            self._change(tx)
        tx.commit()
        if self.feed.metadata and self.chance.random() < 0.15:
            self.feed.redeliver(self.chance.randrange(1, 4))
        if self.chance.random() < 0.1:
            self.feed.snapshot(self.chance.choice((A, B)))

    def _note(self) -> str | None:
        self.notes += 1
        return self.chance.choice([None, "x", f"long text {self.notes}", f"long text {self.notes}"])

    def _change(self, tx: Transaction) -> None:
        chance, table = self.chance, self.chance.choice((A, B))
        rows = self.feed.rows[table]
        free = [k for k in range(14) if k not in rows]
        what = chance.choices(("insert", "update", "delete", "move", "truncate", "bag"), (30, 30, 10, 18, 2, 10))[0]
        if what == "bag":
            self._change_bag(tx)
        elif what == "truncate":
            # Without transaction metadata nothing orders a truncate against rows in other partitions.
            if self.feed.metadata:
                tx.truncate(chance.choice((table, BAG)))
        elif what == "insert" or not rows:
            if free:
                tx.insert(table, chance.choice(free), chance.randrange(100), self._note())
        elif what == "update":
            touch = chance.random() < 0.4
            tx.update(
                table, chance.choice(list(rows)), chance.randrange(100), self._note() if touch else None, touch=touch
            )
        elif what == "delete":
            tx.delete(table, chance.choice(list(rows)))
        else:
            self._move(tx, table, list(rows), free)

    def _move(self, tx: Transaction, table: TableId, keys: list[int], free: list[int]) -> None:
        chance = self.chance
        moves = [(chance.choice(keys), chance.choice(free or [99]))]
        kind = chance.random()
        if kind < 0.35 and len(keys) > 1:
            one, other = chance.sample(keys, 2)
            moves = [(one, other), (other, one)]
        elif kind < 0.5:
            moves = [(k, k + 1) for k in sorted(keys)]
        tx.move(table, moves, touch=chance.random() < 0.3)

    def _change_bag(self, tx: Transaction) -> None:
        chance, rows = self.chance, self.feed.bag_rows[BAG]
        what = chance.random()
        if what < 0.5 or not rows:
            row = {"id": chance.randrange(3), "qty": chance.randrange(3), "note": chance.choice(["x", None])}
            tx.bag_insert(BAG, row)
        elif what < 0.75:
            tx.bag_update(BAG, chance.randrange(len(rows)), chance.randrange(3))
        else:
            tx.bag_delete(BAG, chance.randrange(len(rows)))


def in_shares(monkeypatch: pytest.MonkeyPatch, chance: Random) -> None:
    """A few changes fill the memory: they are set out by key, and folded in shares."""
    monkeypatch.setattr(writing, "image_bytes", lambda *_: chance.choice([1 << 27, 1 << 28]))


def play(folder: Path, seed: int, *, torn: bool, metadata: bool, cache: Cache | None = None) -> None:
    """Some rounds of transactions, landing, reading and folding; each read is compared with the model."""
    chance = Random(seed)
    feed = Feed(folder, (A, B), (BAG,), partitions=chance.choice([1, 2, 3]), metadata=metadata)
    workload = Workload(feed, chance)
    # A table is waited for from its first landed row on.
    first = feed.begin()
    first.insert(A, 1, 1, "long text")
    first.insert(B, 1, 1, None)
    first.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
    first.commit()
    feed.land()
    position = 0
    for _ in range(chance.randrange(2, 5)):
        for _ in range(chance.randrange(1, 8)):
            workload.transaction()
        feed.land(chance if torn else None)
        for folded in (False, True):
            cut, found = shown(folder, cache)
            if cache is not None:
                assert cut == shown(folder)[0], f"seed {seed}, folded {folded}: a fresh reader stands elsewhere"
            expected = {t: feed.at(cut.tx_id, t) if metadata else feed.expected(t) for t in TABLES}
            assert found == expected, f"seed {seed}, folded {folded}, {cut}"
            assert cut.position >= position, "the cut went back"
            position = cut.position
            if not folded and chance.random() < 0.7:
                fold(folder, chance.choice([None, None, [A], [B, BAG]]))
    feed.land()
    cut, found = shown(folder, cache)
    assert not cut.stalled
    assert found == {t: feed.expected(t) for t in TABLES}, f"seed {seed} at the end"


@pytest.mark.parametrize("seed", range(20))
def test_current_equals_the_model_at_the_cut_whatever_lags(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, torn=True, metadata=True)


@pytest.mark.parametrize("seed", range(100, 106))
def test_current_equals_the_model_when_all_has_landed(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, torn=False, metadata=True)


@pytest.mark.parametrize("seed", range(400, 412))
def test_current_equals_the_model_when_there_is_memory_for_few_changes(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_shares(monkeypatch, Random(seed))
    play(tmp_path, seed, torn=seed % 4 == 1, metadata=seed % 4 != 0)


@pytest.mark.parametrize("seed", range(200, 206))
def test_current_equals_the_model_without_transaction_metadata(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, torn=False, metadata=False)


@pytest.mark.parametrize("seed", range(500, 516))
def test_a_reader_that_keeps_what_it_read_shows_what_a_fresh_one_does(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, torn=seed % 4 != 0, metadata=seed % 8 != 0, cache=Cache())
