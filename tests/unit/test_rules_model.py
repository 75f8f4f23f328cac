"""Whatever happens and however it is sliced, a rule finds what a simple model of it finds, event by event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from cdc_lake.events import TableId
from cdc_lake.query.placed import open_logs
from cdc_lake.react.engine import Finding
from cdc_lake.react.ledger import Ledger
from cdc_lake.react.rulefile import Rule, load_rule
from cdc_lake.react.run import Watch, open_connection, tried
from cdc_lake.react.watch import check
from tests.lake_model import SOURCE, Feed, config
from tests.rule_model import (
    MINUTE,
    Absence,
    Anomaly,
    Correlation,
    Found,
    Model,
    Sequence,
    Stream,
    Threshold,
    Windows,
    findings,
)

SALES, STOCK = TableId("public", "sales"), TableId("public", "stock")
SEEDS = range(2)


@dataclass(frozen=True, slots=True)
class Case:
    """A rule, and its twin."""

    text: str
    streams: list[Stream]
    model: Callable[[], Model]
    lateness: int = 0


def low(qty: int) -> bool:
    return qty < 5


def high(qty: int) -> bool:
    return qty > 5


def every(_qty: int) -> bool:
    return True


def delayed(qty: int) -> int:
    return qty * 7 % 11


LATE = "time: __source_ts - INTERVAL 1 MINUTE * (qty * 7 % 11)"
_TWO = "streams: {a: {table: sales, where: qty < 5}, b: {table: stock, where: qty > 5}}\n"
_TWO_LATE = f"streams: {{a: {{table: sales, where: qty < 5, {LATE}}}, b: {{table: stock, where: qty > 5, {LATE}}}}}\n"
A, B = Stream("a", SALES, low), Stream("b", STOCK, high)
A_LATE, B_LATE = Stream("a", SALES, low, delayed), Stream("b", STOCK, high, delayed)
ALL = Stream("a", SALES, every)

CASES = {
    "threshold": Case(
        "streams: {a: {table: sales}}\nthreshold: {of: a, when: qty < 3}\n",
        [Stream("a", SALES, every, ops="cud")],
        lambda: Threshold(lambda q: 0 <= q < 3),
    ),
    "tumbling": Case(
        "streams: {a: {table: sales, where: qty < 5}}\ncount: {of: a, window: 8 minutes, at_least: 2}\n",
        [A],
        lambda: Windows(8 * MINUTE, 8 * MINUTE, at_least=2, when=lambda _: False),
    ),
    "hopping": Case(
        "streams: {a: {table: sales, where: qty < 5}}\n"
        "count: {of: a, window: 9 minutes, every: 3 minutes, at_least: 3}\n",
        [A],
        lambda: Windows(9 * MINUTE, 3 * MINUTE, at_least=3, when=lambda _: False),
    ),
    "having": Case(
        "streams: {a: {table: sales, values: [qty]}}\n"
        "count: {of: a, window: 6 minutes, every: 2 minutes, having: sum(qty) > 12 and count(*) < 4}\n",
        [ALL],
        lambda: Windows(6 * MINUTE, 2 * MINUTE, when=lambda qs: sum(qs) > 12 and len(qs) < 4),
    ),
    "late windows": Case(
        f"lateness: 4 minutes\nstreams: {{a: {{table: sales, {LATE}}}}}\n"
        "count: {of: a, window: 6 minutes, every: 3 minutes, at_least: 2}\n",
        [Stream("a", SALES, every, delayed)],
        lambda: Windows(6 * MINUTE, 3 * MINUTE, at_least=2, when=lambda _: False),
        4 * MINUTE,
    ),
    "sequence": Case(
        _TWO + "sequence: {steps: [a, b], within: 7 minutes}\n", [A, B], lambda: Sequence(["a", "b"], 7 * MINUTE)
    ),
    "sequence of three": Case(
        "lateness: 5 minutes\n" + _TWO_LATE + "sequence: {steps: [a, b, a], within: 30 minutes}\n",
        [A_LATE, B_LATE],
        lambda: Sequence(["a", "b", "a"], 30 * MINUTE),
        5 * MINUTE,
    ),
    "absence": Case(
        _TWO + "absence: {after: a, of: b, within: 6 minutes}\n", [A, B], lambda: Absence("a", "b", 6 * MINUTE)
    ),
    "late absence": Case(
        "lateness: 3 minutes\n" + _TWO_LATE + "absence: {after: a, of: b, within: 6 minutes}\n",
        [A_LATE, B_LATE],
        lambda: Absence("a", "b", 6 * MINUTE),
        3 * MINUTE,
    ),
    "anomaly": Case(
        "streams: {a: {table: sales, values: [qty]}}\nanomaly: {of: a, value: sum(qty), every: 3 minutes, "
        "season: 9 minutes, history: 4, sensitivity: 1.2}\n",
        [ALL],
        lambda: Anomaly(3 * MINUTE, 9 * MINUTE, 4, 1.2),
    ),
    "correlation": Case(
        _TWO + "correlation: {of: [a, b], within: 3 minutes}\n", [A, B], lambda: Correlation(["a", "b"], 3 * MINUTE)
    ),
    "late correlation": Case(
        "lateness: 6 minutes\n" + _TWO_LATE + "correlation: {of: [a, b], within: 4 minutes}\n",
        [A_LATE, B_LATE],
        lambda: Correlation(["a", "b"], 4 * MINUTE),
        6 * MINUTE,
    ),
}


def trade(feed: Feed, chance: Random, transactions: int, tables: tuple[TableId, ...] = (SALES, STOCK)) -> None:
    for _ in range(transactions):
        tx = feed.begin()
        for _ in range(chance.randrange(1, 4)):
            table, key = chance.choice(tables), chance.randrange(3)
            if key not in feed.rows[table]:
                tx.insert(table, key, chance.randrange(10), "x")
            elif chance.random() < 0.1:
                tx.delete(table, key)
            else:
                tx.update(table, key, chance.randrange(10))
        tx.commit()
        if chance.random() < 0.1:
            feed.redeliver(chance.randrange(1, 3))


def rule_of(folder: Path, case: Case) -> Rule:
    (folder / "rules").mkdir(exist_ok=True)
    file = folder / "rules" / "it.yaml"
    file.write_text(f"title: t\nstart: beginning\nkey: [id]\n{case.text}")
    return load_rule(file)


def plain(found: Finding) -> Found:
    changes = [e for e in found.evidence if e["stream"] != "baseline"]
    assert found.total == len(changes)
    events = tuple((str(e["tx_id"]), int(str(e["tx_order"]))) for e in changes)
    assert found.at is not None
    return (found.change, found.key, found.at, events)


def at_once(folder: Path, rule: Rule, chunk: int = 10_000) -> list[Finding]:
    con = open_connection()
    try:
        logs = open_logs(con, config(folder))
        target = check(con, rule, logs, config(folder))
        return [f for _, f in tried(logs[0], target, 0, logs[0].cut, chunk=chunk)]
    finally:
        con.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_what_its_model_finds(name: str, seed: int, tmp_path: Path) -> None:
    case, chance = CASES[name], Random(f"{name} {seed}")
    feed = Feed(tmp_path, (SALES, STOCK))
    trade(feed, chance, 90)
    feed.land()
    rule = rule_of(tmp_path, case)
    found = at_once(tmp_path, rule)
    expected = findings(feed, case.streams, case.model(), lateness=case.lateness)
    assert sorted(map(plain, found)) == sorted(expected)
    assert {f.change for f in found} >= {"opened"}, "nothing was tested"
    assert len({f.id for f in found if f.change == "opened"}) == sum(f.change == "opened" for f in found)
    assert {f.id for f in found if f.change == "resolved"} <= {f.id for f in found if f.change == "opened"}
    if case.lateness:
        assert any(f.change == "late" for f in found), "no event came late"


@pytest.mark.parametrize("name", CASES)
def test_random_slices_find_what_one_evaluation_finds(name: str, tmp_path: Path) -> None:
    """Transactions land torn and in any portions; each time a new process evaluates with another chunk."""
    case, chance = CASES[name], Random(f"slices {name}")
    feed = Feed(tmp_path, (SALES, STOCK))
    rule = rule_of(tmp_path, case)
    trade(feed, chance, 2)
    feed.land()
    for _ in range(5):
        trade(feed, chance, chance.randrange(0, 14))
        feed.land(chance)
        Watch(config(tmp_path), [rule], chunk=chance.choice((3, 7, 100))).round(final=chance.random() < 0.7)
    feed.land()
    Watch(config(tmp_path), [rule]).round(final=True)
    whole = at_once(tmp_path, rule)
    assert committed(tmp_path) == sorted((*plain(f), f.id) for f in whole)


def committed(folder: Path) -> list[tuple[object, ...]]:
    """All rows of the alerts table, repeats included."""
    ledger = Ledger(str(folder / "lake"), SOURCE)
    table = ledger.open()
    rows = table.to_pyarrow_table().to_pylist() if table is not None else []
    return sorted(
        (
            r["change"],
            r["key"],
            int(r["at"].timestamp() * 1_000_000),
            tuple((e["tx_id"], e["tx_order"]) for e in r["evidence"] if e["stream"] != "baseline"),
            r["id"],
        )
        for r in rows
    )
