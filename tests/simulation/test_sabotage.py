"""Each promise can be broken, and its checker says so: for every deliberate bug some run of the simulation fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_lake.land import append
from cdc_lake.project import bag, current, fold, order, tail
from tests.simulation.run import Broken, simulate
from tests.simulation.sabotage import Bug
from tests.unit.test_project_model import play

LANDING = (
    Bug(
        "a row is dropped",
        append.AppendTable._write,
        ((".cast(self.schema)", ".cast(self.schema).slice(0, max(rows.num_rows - 1, 1))"),),
    ),
    Bug(
        "offsets that have landed are written again", append._unseen, (("rows = rows.filter(pc.invert(seen))", "pass"),)
    ),
    Bug("an offset is reused", append.AppendTable._ends, (("max(s.end, ", "max(s.end - 1, s.start, "),)),
    Bug(
        "another writer is not noticed, a failed commit is tried again blindly",
        append.AppendTable._landed,
        (
            ("if attempted and spans and stored == ends:", "if False:"),
            ("if stored[span.tp] != self._expected.get(span.tp):", "if False:"),
        ),
    ),
    Bug(
        "positions go back",
        append.AppendTable._ends,
        (("max(s.end, self._expected.get(s.tp) or 0)", "s.end"),),
    ),
)
COUNTING = (
    Bug(
        "a redelivered change counts twice",
        bag._changes,
        (("ORDER BY off) = 1", "ORDER BY off) < 9"),),
    ),
)
ORDER = (
    Bug(
        "changes are ordered by LSN",
        tail.placed,
        (("pos AS pos_tx, __tx_order AS pos_order", "0 AS pos_tx, __lsn AS pos_order"),),
    ),
    Bug(
        "changes are ordered by offset",
        tail.placed,
        (("pos AS pos_tx, __tx_order AS pos_order", "0 AS pos_tx, __offset AS pos_order"),),
    ),
)
CUT = (
    Bug(
        "half a transaction is shown",
        order._find_missing,
        (("WHERE coalesce(c.n, 0) < e.n", "WHERE false AND c.n < e.n"),),
    ),
    Bug("a transaction beyond the cut is shown", tail.placed, ((" AND pos <= {cut}", ""),)),
)
READING = (
    Bug(
        "a delete is ignored",
        current._tail_rows,
        (
            (
                "SELECT * FROM ({_winners(view)}) WHERE op <> 'd'",
                "SELECT * FROM ({_winners(view)}) WHERE img IS NOT NULL",
            ),
            ("winners WHERE op <> 'd' AND NOT partial", "winners WHERE NOT partial"),
        ),
    ),
    Bug(
        "unchanged values are not carried forward",
        current._partial_select,
        (("CASE WHEN n.h{i} THEN n.v{i} WHEN NOT n.born THEN o.c{i} END", "l.c{i}"),),
    ),
    Bug("a truncate is ignored", tail.facts_sql, (("count(*) FILTER (__op = 't')", "0"),)),
)
MODEL = (
    Bug("redelivered rows complete a transaction", tail.count_rows, (("count(DISTINCT l.__tx_order)", "count(*)"),)),
    Bug(
        "a fold forgets the rows it left",
        tail.new_lows,
        (("AND (pos IS NULL OR pos > {cut})", "AND false"),),
    ),
    Bug(
        "a fold keeps the rows that changed",
        current._untouched,
        (('return f"{view.base_condition} AND', 'return f"true OR'),),
    ),
    Bug("a fold writes down another cut", fold.fold_table, (("Checkpoint(cut, lows,", "Checkpoint(cut + 1, lows,"),)),
)
SEEDS = range(0, 800, 8)  # those that read


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("bug", [*LANDING, *COUNTING, *ORDER, *CUT, *READING], ids=str)
def test_a_deliberate_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    for seed in range(200) if bug in LANDING else SEEDS:
        try:
            simulate(seed)
        except Broken:
            return
    pytest.fail(f"nobody noticed that {bug.name}")


@pytest.mark.parametrize("bug", MODEL, ids=str)
def test_a_deliberate_bug_is_found_by_the_model_of_folds(
    bug: Bug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug.plant(monkeypatch)
    for seed in range(30):
        try:
            play(tmp_path / str(seed), seed, torn=True, metadata=True)
        except AssertionError:
            return
    pytest.fail(f"30 runs, and nobody noticed that {bug.name}")
