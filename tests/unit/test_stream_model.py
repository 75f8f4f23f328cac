"""Whatever happens and however it is sliced, a streaming model makes the rows that a simple twin of it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cdc_lake.react.stream.modelfile import Model, load_model
from cdc_lake.react.stream.run import Streams, table_of
from tests.lake_model import Feed, config
from tests.rule_model import MINUTE
from tests.stream_model import Row, Seen, at, clock, closed, pairs, seen, sessions, windows
from tests.unit.test_rules_model import SALES, STOCK, trade

LATENESS = 4
_DELAY = "__source_ts - INTERVAL 1 MINUTE * (qty * 7 % 11)"
_HEAD = f"-- lateness: {LATENESS} minutes\n"
_AGGREGATES = """id, window_start, window_end, count(*) AS n, coalesce(sum(qty), 0) AS total, min(qty) AS least,
    count(DISTINCT qty) AS different"""


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and its twin."""

    text: str
    twin: Callable[[Feed], list[Row]]
    late: Callable[[Feed], int] = lambda _: 0


def delayed(qty: int | None) -> int:
    return 0 if qty is None else qty * 7 % 11


def sales(feed: Feed) -> Seen:
    return seen(feed, SALES, delay=delayed, lateness=LATENESS * MINUTE)


def stock(feed: Feed) -> Seen:
    return seen(feed, STOCK, delay=delayed, lateness=LATENESS * MINUTE)


def all_sales(feed: Feed) -> Seen:
    return seen(feed, SALES, delay=lambda _: 0, lateness=0)


def windowed(kind: str, groups: Callable[[Seen], Any]) -> Case:
    text = f"""{_HEAD}-- time: {_DELAY}\n-- window: {kind}\nSELECT {_AGGREGATES} FROM changes.sales
        WHERE __op <> 'd' GROUP BY id, window_start, window_end"""
    return Case(
        text,
        lambda feed: closed(groups(sales(feed)), feed, LATENESS * MINUTE),
        lambda feed: len(sales(feed).late),
    )


def joined(left: bool) -> Case:
    text = f"SELECT s.id, s.qty, k.qty AS held FROM changes.sales s {'LEFT ' if left else ''}JOIN current.stock k"
    return Case(
        text + " ON k.id = s.id WHERE s.__op <> 'd'",
        lambda feed: [
            (e.id, e.qty, at(feed, e, STOCK).get(e.id))
            for e in all_sales(feed).events
            if left or e.id in at(feed, e, STOCK)
        ],
    )


def met(feed: Feed, *, left: bool) -> list[Row]:
    a, b = sales(feed).events, stock(feed).events
    found = pairs(a, b, 5 * MINUTE)
    rows: list[Row] = [(x.tx, x.order, y.tx, y.order) for x, y in found]
    last = clock(feed.transactions) - LATENESS * MINUTE
    alone = [e for e in a if e not in {x for x, _ in found} and e.time + 5 * MINUTE < last]
    return rows + [(e.tx, e.order, None, None) for e in alone if left]


def paired(left: bool) -> Case:
    text = f"""{_HEAD}-- time s: {_DELAY}\n-- time k: {_DELAY}\n-- within: 5 minutes
        SELECT CAST(s.__tx_id AS INTEGER) AS a, s.__tx_order AS x, CAST(k.__tx_id AS INTEGER) AS b, k.__tx_order AS y
        FROM changes.sales s {"LEFT " if left else ""}JOIN changes.stock k ON s.id = k.id AND k.__op <> 'd'
        WHERE s.__op <> 'd'"""
    return Case(text, lambda feed: met(feed, left=left), lambda feed: len(sales(feed).late) + len(stock(feed).late))


CASES = {
    "filter": Case(
        "SELECT id, qty * 2 AS twice FROM changes.sales WHERE qty < 5 AND __op <> 'd'",
        lambda feed: [(e.id, e.qty * 2) for e in all_sales(feed).events if e.qty is not None and e.qty < 5],
    ),
    "tumbling": windowed("tumbling 8 minutes", lambda s: windows(s.events, 8 * MINUTE, 8 * MINUTE)),
    "hopping": windowed("hopping 9 minutes every 3 minutes", lambda s: windows(s.events, 9 * MINUTE, 3 * MINUTE)),
    "session": windowed("session 6 minutes", lambda s: sessions(s.events, 6 * MINUTE)),
    "table": joined(left=False),
    "left table": joined(left=True),
    "streams": paired(left=False),
    "left streams": paired(left=True),
}


def model_of(folder: Path, case: Case) -> Model:
    (folder / "streams").mkdir(exist_ok=True)
    file = folder / "streams" / "it.sql"
    file.write_text(case.text)
    return load_model(file)


def made(folder: Path, streams: Streams) -> tuple[list[Row], list[Row], int]:
    """The rows of the model's table, the same with their ids and positions, and how many events came too late."""
    (one,) = streams.running.values()
    table = table_of(config(folder), one.shape)
    rows = table.rows.open()
    assert rows is not None
    found = rows.to_pyarrow_table().to_pylist()
    late = table.late.open()
    plain = [tuple(_plain(v) for n, v in r.items() if not n.startswith("__")) for r in found]
    whole = [tuple(_plain(v) for v in r.values()) for r in found]
    return sorted(plain, key=repr), sorted(whole, key=repr), 0 if late is None else late.to_pyarrow_table().num_rows


def _plain(value: Any) -> object:
    return int(value.timestamp() * 1_000_000) if hasattr(value, "timestamp") else value


@pytest.mark.parametrize("name", CASES)
def test_random_slices_make_what_a_simple_twin_makes(name: str, tmp_path: Path) -> None:
    """Transactions land torn and in any portions; each time a new process evaluates with another chunk."""
    case, chance = CASES[name], Random(f"streams {name}")
    feed = Feed(tmp_path, (SALES, STOCK))
    trade(feed, chance, 6)
    feed.land()
    model = model_of(tmp_path, case)
    for number in (2, 5, 100):
        trade(feed, chance, chance.randrange(8, 20))
        feed.land(chance)
        Streams(config(tmp_path), [model], chunk=number).round(final=chance.random() < 0.7)
    feed.land()
    sliced = Streams(config(tmp_path), [model])
    sliced.round(final=True)
    rows, _, late = made(tmp_path, sliced)
    expected = case.twin(feed)
    assert rows == sorted(expected, key=repr)
    assert len(expected) > 5, "nothing was tested"
    assert late == case.late(feed)
