"""A join of streams of two sources makes the same rows whatever landed first, each once, and so does a replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import duckdb
import pytest

from cdc_lake.cli.stream_runner import explained
from cdc_lake.query.merged import merge
from cdc_lake.query.placed import open_logs
from cdc_lake.react.run import open_connection
from cdc_lake.react.stream.modelfile import Model, ModelError, load_model
from cdc_lake.react.stream.replay import replay
from cdc_lake.react.stream.run import Streams
from cdc_lake.react.stream.shape import check
from cdc_lake.react.unread import find_unread
from tests.lake_model import Feed, config
from tests.rule_model import MINUTE, committed, in_order
from tests.stream_model import Event, Row, Seen, pairs
from tests.unit.test_rules_sources import SALES, SCANS, Shop
from tests.unit.test_stream_model import LATENESS, delayed, made
from tests.unit.test_stream_run import POINTS

_DELAY = "__source_ts - INTERVAL 1 MINUTE * (qty * 7 % 11)"


def model_of(folder: Path, *, left: bool) -> Model:
    (folder / "streams").mkdir(exist_ok=True)
    file = folder / "streams" / "it.sql"
    file.write_text(
        f"""-- lateness: {LATENESS} minutes\n-- time s: {_DELAY}\n-- time k: {_DELAY}\n-- within: 5 minutes
        SELECT CAST(s.__tx_id AS INTEGER) AS a, s.__tx_order AS x, CAST(k.__tx_id AS INTEGER) AS b, k.__tx_order AS y
        FROM changes.sales s {"LEFT " if left else ""}JOIN changes.scans k ON s.id = k.id AND k.__op <> 'd'
        WHERE s.__op <> 'd'"""
    )
    return load_model(file)


def seen(shop: Shop) -> tuple[Seen, Seen, int]:
    """What the two streams see, and the watermark in the end."""
    feeds, found, mark = {f.source: f for f in shop.feeds}, {"pos": Seen(), "warehouse": Seen()}, 0
    for step in in_order(feeds):
        mark = step.mark - LATENESS * MINUTE
        for order, (_, row) in enumerate(step.changes, start=1):
            if row["__op"] not in "cu":
                continue
            image = json.loads(row["__after"])
            time = committed(feeds[step.source], step.tx) - delayed(image["qty"]) * MINUTE
            event = Event(int(step.tx), order, time, image["id"], image["qty"])
            late, mine = time < step.before - LATENESS * MINUTE, found[step.source]
            (mine.late if late else mine.events).append(event)
    return found["pos"], found["warehouse"], mark


def expected(shop: Shop, *, left: bool) -> tuple[list[Row], int]:
    """The rows, and how many events came too late."""
    a, b, mark = seen(shop)
    found = pairs(a.events, b.events, 5 * MINUTE)
    rows: list[Row] = [(x.tx, x.order, y.tx, y.order) for x, y in found]
    alone = [e for e in a.events if e not in {x for x, _ in found} and e.time + 5 * MINUTE < mark]
    return rows + [(e.tx, e.order, None, None) for e in alone if left], len(a.late) + len(b.late)


def followed(folder: Path, shop: Shop, model: Model, chance: Random) -> Streams:
    """The model at its end, after it was run now and then while the shop traded and its sources landed unevenly."""
    for chunk in (2, 5, 100, 4):
        shop.trade(chance.randrange(10, 30))
        for feed in shop.feeds:
            if chance.random() < 0.7:
                feed.land(chance)
        Streams(config(folder), [model], chunk=chunk).round(final=chance.random() < 0.7)
    shop.land()
    sliced = Streams(config(folder), [model])
    sliced.round(final=True)
    return sliced


def replayed_alike(folder: Path, model: Model, chunk: int) -> bool:
    con = open_connection()
    try:
        logs = open_logs(con, config(folder))
        shape = check(con, model, logs)
        order = merge(con, logs, shape.sources)
        found = replay(config(folder), order, shape, None, write=False, chunk=chunk)
        return found.rows > 0 and not found.differs
    finally:
        con.close()


@pytest.mark.parametrize("left", [False, True])
def test_interleavings_and_slices_make_what_a_simple_twin_makes(tmp_path: Path, *, left: bool) -> None:
    chance = Random(f"two streams {left}")
    shop, model = Shop(tmp_path, chance), model_of(tmp_path, left=left)
    shop.trade(8)
    shop.land()
    sliced = followed(tmp_path, shop, model, chance)
    rows, _, late = made(tmp_path, sliced)
    wanted, too_late = expected(shop, left=left)
    assert rows == sorted(wanted, key=repr)
    assert len(wanted) > 5, "nothing was tested"
    assert late == too_late > 0
    assert replayed_alike(tmp_path, model, 7)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, Random("a shop"))
    model_of(tmp_path, left=True)
    shop.trade(60)
    shop.land()
    return shop


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_each_row_of_two_sources_counts_once(shop: Shop, point: str) -> None:
    command = [sys.executable, "-m", "cdc_lake", "-q", "stream", "run", "--until-caught-up"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    killed = subprocess.run(command, cwd=shop.folder, env=environment, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    shop.trade(5)
    shop.land()
    streams = Streams(config(shop.folder), [load_model(shop.folder / "streams" / "it.sql")])
    streams.round(final=True)
    rows, _, late = made(shop.folder, streams)
    wanted, too_late = expected(shop, left=True)
    assert (rows, late) == (sorted(wanted, key=repr), too_late)


def test_it_is_said_what_is_read_and_for_which_source_it_waits(shop: Shop, tmp_path: Path) -> None:
    model = load_model(tmp_path / "streams" / "it.sql")
    Streams(config(tmp_path), [model]).round(final=True)
    said = explained(config(tmp_path), "it")
    assert ("reads", "changes of public.scans (k of warehouse)") in said
    assert any("least of the greatest commit times so far of pos, warehouse" in text for _, text in said)
    assert {(u.source, str(u.table)) for u in find_unread(config(tmp_path))} == {
        ("pos", "public.sales"),
        ("warehouse", "public.scans"),
    }
    for number in range(3):
        shop.till.minutes[shop.till.transactions + 1] = 9000 + number
        tx = shop.till.begin()
        tx.insert(SALES, 500 + number, 1, None)
        tx.commit()
    shop.land()
    Streams(config(tmp_path), [model]).round(final=True)
    assert any("it waits for warehouse" in text for _, text in explained(config(tmp_path), "it"))


def as_of_the_commit(shop: Shop, *, left: bool) -> list[Row]:
    """Each sale that is decided, with what the warehouse's clock says was there when it was committed."""
    clocks: dict[str, list[tuple[int, str]]] = {}
    for feed in shop.feeds:
        so_far = 0
        for tx, _, _ in feed.delivered:
            so_far = max(so_far, committed(feed, tx))
            clocks.setdefault(feed.source, []).append((so_far, tx))
    told, rows = clocks["warehouse"], list[Row]()
    for (clock, tx), (_, changes, _) in zip(clocks["pos"], shop.till.delivered, strict=True):
        before = [other for at, other in told if at <= clock]
        held = {int(r[0]): int(r[1]) for r in shop.warehouse.at(before[-1] if before else None, SCANS)}
        for order, (_, row) in enumerate(changes, start=1):
            image = json.loads(row["__after"] or row["__before"])
            if clock < told[-1][0] and row["__op"] in "cu" and (left or image["id"] in held):
                rows.append((int(tx), order, held.get(image["id"])))
    return rows


