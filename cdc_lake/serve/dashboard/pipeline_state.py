"""How the pipeline does, as a document: tables with their rates, lag, cut and what it waits for, dead letters."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from cdc_lake.config import Config
from cdc_lake.query.overview import overview_of
from cdc_lake.query.session import Session
from cdc_lake.serve.dashboard.outside import Outside

_RATE_SECONDS = 60.0


class Rates:
    """Changes landed per second, by table, over the last minute that was watched."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def note(self, counts: Mapping[str, int], now: float | None = None) -> dict[str, float]:
        """Take the counts of now; the rates since the oldest that is not older than a minute."""
        now = time.monotonic() if now is None else now
        self._seen.append((now, dict(counts)))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_SECONDS:
            self._seen.popleft()
        began, before = self._seen[0]
        seconds = now - began
        if seconds <= 0:
            return {}
        return {t: round(max(0, n - before[t]) / seconds, 2) for t, n in counts.items() if t in before}


def pipeline_document(
    config: Config, session: Session, outside: Outside, rates: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The document. Without `rates` (of a past moment there are none) they are null. Raises LakeError."""
    found = overview_of(config, session.sources, outside.ends)
    tables = [{**t, "rate": (rates or {}).get(f"{t['source']}:{t['table']}")} for t in found["tables"]]
    return {
        "sources": found["sources"],
        "tables": tables,
        # Ages are the reader's to count: a document is sent when something else in it has changed.
        "cuts": {n: {k: v for k, v in c.as_dict().items() if k != "age_seconds"} for n, c in session.cuts.items()},
        "connectors": [{"name": n, "state": s} for n, s in outside.connectors],
        "sinks": [dict(s) for s in outside.sinks],
        "troubles": list(outside.troubles),
    }


def counts_of(session: Session) -> dict[str, int]:
    """Rows landed, by source and table."""
    return {f"{s.source}:{t.table}": t.log.rows for s in session.sources for t in s.tables}
