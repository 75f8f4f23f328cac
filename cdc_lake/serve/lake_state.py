"""What only the lake can tell - the cut, folds, dead letters - read by a process of its own every half minute.

Reading the lake takes DuckDB's memory and processor time, and these are not the sink's.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

LOOK_SECONDS = 30.0
_TIMEOUT_SECONDS = 120.0
_NICE = 10


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the lake found; `at` is when, in Unix time, 0 before the first one."""

    cuts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    tables: Sequence[dict[str, Any]] = ()
    letters: Mapping[str, int] = field(default_factory=dict)
    at: float = 0.0


@dataclass(slots=True)
class LakeState:
    """The newest look, and why the last one failed; empty when it did not."""

    found: Found = field(default_factory=Found)
    trouble: str = ""

    def look(self, command: Sequence[str]) -> None:
        """Ask the lake with `command`, which prints what `cdc-lake --json status` does; what fails is `trouble`."""
        try:
            # The words of the child are dropped: they are a person's, and the error is in its JSON.
            answer = json.loads(_printed(command))
        except subprocess.TimeoutExpired:
            self.trouble = f"the lake could not be read within {_TIMEOUT_SECONDS:.0f} s"
        except (OSError, ValueError) as error:
            self.trouble = f"the lake could not be read: {error}"
        else:
            self._take(answer)

    def _take(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            self.trouble = str(answer["error"]["message"])
            return
        sources = [s["name"] for s in answer["sources"]]
        cut = answer["cut"]
        cuts = {sources[0]: cut} if "position" in cut else cut
        letters = {s["name"]: s["dead_letters"] for s in answer["sources"]}
        self.found = Found(cuts, answer["tables"], letters, time.time())
        self.trouble = ""


def _printed(command: Sequence[str]) -> bytes:
    """What a process behind the sink in the queue for the processor prints. Raises TimeoutExpired, OSError."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        try:
            return process.communicate(timeout=_TIMEOUT_SECONDS)[0]
        except BaseException:
            process.kill()
            raise


class Looker:
    """A thread that does something at once and then every so often, until its context ends."""

    def __init__(self, action: Callable[[], None], seconds: float) -> None:
        self._action, self._seconds = action, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is under way is left to end by itself."""
        self._stop.set()

    def _run(self) -> None:
        while True:
            self._action()
            if self._stop.wait(self._seconds):
                return