@pytest.mark.parametrize("left", [False, True])
def test_changes_meet_a_table_of_another_source_as_it_was_when_they_were_committed(
    tmp_path: Path, *, left: bool
) -> None:
    chance = Random(f"beside {left}")
    shop = Shop(tmp_path, chance)
    (tmp_path / "streams").mkdir()
    file = tmp_path / "streams" / "it.sql"
    file.write_text(
        f"""SELECT CAST(s.__tx_id AS INTEGER) AS a, s.__tx_order AS x, k.qty FROM changes.sales s
        {"LEFT " if left else ""}JOIN current.scans k ON k.id = s.id WHERE s.__op <> 'd'"""
    )
    model = load_model(file)
    shop.trade(10)
    shop.land()
    sliced = followed(tmp_path, shop, model, chance)
    rows, _, _ = made(tmp_path, sliced)
    wanted = as_of_the_commit(shop, left=left)
    assert rows == sorted(wanted, key=repr)
    assert len(wanted) > 5, "nothing was tested"
    assert replayed_alike(tmp_path, model, 7)
    assert {u.source for u in find_unread(config(tmp_path))} == {"pos", "warehouse"}
    assert any("when the change was committed" in text for _, text in explained(config(tmp_path), "it"))


def test_what_has_no_order_is_refused_before_it_runs(tmp_path: Path) -> None:
    for feed, table in ((Feed(tmp_path, (SALES,)), SALES), (Feed(tmp_path, (SCANS,), source="warehouse"), SCANS)):
        tx = feed.begin()
        tx.insert(table, 1, 1, None)
        tx.commit()
        feed.land()
    (tmp_path / "it.sql").write_text(
        """-- within: 1 hour
        SELECT s.id FROM changes.sales s JOIN changes.scans k ON k.id = s.id JOIN current.scans c ON c.id = s.id"""
    )
    with duckdb.connect() as con, pytest.raises(ModelError, match="a table with changes of several sources"):
        check(con, load_model(tmp_path / "it.sql"), open_logs(con, config(tmp_path)))
