"""Delivery: every change of an alert to every output that wants it, however long the output is away.

What was sent is written down after it was: killed between the two, it is sent again with the same key. What waits is
what is in the alerts table and not yet in the table of deliveries, so nothing is lost with a process.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from cdc_lake.config import Config
from cdc_lake.config_rules import Output
from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, first_line
from cdc_lake.land.layout import alerts_path, deliveries_path
from cdc_lake.land.reading import read_rows
from cdc_lake.land.store import DeltaStore
from cdc_lake.land.tables import ALERTS, DELIVERIES
from cdc_lake.react.outputs import Message, NotSent, Sender, sender_of
from cdc_lake.react.silences import Silences, silenced

SENT, FAILED, SILENCED, SKIPPED = "sent", "failed", "silenced", "skipped"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_MINUTE = 60.0
_Item = tuple[str, str]


@dataclass(slots=True)
class _Line:
    """What waits for one output, and how it fares."""

    output: Output
    sender: Sender
    attempts: dict[_Item, int] = field(default_factory=dict)
    due: dict[_Item, float] = field(default_factory=dict)
    times: deque[float] = field(default_factory=deque)
    paused_until: float = 0.0
    failures: int = 0


class Delivery:
    """Sends the alerts of one source.

    Delivery: at least once, with a key by which a receiver tells a message that it has. Order: oldest first, per
    output; a message that an output refuses for good does not keep later ones back.
    """

    def __init__(
        self,
        config: Config,
        source: str,
        *,
        senders: Mapping[str, Sender] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        options = config.lake.options or None
        self._source, self._clock, self._now = source, clock, now
        # The version of the alerts that was looked through, and what waited then.
        self._version, self._left = -1, 0
        self._store = DeltaStore(options)
        self._alerts = alerts_path(config.lake_uri, source)
        self._path = deliveries_path(config.lake_uri, source)
        self._silences = Silences(config.lake_uri, source, options)
        made = senders if senders is not None else {n: sender_of(o) for n, o in config.rules.outputs.items()}
        self._lines = {name: _Line(o, made[name]) for name, o in config.rules.outputs.items()}

    def begin(self) -> None:
        """Mark outputs that were never delivered to: what happened before is not sent to them."""
        for name in self._lines:
            table = self._store.open(self._path)
            if table is None or table.transaction_version(f"output:{name}") is None:
                rows = [self._row(a, name, SKIPPED, 0, "older than the output") for a in self._waiting(name)]
                self._write(rows, {f"output:{name}": 1})

    def run_once(self) -> int:
        """Send what is due; how much waits still, whatever for."""
        table = self._store.open(self._alerts) if self._lines else None
        version = table.version() if table is not None else -1
        if version == self._version and not self._left:
            return 0
        self._left = sum(self._send_all(name, line) for name, line in self._lines.items())
        self._version = version
        return self._left

    def _send_all(self, name: str, line: _Line) -> int:
        """All that is due for one output; how much waits still."""
        waiting = self._waiting(name)
        silences = self._silences.all() if waiting else []
        done: list[dict[str, object]] = []
        kept_back = self._kept_back(name) if any(a["change"] != "opened" for a in waiting) else set()
        sent = 0
        for alert in waiting:
            item = (str(alert["id"]), str(alert["change"]))
            silence = silenced(silences, alert, self._now()) if alert["change"] == "opened" else None
            if silence is not None:
                done.append(self._row(alert, name, SILENCED, 0, f"silence {silence.id}"))
                kept_back.add(item[0])
            elif alert["change"] != "opened" and item[0] in kept_back:
                done.append(self._row(alert, name, SILENCED, 0, "its opening was not sent"))
            elif self._is_due(line, item):
                result = self._try(name, line, item, alert)
                done += [result] if result is not None else []
                sent += result is not None and result["outcome"] == SENT
                if result is not None and result["outcome"] == SENT:
                    # Written one by one: what a kill may send twice is one message.
                    self._write(done, {})
                    done = []
        self._write(done, {})
        return len(self._waiting(name)) if waiting else 0

    def _is_due(self, line: _Line, item: _Item) -> bool:
        now = self._clock()
        while line.times and line.times[0] <= now - _MINUTE:
            line.times.popleft()
        return line.paused_until <= now and line.due.get(item, 0.0) <= now and len(line.times) < line.output.rate

    def _try(self, name: str, line: _Line, item: _Item, alert: Mapping[str, Any]) -> dict[str, object] | None:
        """One attempt; the row to write of it, None for a failure that is no news."""
        attempts = line.attempts[item] = line.attempts.get(item, 0) + 1
        line.times.append(self._clock())
        try:
            line.sender.send(Message(self._source, name, alert))
        except NotSent as error:
            line.failures += 1
            pause = error.after or _pause(attempts if not error.later else line.failures)
            line.due[item] = self._clock() + pause
            if error.later:
                line.paused_until = self._clock() + pause
            return self._row(alert, name, FAILED, attempts, error.reason) if attempts in (1, 10, 100) else None
        reach("rules:after-send")
        line.failures, line.paused_until = 0, 0.0
        line.attempts.pop(item, None)
        line.due.pop(item, None)
        return self._row(alert, name, SENT, attempts, None)

    def _waiting(self, name: str) -> list[dict[str, Any]]:
        """Changes of alerts that an output wants and does not have, oldest first."""
        changes = list(self._lines[name].output.changes)
        return self._read(
            """SELECT a.* FROM alerts a WHERE a.change <> 'late' AND list_contains($changes, a.change)
            AND (a.notify IS NULL OR list_contains(a.notify, $name))
            AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.id = a.id AND d.change = a.change AND d.output = $name
                AND d.outcome <> 'failed')
            QUALIFY row_number() OVER (PARTITION BY a.id, a.change ORDER BY a.recorded_at) = 1
            ORDER BY a.recorded_at, a.at, a.id""",
            {"changes": changes, "name": name},
        )

    def _kept_back(self, name: str) -> set[str]:
        """Alerts whose opening this output was not told of."""
        found = self._read(
            """SELECT DISTINCT id FROM deliveries WHERE output = $name AND change = 'opened'
            AND outcome IN ('silenced', 'skipped')""",
            {"name": name},
        )
        return {str(row["id"]) for row in found}

    def _read(self, query: str, parameters: dict[str, object]) -> list[dict[str, Any]]:
        tables = {"alerts": (self._alerts, ALERTS), "deliveries": (self._path, DELIVERIES)}
        con = duckdb.connect()
        try:
            con.execute("SET TimeZone = 'UTC'")
            for name, (path, schema) in tables.items():
                table = self._store.open(path)
                rows = read_rows(table) if table is not None else schema.empty_table()
                con.register(name, rows)
            found = con.execute(query, parameters)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        finally:
            con.close()

    def _row(
        self, alert: Mapping[str, Any], output: str, outcome: str, attempts: int, reason: str | None
    ) -> dict[str, object]:
        own = {"id": alert["id"], "change": alert["change"], "output": output, "outcome": outcome}
        return {**own, "attempts": attempts, "reason": reason, "recorded_at": self._now()}

    def _write(self, rows: list[dict[str, object]], transactions: Mapping[str, int]) -> None:
        if not rows and not transactions:
            return
        table = pa.Table.from_pylist(rows, DELIVERIES)
        self._store.append(
            self._path, self._store.refresh(self._path, None), table, description="{}", transactions=transactions
        )


def _pause(attempts: int) -> float:
    """Twice as long each time, and not the same for all who wait."""
    return min(_FIRST_PAUSE * 2.0 ** (attempts - 1), _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311


class Deliverer(threading.Thread):
    """Delivers beside the evaluation, which a slow receiver must not hold up."""

    def __init__(self, deliveries: list[Delivery], say: Callable[[str], None]) -> None:
        super().__init__(name="rules-delivery", daemon=True)
        self._deliveries, self._say = deliveries, say
        self.news, self._ended = threading.Event(), threading.Event()
        self.waiting = 0

    def run(self) -> None:
        """Deliver until told to stop; what waits then is sent by the next run."""
        while not self._ended.is_set():
            self.once()
            self.news.wait(1.0 if self.waiting else 10.0)
            self.news.clear()

    def once(self) -> None:
        """One pass over all outputs."""
        try:
            self.waiting = sum(d.run_once() for d in self._deliveries)
        except CdcLakeError as error:
            self._say(f"Alerts wait: {error.message}")
        except (DeltaError, OSError) as error:
            self._say(f"Alerts wait: {first_line(error)}")

    def stop(self) -> None:
        """End after the message that is being sent."""
        self._ended.set()
        self.news.set()
