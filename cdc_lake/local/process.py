"""Processes that outlive the command which starts them, found again by a mark in their arguments.

A process id alone says nothing after a crash or a reboot: another program may own it. Each part carries a mark that
names the project's folder, and only a process with that mark is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

KILL = signal.SIGKILL
LOG_BYTES = 16 * 1024 * 1024


class Cancelled(Exception):
    """The command was interrupted while a part was starting."""


@dataclass(frozen=True, slots=True)
class Account:
    """A system account that a part runs as when the command is run by root."""

    name: str
    uid: int
    gid: int


def find(mark: str, *, program: str = "", within: Path | None = None) -> list[psutil.Process]:
    """Living processes that carry `mark` as an argument, or are a `program` at work in the folder `within`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = mark in process.cmdline() or (
                within is not None and process.name() == program and process.cwd() == str(within)
            )
            if ours and alive(process):
                found.append(process)
    return found


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie that nobody collects does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def started(pid: int) -> float:
    """When the process began, seconds since 1970: with its id it names one process for ever."""
    return float(psutil.Process(pid).create_time())


def launch(
    arguments: Sequence[str],
    log: Path,
    *,
    cwd: Path,
    env: Mapping[str, str],
    account: Account | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own (Ctrl-C does not reach it), all its output appended to `log`.

    With `stdout`, as of `subprocess`, that goes elsewhere: no log is to hold it.
    """
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=out if stdout is None else stdout,
            stderr=out,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            **as_account(account),
        )


def as_account(account: Account | None) -> dict[str, Any]:
    """Arguments of subprocess that run a program as `account`, with no group of ours left."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment without what would change a JVM or PostgreSQL behind our back."""
    drop = ("PG", "KAFKA_", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "LOG_DIR")
    return {k: v for k, v in os.environ.items() if not k.startswith(drop)} | extra


def wait_until(check: Callable[[], bool], *, seconds: float, cancelled: threading.Event, pause: float = 0.05) -> bool:
    """Ask until `check` is true (True) or `seconds` have passed (False). Raises Cancelled when told to stop."""
    deadline = time.monotonic() + seconds
    while not check():
        if cancelled.is_set():
            raise Cancelled
        if time.monotonic() > deadline:
            return False
        cancelled.wait(pause)
    return True


def end(processes: Iterable[psutil.Process], *, how: signal.Signals, seconds: float) -> None:
    """Ask processes to end with a signal; kill those that have not after `seconds`, and wait for them."""
    victims = [p for p in processes if alive(p)]
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    _gone(victims, seconds)
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            if alive(process):
                process.kill()
    _gone(victims, 10)


def _gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(alive(p) for p in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def last_lines(log: Path, *, since: int, count: int = 15) -> str:
    """The last lines that were written to `log` after byte `since`, without the frames of Java's traces: what went
    wrong stands above them."""
    try:
        with log.open("rb") as text:
            size = text.seek(0, os.SEEK_END)
            text.seek(max(since if since <= size else 0, size - 32_768))
            lines = text.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if not line.lstrip().startswith("at ")][-count:])
