"""Whatever happened to a table, erasing one of its rows leaves every other row as it was, at every moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cdc_lake.erase.run import Job, Report, erase
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.project.as_of import read_as_of
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.query.history_views import history_view
from tests.depth import seeds
from tests.lake_model import SOURCE
from tests.unit.test_history_model import begun, opened, rows_at
from tests.unit.test_project_model import A, B

History = dict[TableId, list[tuple[Any, ...]]]


def history(folder: Path) -> tuple[History, Any]:
    """All versions of all tables, and the cut."""
    con, state = opened(folder)
    found: History = {}
    for table in state.tables:
        rows = con.execute(f"SELECT * FROM ({history_view(state, table)})").fetchall()
        found[table.table] = sorted(rows, key=repr)
    con.close()
    return found, (state.cut.position, state.cut.waits)


def erased(folder: Path, table: TableId, key: int) -> Report | None:
    job = Job(Lake(str(folder / "lake")), lambda _: True, lambda _: {}, str(table), str(key), apply=True, delete=True)
    try:
        return erase(job, lambda _: None)
    except LakeError as error:
        if error.code not in {"no_row", "key_changed"}:
            raise
        return None


@pytest.mark.parametrize("seed", seeds(2))
def test_every_other_row_is_as_it_was_at_every_moment(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    feed, workload = begun(tmp_path, chance)
    for _ in range(chance.randrange(8, 40)):
        workload.transaction()
        if chance.random() < 0.3:
            feed.land()
            if chance.random() < 0.4:
                list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True))
    feed.land(chance if chance.random() < 0.5 else None)
    done = 0
    for round_ in range(4):
        table = chance.choice((A, B))
        (before, cut), kept = history(tmp_path), tmp_path / f"before-{round_}"
        if not before[table]:
            continue
        shutil.copytree(tmp_path / "lake", kept / "lake")
        report = erased(tmp_path, table, chance.choice(sorted({r[0] for r in before[table]})))
        if report is None or not report.parts:
            continue
        done += 1
        keys = {json.loads(k.text)["id"]: k.whole for k in report.parts[0].keys}
        after, now = history(tmp_path)
        assert now == cut
        assert without(after, table, keys) == without(before, table, keys)
        assert not {r[0] for r in after[table]} & {k for k, whole in keys.items() if whole}
        # Of a key that several rows had, what is left is a part of what there was.
        assert {r[:3] for r in after[table]} <= {r[:3] for r in before[table]}
        check_moments(tmp_path, kept, table, keys, chance.sample(sorted(feed.states), min(3, len(feed.states))))
        if chance.random() < 0.5:
            assert rebuild_table(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True, table).error is None
            assert history(tmp_path)[0] == after
            check_moments(tmp_path, kept, table, keys, [])
    assert done


def without(found: History, table: TableId, keys: Collection[int]) -> History:
    """All versions but for those of some keys of a table."""
    return {**found, table: [r for r in found[table] if r[0] not in keys]}


def check_moments(folder: Path, before: Path, table: TableId, keys: Collection[int], moments: list[str]) -> None:
    """Now and at some moments, rows of other keys are what they were."""
    shown = []
    for where in (folder, before):
        con, state = opened(where)
        past = [read_as_of(con, state, f"tx:{m}", number=1) for m in moments if m <= (state.cut.tx_id or "")]
        shown.append([without(rows_at(con, s), table, keys) for s in (state, *past)])
        con.close()
    assert shown[0] == shown[1]
