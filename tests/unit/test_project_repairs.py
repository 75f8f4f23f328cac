"""Rows of a repair stand where they were compared: behind what the source's snapshot saw, before all that is later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc_lake.events import TableId
from cdc_lake.land.tables import REPAIR_OFFSETS, repair_topic
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.project.order import Wait
from cdc_lake.project.snapshot import prepare, read_source
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, Feed, Row, append_log, config, log_row

ORDERS = TableId("public", "orders")


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Orders 1 and 2, then three updates of order 1: positions 1, 3, 5 and 7."""
    made = Feed(tmp_path, (ORDERS,), partitions=1)
    tx = made.begin()
    tx.insert(ORDERS, 1, 1, None)
    tx.insert(ORDERS, 2, 1, None)
    tx.commit()
    for qty in (2, 3, 4):
        tx = made.begin()
        tx.update(ORDERS, 1, qty)
        tx.commit()
    return made


def repair(folder: Path, position: int, *rows: tuple[str, int, int]) -> None:
    """What a repair at `position` appends: (op, id, qty), and its last row."""
    made = []
    for n, (op, key, qty) in enumerate([*rows, ("x", 0, 0)]):
        image: Row | None = {"id": key, "qty": qty, "note": None} if op == "r" else None
        row = log_row(ORDERS, op, n, key={"id": key}, after=image, schema_id=f"s-{ORDERS}")
        own = {"__topic": repair_topic(SOURCE), "__snapshot": "repair", "__tx_order": position}
        own["__offset"] = REPAIR_OFFSETS + n
        made.append({**row, **own, "__key": None if op == "x" else row["__key"]})
    append_log(folder, ORDERS, made)


def shown(folder: Path, as_of: str | None = None) -> list[tuple[Any, ...]]:
    session = open_session(config(folder), as_of)
    try:
        return session.connection.sql("SELECT id, qty FROM orders ORDER BY id").fetchall()
    finally:
        session.close()


def fold(folder: Path) -> None:
    assert all(d.outcome == "folded" for d in fold_source(Lake(str(folder / "lake")), SOURCE, lambda _: True))


@pytest.mark.parametrize("folded", ["never", "before", "after", "both"])
def test_a_repair_wins_over_what_was_before_its_position_and_over_nothing_behind_it(feed: Feed, folded: str) -> None:
    feed.land()
    if folded in ("before", "both"):
        fold(feed.folder)  # also beyond the repair's position: another fold was quicker
    repair(feed.folder, 3, ("r", 1, 70), ("r", 3, 7), ("d", 2, 0))
    if folded in ("after", "both"):
        fold(feed.folder)
    assert shown(feed.folder) == [(1, 4), (3, 7)]
    assert shown(feed.folder, "tx:00001") == [(1, 1), (2, 1)]
    assert shown(feed.folder, "tx:00002") == [(1, 70), (3, 7)]
    assert shown(feed.folder, "tx:00003") == [(1, 3), (3, 7)]


def test_a_repair_beyond_the_cut_waits_for_it_and_no_fold_passes_it_by(feed: Feed) -> None:
    end = feed.pending_ends.pop()
    feed.land()
    repair(feed.folder, 7, ("r", 2, 20))
    fold(feed.folder)
    assert shown(feed.folder) == [(1, 3), (2, 1)]
    feed.pending_ends.append(end)
    feed.land()
    assert shown(feed.folder) == [(1, 4), (2, 20)]


def test_the_cut_does_not_wait_for_rows_that_a_repair_made_up_for(feed: Feed) -> None:
    feed.pending[ORDERS].pop()
    feed.land()
    con = duckdb.connect()
    prepare(con)
    lake = Lake(str(feed.folder / "lake"))
    assert read_source(con, lake, SOURCE, lambda _: True).cut.waits == (Wait("00004", "public.orders", 1, 1),)
    repair(feed.folder, 7, ("r", 1, 4))
    cut = read_source(con, lake, SOURCE, lambda _: True).cut
    assert (cut.position, cut.waits) == (7, ())
    assert shown(feed.folder) == [(1, 4), (2, 1)]
