"""Only a process with our mark is ours, whatever a file says about process ids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cdc_lake.local import process

WAIT = "import signal, time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"-Dcdc.lake.test={uuid.uuid4()} with a space"
    yield mark
    process.end(process.find(mark), how=signal.SIGKILL, seconds=5)


def start(mark: str, folder: Path, program: str = WAIT) -> subprocess.Popen[bytes]:
    log = folder / "log"
    child = process.launch(
        [sys.executable, "-c", program, mark], log, cwd=folder, env=process.environment(), account=None
    )
    up = process.wait_until(lambda: b"up" in log.read_bytes(), seconds=20, cancelled=threading.Event())
    assert up
    return child


def test_a_process_is_found_by_its_mark_and_by_no_part_of_it(mark: str, tmp_path: Path) -> None:
    child = start(mark, tmp_path)
    assert [p.pid for p in process.find(mark)] == [child.pid]
    assert process.find(mark[:-1]) == []


def test_a_dead_child_that_nobody_collected_is_not_alive(mark: str, tmp_path: Path) -> None:
    child = start(mark, tmp_path)
    seen = psutil.Process(child.pid)
    child.send_signal(signal.SIGKILL)
    assert process.wait_until(lambda: not process.alive(seen), seconds=20, cancelled=threading.Event())
    assert process.find(mark) == []
    child.wait()


def test_a_process_that_ignores_the_request_to_end_is_killed(mark: str, tmp_path: Path) -> None:
    child = start(mark, tmp_path, STUBBORN)
    process.end(process.find(mark), how=signal.SIGTERM, seconds=0.2)
    assert child.wait(timeout=20) == -signal.SIGKILL


def test_a_launched_process_is_in_a_session_of_its_own(mark: str, tmp_path: Path) -> None:
    child = start(mark, tmp_path)
    assert os.getsid(child.pid) == child.pid


def test_someone_at_work_in_a_folder_is_not_ours_unless_it_is_that_program(mark: str, tmp_path: Path) -> None:
    child = start(mark, tmp_path)
    name = psutil.Process(child.pid).name()
    assert process.find("no such mark", program="postgres", within=tmp_path) == []
    assert [p.pid for p in process.find("no such mark", program=name, within=tmp_path)] == [child.pid]


def test_waiting_ends_when_told_to_stop() -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(process.Cancelled):
        process.wait_until(lambda: False, seconds=600, cancelled=cancelled)


def test_waiting_ends_at_its_deadline() -> None:
    assert process.wait_until(lambda: False, seconds=0.05, cancelled=threading.Event()) is False


def test_the_last_lines_are_those_that_say_what_went_wrong_and_no_frames_of_a_trace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    frames = "".join(f"\tat kafka.Frame{i}.start(Frame.scala:{i})\n" for i in range(40))
    log.write_text(f"java.io.IOException: No space left on device\n{frames}Caused by: a full disk\n{frames}")
    shown = "java.io.IOException: No space left on device\nCaused by: a full disk"
    assert process.last_lines(log, since=0) == shown


def test_the_last_lines_are_those_of_this_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("an old failure\n")
    before = log.stat().st_size
    with log.open("a") as more:
        more.write("".join(f"line {i}\n" for i in range(40)))
    assert process.last_lines(log, since=before, count=3) == "line 37\nline 38\nline 39"
    assert "old" not in process.last_lines(log, since=before, count=100)
    assert process.last_lines(tmp_path / "absent", since=0) == ""


def test_a_large_log_is_put_aside_at_the_next_start(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").write_bytes(b"old" * 100)
    monkeypatch.setattr(process, "LOG_BYTES", 200)
    start(mark, tmp_path)
    assert (tmp_path / "log.log.1").read_bytes() == b"old" * 100
    assert b"old" not in (tmp_path / "log").read_bytes()


def test_settings_of_other_programs_do_not_reach_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-agentlib:jdwp")
    monkeypatch.setenv("POS_PASSWORD", "by reference")
    found = process.environment(TZ="UTC")
    assert not {"PGDATA", "JAVA_TOOL_OPTIONS"} & found.keys()
    assert found["POS_PASSWORD"] == "by reference"
    assert found["TZ"] == "UTC"
