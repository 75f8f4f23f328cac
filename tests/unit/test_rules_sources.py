"""A rule over two sources: whatever of them has landed first, and in whatever slices, it finds what a model of it finds
that reads the sources side by side by time; each once, wherever the process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from cdc_lake.cli.rules_runner import listed
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.query.merged import Merged, merge
from cdc_lake.query.placed import open_logs
from cdc_lake.react.engine import Finding
from cdc_lake.react.rulefile import Rule, RuleError, load_rule, load_rules
from cdc_lake.react.run import Watch, open_connection, tried
from cdc_lake.react.standing import Standing, ledger_of
from cdc_lake.react.unread import find_unread
from cdc_lake.react.watch import check
from tests.commands import run
from tests.lake_model import Feed, config
from tests.rule_model import MINUTE, Absence, Correlation, Found, Sequence, Stream, in_order, merged_findings
from tests.unit.test_rules_model import LATE, Case, delayed, high, low, plain, trade
from tests.unit.test_rules_run import POINTS

SALES, SCANS, RETURNS = (TableId("public", name) for name in ("sales", "scans", "returns"))
_A, _B = "a: {table: sales, where: qty < 5}", "b: {table: scans, where: qty > 5}"
_TWO = f"streams: {{{_A}, {_B}}}\n"
_TWO_LATE = f"streams: {{{_A[:-1]}, {LATE}}}, {_B[:-1]}, {LATE}}}}}\n"
A, B = Stream("a", SALES, low), Stream("b", SCANS, high)
A_LATE, B_LATE = Stream("a", SALES, low, delayed), Stream("b", SCANS, high, delayed)
SEEDS = range(3)


CASES = {
    "sequence": Case(
        _TWO + "sequence: {steps: [a, b], within: 9 minutes}\n", [A, B], lambda: Sequence(["a", "b"], 9 * MINUTE)
    ),
    "late sequence": Case(
        "lateness: 3 minutes\n" + _TWO_LATE + "sequence: {steps: [b, a, b], within: 40 minutes}\n",
        [A_LATE, B_LATE],
        lambda: Sequence(["b", "a", "b"], 40 * MINUTE),
        3 * MINUTE,
    ),
    "absence": Case(
        _TWO + "absence: {after: a, of: b, within: 8 minutes}\n", [A, B], lambda: Absence("a", "b", 8 * MINUTE)
    ),
    "late absence": Case(
        "lateness: 4 minutes\n" + _TWO_LATE + "absence: {after: b, of: a, within: 6 minutes}\n",
        [A_LATE, B_LATE],
        lambda: Absence("b", "a", 6 * MINUTE),
        4 * MINUTE,
    ),
    "correlation": Case(
        "lateness: 2 minutes\n" + _TWO_LATE + "correlation: {of: [a, b], within: 4 minutes}\n",
        [A_LATE, B_LATE],
        lambda: Correlation(["a", "b"], 4 * MINUTE),
        2 * MINUTE,
    ),
}


class Shop:
    """A till's database and a warehouse's, each with a clock of its own: it stands still, leaps, and is set back."""

    def __init__(self, folder: Path, chance: Random) -> None:
        self.folder, self.chance = folder, chance
        self.till = Feed(folder, (SALES,))
        self.warehouse = Feed(folder, (SCANS,), source="warehouse")
        self.more: list[Feed] = []
        (folder / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")

    @property
    def feeds(self) -> list[Feed]:
        return [self.till, self.warehouse, *self.more]

    def trade(self, transactions: int) -> None:
        for _ in range(transactions):
            feed, number = self.chance.choice(self.feeds), 1
            last = feed.minutes.get(feed.transactions, 0)
            feed.minutes[feed.transactions + 1] = max(0, last + self.chance.choice((0, 0, 1, 1, 2, 3, 9, -2)))
            trade(feed, self.chance, number, feed.tables)

    def land(self, torn: Random | None = None) -> None:
        for feed in self.feeds:
            feed.land(torn)


def rule_of(folder: Path, text: str, name: str = "it") -> Rule:
    (folder / "rules").mkdir(exist_ok=True)
    file = folder / "rules" / f"{name}.yaml"
    file.write_text(f"title: t\nstart: beginning\nkey: [id]\n{text}")
    return load_rule(file)


def at_once(folder: Path, rule: Rule, chunk: int = 10_000) -> list[Finding]:
    con = open_connection()
    try:
        logs = open_logs(con, config(folder))
        order = merge(con, logs, ("pos", "warehouse"))
        return [f for _, f in tried(order, check(con, rule, logs, config(folder)), 0, order.cut, chunk=chunk)]
    finally:
        con.close()


def committed(folder: Path, source: str = "pos") -> list[tuple[object, ...]]:
    """All rows of an alerts table, repeats included."""
    table = ledger_of(config(folder), source).open()
    rows = table.to_pyarrow_table().to_pylist() if table is not None else []
    return sorted(
        (
            r["change"],
            r["key"],
            int(r["at"].timestamp() * 1_000_000),
            tuple((e["tx_id"], e["tx_order"]) for e in r["evidence"]),
            r["id"],
        )
        for r in rows
    )


def expected_of(shop: Shop, case: Case) -> list[Found]:
    return merged_findings({f.source: f for f in shop.feeds}, case.streams, case.model(), lateness=case.lateness)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_a_rule_over_two_sources_finds_what_its_model_finds(name: str, seed: int, tmp_path: Path) -> None:
    case = CASES[name]
    shop = Shop(tmp_path, Random(f"two {name} {seed}"))
    shop.trade(120)
    shop.land()
    found = at_once(tmp_path, rule_of(tmp_path, case.text))
    assert sorted(map(plain, found)) == sorted(expected_of(shop, case))
    assert any(f.change == "opened" for f in found), "nothing was tested"
    if case.lateness:
        assert any(f.change == "late" for f in found), "no event came late"


@pytest.mark.parametrize("name", CASES)
def test_interleavings_and_slices_find_what_one_evaluation_finds(name: str, tmp_path: Path) -> None:
    """Either source lands more, less or nothing; each time a new process evaluates with another chunk."""
    case, chance = CASES[name], Random(f"interleaved {name}")
    shop, rule = Shop(tmp_path, chance), rule_of(tmp_path, case.text)
    shop.trade(6)
    shop.land()
    for _ in range(6):
        shop.trade(chance.randrange(0, 20))
        for feed in shop.feeds:
            if chance.random() < 0.6:
                feed.land(chance)
        Watch(config(tmp_path), [rule], chunk=chance.choice((3, 7, 100))).round(final=chance.random() < 0.7)
    shop.land()
    Watch(config(tmp_path), [rule]).round(final=True)
    whole = at_once(tmp_path, rule)
    homes = [committed(tmp_path, source) for source in ("pos", "warehouse")]
    assert sorted(homes)[0] == [], "the alerts of a rule are in one place"
    assert max(homes) == sorted((*plain(f), f.id) for f in whole)
    assert sorted(map(plain, whole)) == sorted(expected_of(shop, case))


WAITS = """streams: {sold: {table: sales, where: qty < 5, values: [qty]}, scanned: {table: scans, where: qty > 5}}
absence: {after: sold, of: scanned, within: 2 minutes}
"""
OPENED = [("opened", '{"id":1}')]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A product that is sold and not scanned, and nothing else for ten minutes."""
    shop = Shop(tmp_path, Random(1))
    rule_of(tmp_path, WAITS, "waits")
    one(shop.till, SALES, 1, 1)
    for feed, table in ((shop.till, SALES), (shop.warehouse, SCANS)):
        for number in range(10):
            one(feed, table, 100 + number, 5)
    shop.land()
    return shop


