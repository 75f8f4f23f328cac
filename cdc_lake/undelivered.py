"""How much of what is told to other systems about the work did not reach them: spans of traces, events of lineage.

Whoever sends counts here, and the sink's metrics show it. What cannot be delivered never stops the work.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

Kind = Literal["traces", "lineage"]
_lock = threading.Lock()
_counts: Counter[str] = Counter()


def count(kind: Kind, number: int) -> None:
    """Add what did not arrive."""
    with _lock:
        _counts[kind] += number


def counts() -> dict[str, int]:
    """What did not arrive so far in this process, by kind."""
    with _lock:
        return {"traces": _counts["traces"], "lineage": _counts["lineage"]}
