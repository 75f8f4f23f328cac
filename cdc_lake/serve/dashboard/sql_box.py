"""SQL that comes over HTTP: one question at a time, in a process that is ended when it takes too much."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict

import psutil

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.query.guard import Limits, limit_error
from cdc_lake.query.run import SqlError

_WAITING = 4
# Opening the lake is not the query's time; a past moment of a large one takes longest.
_OPEN_SECONDS = 180.0
# Libraries, and what DuckDB does not count: what the process may hold beside the query's own memory.
_BESIDE_BYTES = 700_000_000
# DuckDB itself ends a query in time where it can, and says so.
_GRACE_SECONDS = 1.0
_LOOK_SECONDS = 0.05


class SqlBox:
    """Asks a worker process, which it starts when the first question comes, and anew after it had to be ended."""

    def __init__(self, config: Config, limits: Limits, version: Callable[[], object]) -> None:
        self._config, self.limits, self._version = config, limits, version
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_WAITING)
        self._process: subprocess.Popen[str] | None = None

    def ask(self, sql: str, at: str | None) -> str:
        """The document with the rows. Raises SqlError (wrong, refused, too long, too much), UnavailableError (busy)."""
        if not self._waiting.acquire(blocking=False):
            raise UnavailableError(
                "Too many queries are waiting.",
                why="One runs at a time.",
                next="try again in a moment",
                code="sql_busy",
            )
        try:
            with self._turn:
                text = self._exchange({"sql": sql, "at": at, "version": self._version()})
        finally:
            self._waiting.release()
        if text.startswith('{"error": '):
            error = json.loads(text)["error"]
            raise SqlError(error["message"], why=error["why"], next=error["next"], code=error["code"])
        return text

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def _exchange(self, asked: dict[str, object]) -> str:
        process = self._started()
        lines: list[str] = []

        def talk() -> None:
            # A line that is empty but for its end says that the lake is open; one without an end, that it is over.
            with suppress(OSError):
                if process.stdin is not None and process.stdout is not None:
                    process.stdin.write(json.dumps(asked) + "\n")
                    process.stdin.flush()
                    lines.append(process.stdout.readline())
                    if lines[0] == "\n":
                        lines.append(process.stdout.readline())

        thread = threading.Thread(target=talk, name="sql", daemon=True)
        thread.start()
        too_much = self._watch(process, thread, lines)
        if too_much is not None:
            self._end()
            thread.join()
            raise too_much
        if not lines or not lines[-1]:
            self._end()
            raise SqlError("The query ended the process that ran it.", why="It asked for too much.", code="sql_limit")
        return lines[-1].rstrip("\n")

    def _watch(
        self, process: subprocess.Popen[str], thread: threading.Thread, lines: Sequence[str]
    ) -> CdcLakeError | None:
        """Wait for the answer; the error when the process takes too long or holds too much."""
        most = self.limits.memory_mb * 1_000_000 + _BESIDE_BYTES
        seen, last, opened = psutil.Process(process.pid), time.monotonic() + _OPEN_SECONDS, False
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            if lines and not opened:
                last, opened = time.monotonic() + self.limits.seconds + _GRACE_SECONDS, True
            with suppress(psutil.Error):
                if seen.memory_info().rss > most:
                    return limit_error(f"It needed more than {self.limits.memory_mb} MB of memory.")
            if time.monotonic() > last:
                return limit_error(f"It ran for more than {self.limits.seconds if opened else _OPEN_SECONDS:g} s.")
        return None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            words = [sys.executable, "-m", "cdc_lake.serve.dashboard.sql_worker"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(words, text=True, encoding="utf-8", start_new_session=True, **pipes)  # type: ignore[call-overload]
            setup = {
                "config": self._config.model_dump(mode="json", by_alias=True, exclude={"root"}),
                "root": str(self._config.root.absolute()),
                "limits": asdict(self.limits),
            }
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(setup) + "\n")
                self._process.stdin.flush()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
