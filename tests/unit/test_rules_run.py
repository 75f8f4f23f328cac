"""Alerts and positions are committed together: once each, wherever the process dies, whatever becomes of a rule."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.land.layout import rule_state_path
from cdc_lake.react.ledger import Ledger
from cdc_lake.react.rulefile import RuleError, load_rules
from cdc_lake.react.run import Watch
from tests.lake_model import SOURCE, Feed, config

SALES = TableId("public", "sales")
POINTS = (
    "rules:after-memory",
    "rules:before-commit",
    "rules:after-commit",
    "rules:after-forget",
)
ABSENT = """title: Product {id} was sold and not restocked
start: beginning
key: [id]
streams: {sold: {table: sales, where: qty < 5, values: [qty]}, restocked: {table: sales, where: qty >= 5}}
absence: {after: sold, of: restocked, within: 2 minutes}
"""
LOW = """title: Product {id} is low
start: beginning
key: [id]
streams: {s: {table: sales}}
threshold: {of: s, when: qty < 2}
"""


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """A product that is sold, and nothing else for ten minutes."""
    feed = Feed(tmp_path, (SALES,))
    write(tmp_path, absent=ABSENT, low=LOW)
    tx = feed.begin()
    tx.insert(SALES, 1, 1, None)
    tx.commit()
    go_on(feed, 10)
    return feed


def go_on(feed: Feed, minutes: int, key: int = 100) -> None:
    for number in range(minutes):
        tx = feed.begin()
        tx.insert(SALES, key + feed.transactions, 7 + number % 2, None)
        tx.commit()
    feed.land()


def write(folder: Path, **rules: str) -> None:
    (folder / "rules").mkdir(exist_ok=True)
    for name, text in rules.items():
        (folder / "rules" / f"{name}.yaml").write_text(text)
    (folder / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")


def watch(folder: Path, chunk: int = 1000) -> Watch:
    return Watch(config(folder), load_rules(folder / "rules"), chunk=chunk)


def changes(folder: Path) -> list[tuple[str, str, str]]:
    return sorted((str(r["rule"]), str(r["change"]), str(r["key"])) for r in rows(folder))


def rows(folder: Path) -> list[dict[str, Any]]:
    table = Ledger(str(folder / "lake"), SOURCE).open()
    return [] if table is None else table.to_pyarrow_table().to_pylist()


EXPECTED = [("absent", "opened", '{"id":1}'), ("low", "opened", '{"id":1}')]


def test_an_alert_has_its_evidence_and_its_place(feed: Feed, tmp_path: Path) -> None:
    watch(tmp_path).round(final=True)
    assert changes(tmp_path) == EXPECTED
    alert = next(r for r in rows(tmp_path) if r["rule"] == "absent")
    assert alert["title"] == "Product 1 was sold and not restocked"
    (event,) = alert["evidence"]
    assert (event["table"], event["op"], event["tx_id"], event["tx_order"]) == ("public.sales", "c", "00001", 1)
    assert (event["key"], event["values"], event["lsn"]) == ('{"id":1}', '{"qty":1}', 0)
    assert alert["position"] == 21


def test_what_was_evaluated_is_not_evaluated_again(feed: Feed, tmp_path: Path) -> None:
    for _ in range(3):
        watch(tmp_path).round(final=True)
    assert changes(tmp_path) == EXPECTED


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_each_alert_counts_once(feed: Feed, tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-m", "cdc_lake", "-q", "rules", "run", "--until-caught-up"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    go_on(feed, 1)
    watch(tmp_path).round(final=True)
    assert changes(tmp_path) == EXPECTED


def test_a_wait_goes_on_over_a_restart(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (SALES,))
    write(tmp_path, absent=ABSENT)
    tx = feed.begin()
    tx.insert(SALES, 1, 1, None)
    tx.commit()
    feed.land()
    watch(tmp_path).round(final=True)
    assert changes(tmp_path) == []
    go_on(feed, 4)
    watch(tmp_path).round(final=True)
    assert changes(tmp_path) == EXPECTED[:1]


@pytest.mark.parametrize("lost", ["the memory is gone", "the memory is damaged", "the rule is another one"])
def test_what_a_rule_remembers_is_made_anew_from_the_log(tmp_path: Path, lost: str) -> None:
    feed = Feed(tmp_path, (SALES,))
    write(tmp_path, absent=ABSENT)
    tx = feed.begin()
    tx.insert(SALES, 1, 1, None)
    tx.commit()
    feed.land()
    watch(tmp_path).round(final=True)
    files = list(Path(rule_state_path(str(tmp_path / "lake"), SOURCE, "absent")).glob("*.parquet"))
    assert len(files) == 1
    if lost == "the memory is gone":
        files[0].unlink()
    elif lost == "the memory is damaged":
        files[0].write_bytes(b"PAR1")
    else:
        write(tmp_path, absent=ABSENT.replace("2 minutes", "3 minutes"))
    go_on(feed, 6)
    watch(tmp_path).round(final=True)
    assert changes(tmp_path) == EXPECTED[:1]


def test_of_two_processes_that_evaluate_a_rule_the_second_stops_and_writes_nothing(feed: Feed, tmp_path: Path) -> None:
    one, other = watch(tmp_path), watch(tmp_path)
    one.round(final=True)
    other.round(final=True)
    tx = feed.begin()
    tx.update(SALES, 1, 9, None, touch=True)
    tx.commit()
    feed.land()
    other.round(final=True)
    before = len(rows(tmp_path))
    with pytest.raises(LakeError) as stop:
        one.round(final=True)
    assert stop.value.code == "rules_fenced"
    assert len(rows(tmp_path)) == before


def test_a_new_rule_begins_now_and_that_now_is_kept(feed: Feed, tmp_path: Path) -> None:
    write(tmp_path, low=LOW.replace("start: beginning\n", ""), absent=ABSENT)
    watch(tmp_path).round()
    assert changes(tmp_path) == EXPECTED[:1]
    tx = feed.begin()
    tx.insert(SALES, 50, 0, None)
    tx.commit()
    feed.land()
    watch(tmp_path).round(final=True)
    assert ("low", "opened", '{"id":50}') in changes(tmp_path)


def test_a_rule_that_cannot_be_computed_stands_still_and_the_others_go_on(feed: Feed, tmp_path: Path) -> None:
    write(tmp_path, low=LOW, absent=ABSENT, broken=LOW.replace("qty < 2", "CAST(note AS INTEGER) < 2"))
    tx = feed.begin()
    tx.insert(SALES, 60, 9, "no number")
    tx.commit()
    feed.land()
    one = watch(tmp_path)
    one.round(final=True)
    assert changes(tmp_path) == EXPECTED
    (failed,) = one.failed
    assert isinstance(failed.error, RuleError)
    assert failed.error.code == "rule_failed"
    assert "no number" in failed.error.why
    assert Ledger(str(tmp_path / "lake"), SOURCE).place("broken") is None


def test_events_that_nobody_can_count_are_named(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (SALES,))
    late = LOW.replace("{table: sales}", "{table: sales, time: CAST(note AS TIMESTAMP)}")
    write(tmp_path, low=late.replace("key: [id]", "key: [id]\nlateness: 1 minute\nahead: 1 hour"))
    for key, note in enumerate(["2026-11-24T00:01", "2026-11-23T00:00", "2027-01-01T00:00", None, "2026-11-24T00:05"]):
        tx = feed.begin()
        tx.insert(SALES, key, 1, note)
        tx.commit()
    feed.land()
    watch(tmp_path).round(final=True)
    why = {r["key"]: r["note"] for r in rows(tmp_path) if r["change"] == "late"}
    assert why == {'{"id":1}': "late", '{"id":2}': "in the future", '{"id":3}': "no time"}


def test_snapshots_and_repairs_are_no_events(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (SALES,))
    write(tmp_path, low=LOW)
    feed.rows[SALES][9] = {"id": 9, "qty": 0, "note": None}
    feed.snapshot(SALES)
    go_on(feed, 2)
    watch(tmp_path).round(final=True)
    assert changes(tmp_path) == []


def test_a_source_without_transactions_is_refused(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (SALES,), metadata=False)
    write(tmp_path, low=LOW)
    go_on(feed, 2)
    with pytest.raises(LakeError) as stop:
        watch(tmp_path).round()
    assert stop.value.code == "no_transactions"
