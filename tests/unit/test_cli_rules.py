"""`rules` from the command line: check, run, list, test on the past, look after alerts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.query.session import open_session
from tests.lake_model import Feed, config
from tests.unit.test_rules_run import ABSENT, LOW, SALES, go_on, rows, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A product that is low from the second minute to the fourth."""
    feed = Feed(tmp_path, (SALES,))
    for qty in (9, 1, 0, 8):
        tx = feed.begin()
        (tx.update if 1 in feed.rows[SALES] else tx.insert)(SALES, 1, qty, "x")
        tx.commit()
    go_on(feed, 3)
    write(tmp_path, low=LOW.replace("streams: {s: {table: sales}}", "streams: {s: {table: sales, values: [qty]}}"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    output.configure(config=None, as_json=False, verbosity=0)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--json", "rules", *arguments])
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), json.loads(out), err


def test_check_names_each_rule_that_is_refused_and_ends_with_3(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "check")[:2] == (0, {"rules": [{"rule": "low", "kind": "threshold", "result": "OK"}]})
    write(folder, bad=LOW.replace("qty < 2", "now() < 2"), worse="title: [")
    code, document, _ = run(capfd, "check")
    assert code == 3
    assert {r["rule"]: r.get("error", {}).get("code") for r in document["rules"]} == {
        "bad": "rule_not_incremental",
        "low": None,
        "worse": "rule",
    }


def test_no_rule_runs_while_one_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(folder, bad=LOW.replace("qty < 2", "now() < 2"))
    code, document, _ = run(capfd, "run", "--until-caught-up")
    assert (code, document["error"]["code"]) == (1, "rule_not_incremental")
    assert rows(folder) == []


def test_run_opens_alerts_that_sql_shows(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(capfd, "run", "--until-caught-up")
    assert code == 0
    assert document["rules"] == [{"rule": "low", "opened": 1, "resolved": 1, "late": 0}]
    session = open_session(config(folder))
    found = session.connection.execute(
        """SELECT rule, state, title, opened_at::VARCHAR, resolved_at::VARCHAR, resolved_by, evidence[1].tx_id
        FROM lake.alerts"""
    ).fetchall()
    session.close()
    opened, resolved = "2026-11-24 00:02:00+00", "2026-11-24 00:04:00+00"
    assert found == [("low", "resolved", "Product 1 is low", opened, resolved, "the rule", "00002")]
    assert run(capfd, "list")[1]["rules"] == [
        {
            "rule": "low",
            "kind": "threshold",
            "severity": "warning",
            "position": 13,
            "behind": 0,
            "positions": [{"source": "pos", "position": 13}],
            "waits_for": None,
            "waits_since": None,
            "open": 0,
            "acknowledged": 0,
            "resolved": 1,
        }
    ]


def test_a_test_on_the_past_shows_what_a_rule_would_have_done_and_writes_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, document, _ = run(capfd, "test", "low", "--to", "2026-11-24T00:03:00Z")
    assert code == 0
    assert [(f["change"], f["at"], f["key"]) for f in document["found"]] == [
        ("opened", "2026-11-24T00:02:00+00:00", {"id": 1})
    ]
    found = run(capfd, "test", "low", "--from", "tx:00002")[1]["found"]
    assert [f["change"] for f in found] == ["opened", "resolved"]
    assert not (folder / "lake" / "pos" / "alerts").exists()
    assert run(capfd, "test", "lo")[1]["error"]["why"] == 'Did you mean "low"?'


def test_a_person_acknowledges_and_resolves(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(folder, low=LOW, absent=ABSENT)
    run(capfd, "run", "--until-caught-up")
    (alert,) = run(capfd, "alerts", "--state", "resolved")[1]["alerts"]
    assert run(capfd, "ack", alert["id"][:6])[1]["is"] == "resolved", "what is settled stays settled"
    feed = Feed(folder, (SALES,), transactions=20, ends=100, offsets={(SALES, 0): 500, (SALES, 1): 500})
    tx = feed.begin()
    tx.insert(SALES, 77, 0, None)
    tx.commit()
    feed.land()
    run(capfd, "run", "low", "--until-caught-up")
    (alert,) = run(capfd, "alerts", "--state", "open")[1]["alerts"]
    assert run(capfd, "ack", alert["id"], "--note", "on it")[1] == {
        "id": alert["id"],
        "title": "Product 77 is low",
        "was": "open",
        "is": "acknowledged",
    }
    shown = run(capfd, "alerts", alert["id"])[1]
    assert (shown["state"], shown["note"], shown["evidence"][0]["key"]) == ("acknowledged", "on it", '{"id":77}')
    assert run(capfd, "resolve", alert["id"])[1]["was"] == "acknowledged"
    assert run(capfd, "alerts", "--state", "open")[1]["alerts"] == []
    assert run(capfd, "ack", "nothing")[1]["error"]["code"] == "no_alert"


def test_silences_begin_are_listed_and_end(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(capfd, "silence", "low", "--for", "2h", "--key", '{"id": 1}', "--note", "stock-taking")
    assert code == 0
    (one,) = run(capfd, "silences")[1]["silences"]
    assert (one["id"], one["rule"], one["key"], one["note"]) == (document["silence"], "low", '{"id":1}', "stock-taking")
    (ended,) = run(capfd, "silences", "--end", one["id"])[1]["silences"]
    assert ended["until"] < one["until"]
    assert run(capfd, "silences", "--end", "x")[1]["error"]["code"] == "no_silence"
    assert run(capfd, "silence", "low", "--for", "soon")[0] == 2


def test_without_rules_the_way_to_one_is_shown(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "rules" / "low.yaml").unlink()
    code, document, _ = run(capfd, "run")
    assert (code, document["error"]["code"]) == (2, "no_rules")


def test_a_running_process_sees_what_lands_and_ends_when_told(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cdc_lake", "-q", "rules", "run"], cwd=folder, env=os.environ, stderr=subprocess.PIPE
    ) as running:
        try:
            until(lambda: len(rows(folder)) == 2)
            feed = Feed(folder, (SALES,), transactions=20, ends=100, offsets={(SALES, 0): 500, (SALES, 1): 500})
            tx = feed.begin()
            tx.insert(SALES, 77, 0, None)
            tx.commit()
            feed.land()
            until(lambda: len(rows(folder)) == 3)
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def until(what: Any) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
