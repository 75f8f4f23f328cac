"""How much of what is told to other systems about the work did not reach them: spans of traces, events of lineage.

Whoever sends counts here, and the sink's metrics show it. What cannot be delivered never stops the work.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Literal

Kind = Literal["traces", "lineage"]
# How long the end of a command waits for what is still to be sent, where sending fails and where it is only slow.
_QUICK_SECONDS, _PATIENT_SECONDS = 2.0, 10.0
_lock = threading.Lock()
_counts: Counter[str] = Counter()


def count(kind: Kind, number: int) -> None:
    """Add what did not arrive."""
    with _lock:
        _counts[kind] += number


def wait_for_last(sending: threading.Thread, troubled: Callable[[], bool]) -> bool:
    """Wait for the end of what is sent last, a bounded time, a short one where that makes trouble; whether it ended."""
    sending.join(_QUICK_SECONDS)
    if sending.is_alive() and not troubled():
        sending.join(_PATIENT_SECONDS - _QUICK_SECONDS)
    return not sending.is_alive()


def counts() -> dict[str, int]:
    """What did not arrive so far in this process, by kind."""
    with _lock:
        return {"traces": _counts["traces"], "lineage": _counts["lineage"]}
