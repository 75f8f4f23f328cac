"""What the benchmarks share: words to stderr, figures to stdout, and conditions waited for with a deadline."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    parts = ", ".join(
        f"{p} {version(p)}" for p in ("deltalake", "duckdb", "pyarrow", "kafka-python", "confluent-kafka")
    )
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {parts}"


def wait(done: Callable[[], bool], what: str, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.2)
    say(what)
