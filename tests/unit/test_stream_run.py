"""A model's rows and its position are committed together: each row once, wherever the process dies, and the same ones
when they are made again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.errors import LakeError
from cdc_lake.land.layout import stream_late_path, stream_path, stream_state_path
from cdc_lake.query.session import open_session
from cdc_lake.react.stream.modelfile import ModelError, load_model, model_files
from cdc_lake.react.stream.run import Streams
from tests.lake_model import SOURCE, Feed, config
from tests.unit.test_cli_rules import until
from tests.unit.test_rules_run import SALES, go_on

POINTS = (
    "stream:after-memory",
    "stream-late:before-commit",
    "stream-late:after-commit",
    "stream:after-late",
    "stream:before-commit",
    "stream:after-commit",
    "stream:after-forget",
)
REPLAYED = ("stream:after-replace",)
LOW = "SELECT id, qty FROM changes.sales WHERE qty < 5\n"
HOURLY = """-- window: tumbling 3 minutes
-- lateness: 1 minute
-- time: coalesce(CAST(note AS TIMESTAMP), __source_ts)
SELECT window_start, count(*) AS n, sum(qty) AS total FROM changes.sales GROUP BY window_start
"""


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Ten minutes of sales; the event of the last one says that it happened at the beginning."""
    feed = Feed(tmp_path, (SALES,))
    write(tmp_path, hourly=HOURLY)
    go_on(feed, 9)
    tx = feed.begin()
    tx.insert(SALES, 1, 1, "2026-11-24T00:01:00")
    tx.commit()
    feed.land()
    return feed


EXPECTED = [("00:00", 2, 15), ("00:03", 3, 22), ("00:06", 3, 23)]
LATE = [("late", '{"id":1}')]


