"""Named points at which a test may kill this process, to prove that the next start mends everything.

`CDC_LAKE_CRASH_AT=land:before-commit` makes the process send itself SIGKILL the first time it reaches that point;
`CDC_LAKE_CRASH_AT=land:before-commit:3` the third time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

# A simulation in one process sets this to raise at a point instead of killing the process.
on_reach: Callable[[str], None] | None = None

_wanted = os.environ.get("CDC_LAKE_CRASH_AT", "")
_seen: dict[str, int] = {}


def reach(point: str) -> None:
    """Die here if this point was asked for; `point` is `stage:moment`."""
    if on_reach is not None:
        on_reach(point)
    name, _, number = _wanted.rpartition(":")
    name, count = (name, int(number)) if number.isdigit() else (_wanted, 1)
    if name != point:
        return
    _seen[point] = _seen.get(point, 0) + 1
    if _seen[point] == count:
        os.kill(os.getpid(), signal.SIGKILL)
