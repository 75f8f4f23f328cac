"""How long things take to start: the stack from warm caches, and `cdc-lake --help` (median of nine)."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import say
from cdc_lake.local.stack import Stack


def run(_ends: Any, _stack: Stack, _rows: int) -> None:
    with tempfile.TemporaryDirectory(prefix="cdc-lake-start-") as folder:
        stack = Stack(Path(folder) / ".cdc-lake")
        began = time.monotonic()
        try:
            stack.up(say)
            print(f"up, new project, warm caches      {time.monotonic() - began:6.1f} s")
            stack.down(wipe=False)
            began = time.monotonic()
            stack.up(say)
            print(f"up, existing project              {time.monotonic() - began:6.1f} s")
        finally:
            stack.down(wipe=True)
    taken = []
    for _ in range(9):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "cdc_lake", "--help"], capture_output=True, check=True)
        taken.append(time.monotonic() - began)
    print(f"cdc-lake --help, median of {len(taken)}      {statistics.median(taken):6.2f} s")
