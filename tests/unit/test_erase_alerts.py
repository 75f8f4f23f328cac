"""An erased row is in no alert and in nothing that a rule remembers; the alert stays, and rules go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cdc_lake.config import load_config
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.run import Watch
from tests.commands import run
from tests.lake_model import Feed
from tests.unit.test_erase import CANARY, CUSTOMERS, KEY, feed, holding, query, young_orphan

__all__ = ["feed"]
POINTS = ("erase:before-alerts", "erase:after-alerts")
_STATES = "SELECT rule, key, state, len(evidence) FROM lake.alerts ORDER BY ALL"
LOW = """title: Customer {id} wrote {note}
start: beginning
key: [id]
streams: {c: {table: customers, values: [note]}}
threshold: {of: c, when: qty < 20}
"""
# Remembers every customer.
WAITS = """title: Customer {id} did not come back
start: beginning
key: [id]
streams: {c: {table: customers, values: [note]}, d: {table: customers, where: qty > 1000}}
absence: {after: c, of: d, within: 3 days}
"""


@pytest.fixture
def watched(feed: Feed) -> Feed:
    """With alerts of the person and of others, and rules that remember them."""
    folder = feed.folder / "rules"
    folder.mkdir()
    (folder / "low.yaml").write_text(LOW)
    (folder / "waits.yaml").write_text(WAITS)
    watch(feed.folder).round(final=True)
    return feed


def watch(folder: Path) -> Watch:
    return Watch(load_config(folder / "cdc-lake.yaml", environ={}), load_rules(folder / "rules"))


def is_held(folder: Path, part: str) -> bool:
    return any(part in h for h in holding(folder, str(KEY)))


def test_no_alert_and_no_memory_has_a_byte_of_an_erased_row(watched: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    folder = watched.folder
    assert is_held(folder, "/alerts/")
    assert is_held(folder, "/rule_state/waits/")
    before = query(folder, _STATES)
    assert run(folder, "erase", "customers", str(KEY), "--now", capfd=capfd)[0] == 0
    assert holding(folder, CANARY, str(KEY)) == []
    person = [s for s in before if s[1] == json.dumps({"id": KEY}, separators=(",", ":"))]
    assert person
    expected = sorted(s if s not in person else (s[0], "{}", *s[2:]) for s in before)
    assert sorted(query(folder, _STATES)) == expected


def test_a_process_that_runs_meanwhile_forgets_too(watched: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    folder = watched.folder
    one = watch(folder)
    one.round()
    assert run(folder, "erase", "customers", str(KEY), "--now", capfd=capfd)[0] == 0
    tx = watched.begin()
    tx.insert(CUSTOMERS, 500, 1, "short of something")
    tx.commit()
    watched.land()
    assert one.round(final=True) == 1
    assert holding(folder, CANARY, str(KEY)) == []


@pytest.mark.parametrize("point", POINTS)
def test_an_erasure_killed_there_is_gone_on_with_by_the_next(
    watched: Feed, point: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "cdc_lake", "--config", "cdc-lake.yaml", "erase", "customers", str(KEY), "--now"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    done = subprocess.run(command, check=False, cwd=watched.folder, env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run(watched.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)[0] == 0
    live = holding(watched.folder, CANARY, str(KEY))
    assert [h for h in live if not young_orphan(watched.folder / h.split(":")[0])] == []