def write(folder: Path, **models: str) -> None:
    (folder / "streams").mkdir(exist_ok=True)
    for name, text in models.items():
        (folder / "streams" / f"{name}.sql").write_text(text)
    (folder / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")


def streams(folder: Path) -> Streams:
    return Streams(config(folder), [load_model(f) for f in model_files(folder / "streams")])


def rows(folder: Path, path: str) -> list[dict[str, Any]]:
    from deltalake import DeltaTable

    found: list[dict[str, Any]] = DeltaTable(path).to_pyarrow_table().to_pylist()
    return found


def made(folder: Path) -> list[tuple[str, int, int]]:
    found = rows(folder, stream_path(str(folder / "lake"), SOURCE, "hourly"))
    return sorted((f"{r['window_start']:%H:%M}", r["n"], int(r["total"])) for r in found)


def late(folder: Path) -> list[tuple[str, str]]:
    return [(r["why"], r["key"]) for r in rows(folder, stream_late_path(str(folder / "lake"), SOURCE, "hourly"))]


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--json", "stream", *arguments])
    out, _ = capfd.readouterr()
    return int(stop.value.code or 0), json.loads(out)


def test_windows_close_by_event_time_and_late_events_are_kept_apart(feed: Feed, tmp_path: Path) -> None:
    for _ in range(2):
        streams(tmp_path).round(final=True)
    assert made(tmp_path) == EXPECTED
    assert late(tmp_path) == LATE
    session = open_session(config(tmp_path))
    found = session.connection.execute(
        "SELECT (SELECT count(*) FROM streams.hourly), why, event_time::VARCHAR, position FROM lake.stream_late_events"
    ).fetchall()
    assert found == [(3, "late", "2026-11-24 00:01:00+00", 19)]
    assert session.connection.execute("FROM lake.streams").fetchall() == [(SOURCE, "hourly", 19)]
    session.close()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_each_row_counts_once(feed: Feed, tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-m", "cdc_lake", "-q", "stream", "run", "--until-caught-up"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    streams(tmp_path).round(final=True)
    assert made(tmp_path) == EXPECTED
    assert late(tmp_path) == LATE


@pytest.mark.parametrize("point", REPLAYED)
def test_a_replay_that_is_killed_is_ended_by_the_next_one(feed: Feed, tmp_path: Path, point: str) -> None:
    streams(tmp_path).round(final=True)
    command = [sys.executable, "-m", "cdc_lake", "-q", "stream", "replay", "hourly"]
    for crash, code in ((point, -signal.SIGKILL), ("", 0)):
        environment = {**os.environ, "CDC_LAKE_CRASH_AT": crash}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=300)
        assert done.returncode == code, done.stderr
    assert (made(tmp_path), late(tmp_path)) == (EXPECTED, LATE)


def test_of_two_processes_that_keep_up_a_model_the_second_stops_and_writes_nothing(feed: Feed, tmp_path: Path) -> None:
    one, other = streams(tmp_path), streams(tmp_path)
    one.round(final=True)
    other.round(final=True)
    go_on(feed, 4)
    other.round(final=True)
    before = made(tmp_path)
    with pytest.raises(LakeError) as stop:
        one.round(final=True)
    assert stop.value.code == "stream_fenced"
    assert made(tmp_path) == before


def test_what_a_model_remembers_is_made_anew_from_the_log(feed: Feed, tmp_path: Path) -> None:
    streams(tmp_path).round(final=True)
    (file,) = Path(stream_state_path(str(tmp_path / "lake"), SOURCE, "hourly")).glob("*.parquet")
    file.unlink()
    go_on(feed, 4)
    streams(tmp_path).round(final=True)
    assert made(tmp_path) == [*EXPECTED, ("00:09", 2, 14)]
    assert late(tmp_path) == LATE


def test_a_replay_from_any_point_makes_the_same_rows(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capfd, "run", "--until-caught-up") == (
        0,
        {"models": [{"model": "hourly", "rows": 3, "late": 1}], "failed": []},
    )
    for moment in ("tx:00001", "tx:00005", "tx:00010", None):
        code, found = run(capfd, "replay", "hourly", *(["--from", moment] if moment else []))
        assert (code, found["missing"], found["extra"], found["same"] == found["rows"]) == (0, 0, 0, True)
        assert (made(tmp_path), late(tmp_path)) == (EXPECTED, LATE)
    go_on(feed, 4)
    run(capfd, "run", "--until-caught-up")
    assert made(tmp_path) == [*EXPECTED, ("00:09", 2, 14)]
    output.configure(config=None, as_json=False, verbosity=0)


def test_a_replay_of_a_model_that_never_ran_is_gone_on_from(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, found = run(capfd, "replay", "hourly")
    assert (code, found["anew"], found["rows"], found["late"]) == (0, True, 3, 1)
    assert (made(tmp_path), late(tmp_path)) == (EXPECTED, LATE)
    go_on(feed, 4)
    run(capfd, "run", "--until-caught-up")
    assert (made(tmp_path), late(tmp_path)) == ([*EXPECTED, ("00:09", 2, 14)], LATE)
    output.configure(config=None, as_json=False, verbosity=0)


def test_a_replay_finds_rows_that_were_meddled_with_and_puts_them_right(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from deltalake import DeltaTable

    monkeypatch.chdir(tmp_path)
    run(capfd, "run", "--until-caught-up")
    DeltaTable(stream_path(str(tmp_path / "lake"), SOURCE, "hourly")).update(
        updates={"n": "n + 1"}, predicate="total = 22"
    )
    code, found = run(capfd, "replay", "hourly", "--dry-run")
    assert (code, found["missing"], found["extra"], found["same"]) == (3, 1, 1, 2)
    assert made(tmp_path) != EXPECTED
    assert run(capfd, "replay", "hourly")[0] == 3
    assert made(tmp_path) == EXPECTED
    assert run(capfd, "replay", "hourly")[0] == 0
    output.configure(config=None, as_json=False, verbosity=0)


def test_a_model_that_was_edited_is_refused_until_it_is_replayed(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capfd, "run", "--until-caught-up")
    write(tmp_path, hourly=HOURLY.replace("count(*) AS n", "count(*) AS n, max(qty) AS most"))
    with pytest.raises(ModelError) as stop:
        streams(tmp_path).round(final=True)
    assert stop.value.code == "model_changed"
    code, found = run(capfd, "replay", "hourly")
    assert (code, found["anew"], found["rows"]) == (0, True, 3)
    go_on(feed, 4)
    run(capfd, "run", "--until-caught-up")
    assert made(tmp_path) == [*EXPECTED, ("00:09", 2, 14)]
    output.configure(config=None, as_json=False, verbosity=0)


def test_a_model_that_cannot_be_computed_stands_still_and_the_others_go_on(feed: Feed, tmp_path: Path) -> None:
    write(tmp_path, broken="SELECT CAST(note AS INTEGER) AS n FROM changes.sales\n", low=LOW)
    running = streams(tmp_path)
    running.round(final=True)
    (failed,) = running.failed
    assert (failed.shape.name, failed.error.code if failed.error else "") == ("broken", "model_failed")
    assert made(tmp_path) == EXPECTED
    assert [r["id"] for r in rows(tmp_path, stream_path(str(tmp_path / "lake"), SOURCE, "low"))] == [1]


def test_check_and_explain_say_what_a_model_does(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, bad="SELECT count(*) AS n FROM changes.sales\n")
    code, found = run(capfd, "check")
    assert code == 3
    assert {m["model"]: m.get("error", {}).get("code") for m in found["models"]} == {
        "bad": "model_not_incremental",
        "hourly": None,
    }
    assert run(capfd, "run", "--until-caught-up")[1]["error"]["code"] == "model_not_incremental"
    said = {e["what"]: e["is"] for e in run(capfd, "explain", "hourly")[1]["explained"]}
    assert "3 minutes" in said["rows"]
    assert said["remembers"].endswith("count_star(), sum(qty)")
    assert run(capfd, "explain", "hourli")[1]["error"]["why"] == 'Did you mean "hourly"?'
    output.configure(config=None, as_json=False, verbosity=0)


def test_a_running_process_sees_what_lands_and_ends_when_told(feed: Feed, tmp_path: Path) -> None:
    path = stream_path(str(tmp_path / "lake"), SOURCE, "hourly")
    command = [sys.executable, "-m", "cdc_lake", "-q", "stream", "run"]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE) as running:
        try:
            until(lambda: Path(path, "_delta_log").exists() and made(tmp_path) == EXPECTED)
            go_on(feed, 4)
            until(lambda: len(made(tmp_path)) == 4)
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert late(tmp_path) == LATE