def one(feed: Feed, table: TableId, key: int, qty: int) -> None:
    tx = feed.begin()
    tx.insert(table, key, qty, "note")
    tx.commit()


def watch(folder: Path, chunk: int = 1000) -> Watch:
    return Watch(config(folder), load_rules(folder / "rules"), chunk=chunk)


def found(folder: Path) -> list[tuple[object, ...]]:
    return [row[:2] for row in committed(folder)]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_each_alert_over_two_sources_counts_once(shop: Shop, point: str) -> None:
    command = [sys.executable, "-m", "cdc_lake", "-q", "rules", "run", "--until-caught-up"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    killed = subprocess.run(command, cwd=shop.folder, env=environment, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    one(shop.till, SALES, 2, 9)
    one(shop.warehouse, SCANS, 2, 9)
    shop.land()
    watch(shop.folder).round(final=True)
    assert found(shop.folder) == OPENED


def test_two_processes_that_evaluate_one_rule_are_found_out(shop: Shop) -> None:
    one_, other = watch(shop.folder, chunk=3), watch(shop.folder)
    one_.round(final=True)
    other.round(final=True)
    one(shop.till, SALES, 3, 9)
    one(shop.warehouse, SCANS, 3, 9)
    shop.land()
    other.round(final=True)
    with pytest.raises(LakeError, match="Another process evaluates the rule waits") as stop:
        one_.round(final=True)
    assert stop.value.code == "rules_fenced"
    assert found(shop.folder) == OPENED


def test_a_rule_waits_for_the_source_that_is_behind_and_says_for_which(shop: Shop, tmp_path: Path) -> None:
    watch(tmp_path).round(final=True)
    one(shop.till, SALES, 7, 1)
    for number in range(9):
        one(shop.till, SALES, 200 + number, 5)
    shop.land()
    watch(tmp_path).round(final=True)
    assert found(tmp_path) == OPENED
    (row,) = listed(config(tmp_path))
    assert (row["waits_for"], row["waits_since"]) == ("warehouse", "2026-11-24T00:10:00+00:00")
    assert row["behind"] > 0
    shop.warehouse.minutes[11] = 30
    one(shop.warehouse, SCANS, 8, 5)
    shop.land()
    watch(tmp_path).round(final=True)
    assert found(tmp_path) == [*OPENED, ("opened", '{"id":7}')]
    (row,) = listed(config(tmp_path))
    assert row["waits_for"] is None
    assert {p["source"] for p in row["positions"]} == {"pos", "warehouse"}


def test_a_rule_over_one_source_goes_on_where_it_was_over_two(shop: Shop, tmp_path: Path) -> None:
    alone = "streams: {sold: {table: sales, where: qty < 5}, back: {table: sales, where: qty > 5}}\n"
    rule_of(tmp_path, alone + "absence: {after: sold, of: back, within: 2 minutes}\n", "waits")
    watch(tmp_path).round(final=True)
    assert found(tmp_path) == OPENED
    rule_of(tmp_path, WAITS, "waits")
    one(shop.till, SALES, 7, 1)
    for feed, table in ((shop.till, SALES), (shop.warehouse, SCANS)):
        feed.minutes |= {feed.transactions + 1: 40, feed.transactions + 2: 41}
        one(feed, table, 300, 5)
        one(feed, table, 301, 5)
    shop.land()
    watch(tmp_path).round(final=True)
    assert found(tmp_path) == [*OPENED, ("opened", '{"id":7}')]


def test_retention_keeps_what_a_rule_has_not_read_of_either_source(shop: Shop, tmp_path: Path) -> None:
    watch(tmp_path).round(final=True)
    unread = {u.source: (str(u.table), u.position) for u in find_unread(config(tmp_path))}
    con = open_connection()
    try:
        logs = open_logs(con, config(tmp_path))
        target = check(con, load_rules(tmp_path / "rules")[0], logs, config(tmp_path))
        positions = Standing.of(config(tmp_path), target).positions
    finally:
        con.close()
    assert unread == {"pos": ("public.sales", positions["pos"]), "warehouse": ("public.scans", positions["warehouse"])}


def test_an_erased_row_of_either_source_is_in_no_alert_and_no_memory(
    shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rule_of(
        tmp_path,
        "streams: {a: {table: scans, values: [note]}, b: {table: sales, values: [note]}}\n"
        "correlation: {of: [a, b], within: 9 minutes}\n",
        "both",
    )
    watch(tmp_path).round(final=True)
    table = ledger_of(config(tmp_path), "warehouse").open()
    assert table is not None
    assert any('"note"' in str(e["values"]) for r in table.to_pyarrow_table().to_pylist() for e in r["evidence"])
    assert run(tmp_path, "erase", "sales", "100", "--now", capfd=capfd)[0] == 0
    table = ledger_of(config(tmp_path), "warehouse").open()
    assert table is not None
    rows = table.to_pyarrow_table().to_pylist()
    erased = [e for r in rows for e in r["evidence"] if e["table"] == "public.sales" and e["values"] is None]
    assert len(erased) == 1
    assert not list((tmp_path / "lake").glob("*/rule_state/*/*.parquet"))
    watch(tmp_path).round(final=True)
    assert len(found(tmp_path)) == 1


def test_a_table_of_two_sources_is_refused(tmp_path: Path) -> None:
    Feed(tmp_path, (SALES,)).land()
    tills = [Feed(tmp_path, (SALES,), source=name) for name in ("pos", "other")]
    warehouse = Feed(tmp_path, (SCANS,), source="warehouse")
    for feed, table in ((tills[0], SALES), (tills[1], SALES), (warehouse, SCANS)):
        one(feed, table, 1, 1)
        feed.land()
    rule = rule_of(tmp_path, WAITS)
    con = open_connection()
    try:
        with pytest.raises(RuleError, match="sales is a table of other and of pos"):
            check(con, rule, open_logs(con, config(tmp_path)), config(tmp_path))
    finally:
        con.close()


def test_nothing_more_could_be_known_of_three_sources_than_their_order_tells(tmp_path: Path) -> None:
    """The time up to which all has come is the least that any of them has told of, and each position is one of each."""
    shop = Shop(tmp_path, Random("three"))
    shop.more.append(Feed(tmp_path, (RETURNS,), source="outbox"))
    shop.trade(90)
    shop.land()
    con = open_connection()
    try:
        logs = open_logs(con, config(tmp_path))
        order = merge(con, logs, ("pos", "warehouse", "outbox"))
        assert isinstance(order, Merged)
        assert order.clock(order.cut) == min(log.clock(log.cut) for log in logs)
        positions = [p for (p,) in con.execute(f"SELECT position FROM {order.timeline} ORDER BY position").fetchall()]
        assert len(positions) == len(set(positions)) > 20
        assert all(sum(order.frontier(p).values()) == p == order.aligned(order.frontier(p)) for p in positions[::7])
        assert all(order.frontier(order.cut)[log.source] <= log.cut for log in logs)
        steps = [step.source for step in in_order({f.source: f for f in shop.feeds})]
        told = con.execute(f"SELECT s FROM {order.timeline} ORDER BY position").fetchall()
        assert [order.sources[s] for (s,) in told] == steps
    finally:
        con.close()
