"""What a command costs as a whole process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Linux counts what a process had before it became another program: so a small one starts it.
_LAUNCHER = """
import os, subprocess, sys, time
began = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
os._exit(sys.stdout.flush() or os.waitstatus_to_exitcode(status))
"""


class Used(NamedTuple):
    """Seconds, seconds of the processors, and the peak of the resident set in MB."""

    seconds: float
    cpu: float
    peak_mb: float


def measured(command: Sequence[str], *, cwd: Path | None = None, code: int = 0) -> Used:
    """Run `command` to its end, which must be with `code`; what it says goes where this process's words go."""
    launched = [sys.executable, "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}")
    seconds, cpu, kibibytes = done.stdout.split()[-3:]
    return Used(float(seconds), float(cpu), int(kibibytes) * 1024 / 1e6)
