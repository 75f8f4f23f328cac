"""One calm line of a running sink: rewritten in place on a terminal, every ten seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence

from cdc_lake.checks import many
from cdc_lake.cli import output
from cdc_lake.progress import Progress

log = logging.getLogger("cdc_lake.sink")
_TERMINAL_SECONDS = 0.5
_PIPE_SECONDS = 10.0


class Line:
    """Tells of all sinks of the process together. `look` may be called from any thread and as often as one likes."""

    def __init__(self, sinks: Sequence[Progress], *, as_json: bool = False) -> None:
        self._sinks, self._json = sinks, as_json
        self._terminal = sys.stderr.isatty() and output.verbosity() >= 0 and not as_json
        self._every = _TERMINAL_SECONDS if self._terminal else _PIPE_SECONDS
        self._lock = threading.Lock()
        self._events = 0
        self._since = time.monotonic()
        self._next = self._since + self._every

    def look(self, _progress: Progress) -> None:
        """Tell, when it is time to."""
        if time.monotonic() < self._next or (output.verbosity() < 0 and not self._json):
            return
        with self._lock:
            self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        if now < self._next:  # another sink's thread was first
            return
        whole = together(self._sinks)
        rate = (whole.events - self._events) / max(now - self._since, 1e-3)
        self._events, self._since, self._next = whole.events, now, now + self._every
        if self._json:
            log.info("progress", extra={"fields": fields(whole, rate)})
        elif self._terminal:
            output.transient(describe(whole, rate))
        else:
            output.say(describe(whole, rate))


def together(sinks: Sequence[Progress]) -> Progress:
    """The progress of several sinks as one."""
    if len(sinks) == 1:
        return sinks[0]
    commits = [p.last_commit for p in sinks if p.last_commit is not None]
    lags = [p.lag for p in sinks]
    return Progress(
        events=sum(p.events for p in sinks),
        dead=sum(p.dead for p in sinks),
        commits=sum(p.commits for p in sinks),
        tables={t for p in sinks for t in p.tables},
        last_commit=max(commits, default=None),
        lag=None if None in lags else sum(lag for lag in lags if lag is not None),
        waiting=next((p.waiting for p in sinks if p.waiting), ""),
        registry=next((p.registry for p in sinks if p.registry), ""),
        stopped={tp: e for p in sinks for tp, e in list(p.stopped.items())},
    )


def describe(progress: Progress, rate: float) -> str:
    """The progress line's text: tables, events, events/s, lag, last commit, what stands still."""
    parts = [f"{len(progress.tables)} tables", f"{progress.events:,} events", f"{rate:,.0f}/s"]
    if progress.lag is not None:
        parts.append(f"lag {progress.lag:,}")
    if progress.last_commit is not None:
        parts.append(f"last commit {time.monotonic() - progress.last_commit:.1f} s ago")
    if progress.dead:
        parts.append(f"{many(progress.dead, 'dead letter')}, see cdc-lake dlq list")
    if progress.stopped:
        codes = ", ".join(sorted({error.code for error in list(progress.stopped.values())}))
        parts.append(f"{many(len(progress.stopped), 'partition')} stopped: {codes}")
    parts += [f"{words}, see cdc-lake doctor" for words in (progress.waiting, progress.registry) if words]
    return " · ".join(parts)


def fields(progress: Progress, rate: float) -> dict[str, object]:
    """The same for a machine."""
    commit = progress.last_commit
    return {
        "tables": len(progress.tables),
        "events": progress.events,
        "events_per_second": round(rate, 1),
        "lag_records": progress.lag,
        "last_commit_seconds": None if commit is None else round(time.monotonic() - commit, 1),
        "dead_letters": progress.dead,
        "stopped_partitions": len(progress.stopped),
        "waiting": progress.waiting or progress.registry or None,
    }
