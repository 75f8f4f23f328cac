"""Maintenance beside a running sink: `cdc-lake maintain` as a process of its own, when enough has been committed.

Its memory, its processor time and its end are not the sink's. When another maintenance is at work it leaves it to that.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cdc_lake.cli import output

# Each commit of the sink is a file in every table that changed, and a compaction takes eight; a reader opens them all.
COMMITS = 16
# At most a tenth of a processor's time goes into maintenance, and a start is not made for a handful of files. What it
# takes on the clock says little of that: where others take the processors it is long, and small files pile up.
_SHARE = 10
_LEAST_SECONDS = 15.0
_LOOK_SECONDS = 1.0
# Behind the sink in the queue for the processor, as long as it keeps up: where others take all of it, a process that
# waits behind them may never end, and small files pile up.
_NICE = 10
_BEHIND = 8 * COMMITS


@dataclass(slots=True)
class Pace:
    """When the next maintenance is due: after `COMMITS` commits, and nine times the processor time of the last one."""

    commits: int = 0
    rest_until: float = 0.0

    def due(self, commits: int, now: float) -> bool:
        """Whether to begin, at `commits` in all and the time `now` in seconds."""
        return commits - self.commits >= COMMITS and now >= self.rest_until

    def behind(self, commits: int) -> bool:
        """Whether far more has been committed than a maintenance is begun for."""
        return commits - self.commits >= _BEHIND

    def ended(self, commits: int, now: float, seconds: float, cpu: float) -> None:
        """It took `seconds`, `cpu` of them of the processors, and what was committed up to `commits` is seen to."""
        self.commits = commits
        self.rest_until = now + max(_LEAST_SECONDS, cpu * (_SHARE - 1), seconds)


class Caretaker:
    """A thread that starts a maintenance whenever one is due. Use as a context around the sinks' run.

    `commits` is asked how many commits there have been. What fails is said once, and never ends the sink.
    """

    def __init__(self, commits: Callable[[], int], command: Sequence[str]) -> None:
        self._commits, self._command = commits, command
        self._pace = Pace(rest_until=time.monotonic() + _LEAST_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="caretaker", daemon=True)
        self._said, self._lags = "", False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            commits, begun, cpu = self._commits(), time.monotonic(), _cpu_of_children()
            if self._pace.due(commits, begun):
                self._maintain(self._pace.behind(commits))
                now = time.monotonic()
                self._pace.ended(commits, now, now - begun, _cpu_of_children() - cpu)

    def _maintain(self, behind: bool) -> None:
        """Run one; one that others keep from running is ended, and begun again as the sink's equal."""
        if behind and not self._lags:
            output.say("Maintenance lags behind the commits: it goes on as the sink's equal.")
        self._lags = behind
        try:
            # In a group of its own: Ctrl-C is for the sink, which then ends it.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._say(f"Maintenance could not be started: {error.strerror}.")
            return
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 0 if behind else _NICE)
        text = self._ended(process, behind)
        if text is not None:
            self._say(_summary(process.returncode, text))
        elif not self._stop.is_set():
            self._maintain(behind=True)

    def _ended(self, process: subprocess.Popen[bytes], behind: bool) -> bytes | None:
        """What it printed; None when it was ended, for it may be killed anywhere: the sink ended first, or it was not
        `behind` when it began, and is by now."""
        while True:
            try:
                return process.communicate(timeout=_LOOK_SECONDS)[0]
            except subprocess.TimeoutExpired:
                if self._stop.is_set() or (not behind and self._pace.behind(self._commits())):
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    return None

    def _say(self, text: str) -> None:
        # A disk that stays full is not news every half minute.
        if text and text != self._said:
            output.say(text)
        self._said = text


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def maintain_command(config: str | None, memory_mb: float) -> list[str]:
    """The command line of a maintenance with the memory that the sink may take for itself."""
    named = ["--config", config] if config is not None else []
    least = 64
    return [
        sys.executable,
        "-m",
        "cdc_lake",
        *named,
        "--json",
        "maintain",
        "--memory-mb",
        str(max(least, int(memory_mb))),
    ]


def _summary(code: int, text: bytes) -> str:
    """What to tell a person: nothing when nothing was due, or another maintenance is at work."""
    try:
        report: dict[str, Any] = json.loads(text)
    except ValueError:
        return f"Maintenance ended with {code} and said nothing; by hand: cdc-lake maintain"
    error = report.get("error")
    if error is not None:
        return "" if error["code"] == "maintain_busy" else f"Maintenance failed: {error['message']} {error['next']}"
    steps = [step for table in report["tables"] for step in table["steps"]]
    failed = [s for s in steps if s["outcome"] == "failed"] + [t for t in report["tables"] if "error" in t]
    if failed:
        return f"Maintenance failed in part: {failed[0]['error']['message']} Look with: cdc-lake maintain"
    done = sum(step["outcome"] == "done" for step in steps)
    files = sum(t["files"] for t in report["tables"]), sum(t["files_after"] for t in report["tables"])
    return f"Maintained: {done} steps, {files[0]:,} files became {files[1]:,}." if done else ""
