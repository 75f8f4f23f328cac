"""Maintenance beside a sink: begun when enough was committed, then at rest for nine times its effort, never fatal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import psutil
import pytest

from cdc_lake.cli import caretaker, output
from cdc_lake.cli.caretaker import COMMITS, Caretaker, Pace, maintain_command
from cdc_lake.config import load_config
from tests.integration.conftest import wait_for

DONE = """{"tables": [{"files": 40, "files_after": 3, "steps": [{"outcome": "done"}, {"outcome": "skipped"}]}]}"""
NOTHING = """{"tables": [{"files": 3, "files_after": 3, "steps": []}]}"""
BUSY = """{"error": {"code": "maintain_busy", "message": "Busy.", "why": "", "next": "wait"}}"""
BROKEN = """{"error": {"code": "config", "message": "No lake.", "why": "", "next": "look"}}"""
PARTLY = """{"tables": [{"steps": [{"outcome": "failed", "error": {"message": "Disk full."}}]}]}"""


def test_a_maintenance_is_due_after_so_many_commits_and_a_rest_of_nine_times_its_processor_time() -> None:
    pace = Pace()
    assert not pace.due(COMMITS - 1, 0)
    assert pace.due(COMMITS, 0)
    pace.ended(COMMITS, 100, 60, 20)
    assert not pace.due(2 * COMMITS, 279)
    assert pace.due(2 * COMMITS, 280)
    assert not pace.due(2 * COMMITS - 1, 1_000)


def test_a_maintenance_that_waited_most_of_its_time_rests_for_no_longer_than_it_took() -> None:
    pace = Pace()
    pace.ended(COMMITS, 100, 60, 2)
    assert not pace.due(2 * COMMITS, 159)
    assert pace.due(2 * COMMITS, 160)


def test_a_short_maintenance_does_not_follow_on_the_heels_of_another() -> None:
    pace = Pace()
    pace.ended(0, 100, 0.1, 0.1)
    assert not pace.due(COMMITS, 114)
    assert pace.due(COMMITS, 115)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caretaker, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(caretaker, "_LOOK_SECONDS", 0.01)


@pytest.fixture
def said(hurry: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(output, "say", lines.append)
    return lines


def counting(mark: Path, each: int = COMMITS) -> Callable[[], int]:
    """So many commits more whenever a maintenance left a word in `mark`."""
    return lambda: each * (len(mark.read_text().split()) + 1 if mark.exists() else 1)


def printing(text: str, code: int = 0, mark: Path | None = None) -> list[str]:
    script = f"open({str(mark)!r}, 'a').write('x ');" if mark else ""
    return [sys.executable, "-c", f"{script} print({text!r}); raise SystemExit({code})"]


def run_thrice(command: list[str], mark: Path) -> None:
    with Caretaker(counting(mark), command):
        wait_for(lambda: mark.exists() and len(mark.read_text()) >= 6, "three maintenances", seconds=60)


def test_what_was_done_is_told_in_a_line(said: list[str], tmp_path: Path) -> None:
    run_thrice(printing(DONE, mark=tmp_path / "ran"), tmp_path / "ran")
    assert said[0] == "Maintained: 1 steps, 40 files became 3."


@pytest.mark.parametrize(("text", "code"), [(NOTHING, 0), (BUSY, 1)])
def test_nothing_to_do_and_another_at_work_are_no_news(said: list[str], tmp_path: Path, text: str, code: int) -> None:
    run_thrice(printing(text, code, tmp_path / "ran"), tmp_path / "ran")
    assert said == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BROKEN, "Maintenance failed: No lake. look"),
        (PARTLY, "Maintenance failed in part: Disk full. Look with: cdc-lake maintain"),
        ("", "Maintenance ended with 1 and said nothing; by hand: cdc-lake maintain"),
    ],
)
def test_a_failure_is_told_once_and_tried_again(said: list[str], tmp_path: Path, text: str, words: str) -> None:
    run_thrice(printing(text, 1, tmp_path / "ran"), tmp_path / "ran")
    assert said == [words]


def test_a_program_that_cannot_be_started_is_told(said: list[str], tmp_path: Path) -> None:
    with Caretaker(counting(tmp_path / "none"), [str(tmp_path / "missing")]):
        wait_for(lambda: said, "words", seconds=60)
    assert said == ["Maintenance could not be started: No such file or directory."]


@pytest.mark.parametrize(("each", "nice"), [(COMMITS, 10), (8 * COMMITS, 0)])
def test_it_gives_way_to_the_sink_unless_it_lags_behind_the_commits(
    said: list[str], tmp_path: Path, each: int, nice: int
) -> None:
    mark = tmp_path / "nice"
    script = f"""import os, time
deadline, wanted, file = time.monotonic() + 20, {nice}, {str(mark)!r}
while os.nice(0) != wanted and time.monotonic() < deadline: time.sleep(0.01)
open(file, 'a').write(f'{{os.nice(0)}} ')"""
    with Caretaker(counting(mark, each), [sys.executable, "-c", script]):
        wait_for(lambda: mark.exists() and len(mark.read_text().split()) >= 2, "two maintenances", seconds=60)
    assert set(mark.read_text().split()) == {str(nice)}
    assert sum("lags behind" in line for line in said) == (nice == 0)


def test_one_that_does_not_get_to_its_end_while_far_more_is_committed_is_begun_again(
    said: list[str], tmp_path: Path
) -> None:
    mark = tmp_path / "pids"
    script = f"""import os, time
first = not os.path.exists({str(mark)!r})
open({str(mark)!r}, 'a').write(f'{{os.getpid()}} ')
if first: time.sleep(600)
print({DONE!r})"""
    committed = count(COMMITS, COMMITS)

    def commits() -> int:
        return next(committed) if mark.exists() else COMMITS

    with Caretaker(commits, [sys.executable, "-c", script]):
        wait_for(lambda: len(said) >= 2, "the second one to end", seconds=60)
    assert said[:2] == [
        "Maintenance lags behind the commits: it goes on as the sink's equal.",
        "Maintained: 1 steps, 40 files became 3.",
    ]
    assert not psutil.pid_exists(int(mark.read_text().split()[0]))


def test_the_end_of_the_sink_ends_it(said: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with Caretaker(counting(tmp_path / "none"), [sys.executable, "-c", script]):
        wait_for(lambda: mark.exists() and mark.read_text(), "the maintenance to run", seconds=60)
    assert not psutil.pid_exists(int(mark.read_text()))
    assert "caretaker" not in {t.name for t in threading.enumerate()}
    assert said == []


def test_it_maintains_the_lake_of_the_sinks_configuration(tmp_path: Path) -> None:
    assert maintain_command("my lake.yaml", 512)[1:] == [
        *("-m", "cdc_lake", "--config", "my lake.yaml", "--json", "maintain", "--memory-mb", "512")
    ]
    assert "--config" not in maintain_command(None, 32)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    file = tmp_path / "cdc-lake.yaml"
    file.write_text("sink: {maintain: false}\n")
    assert not load_config(file).sink.maintain
    file.write_text("sink: {}\n")
    assert load_config(file).sink.maintain
