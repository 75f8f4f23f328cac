"""Named points at which a test may kill this process, to prove that the next start mends everything.

`CDC_LAKE_CRASH_AT=land:before-commit` makes the process send itself SIGKILL the first time it reaches that point;
`CDC_LAKE_CRASH_AT=land:before-commit:3` the third time.
"""

from __future__ import annotations

import os
import signal

_wanted = os.environ.get("CDC_LAKE_CRASH_AT", "")
_seen: dict[str, int] = {}


def reach(point: str) -> None:
    """Die here if this point was asked for; `point` is `stage:moment`."""
    if not _wanted.startswith(point):
        return
    count = int(_wanted.removeprefix(point).lstrip(":") or 1)
    _seen[point] = _seen.get(point, 0) + 1
    if _seen[point] == count:
        os.kill(os.getpid(), signal.SIGKILL)
