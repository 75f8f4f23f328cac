"""How long things take to start: the stack from warm caches, and `cdc-lake --help` (median of nine)."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Report, say
from cdc_lake.local.stack import Stack


def run(_ends: Any, _stack: Stack, report: Report) -> None:
    table = report.table("Starting", what="", seconds=".2f")
    with tempfile.TemporaryDirectory(prefix="cdc-lake-start-") as folder:
        stack = Stack(Path(folder) / ".cdc-lake")
        began = time.monotonic()
        try:
            stack.up(say)
            table.add("`up`, new project, warm caches", time.monotonic() - began)
            stack.down(wipe=False)
            began = time.monotonic()
            stack.up(say)
            table.add("`up`, existing project", time.monotonic() - began)
        finally:
            stack.down(wipe=True)
    taken = []
    for _ in range(9):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "cdc_lake", "--help"], capture_output=True, check=True)
        taken.append(time.monotonic() - began)
    table.add(f"`cdc-lake --help`, median of {len(taken)}", statistics.median(taken))
