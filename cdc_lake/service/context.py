"""What a handler may do: read and change its tables, send events, ask to be woken, refuse an event."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NoReturn

from cdc_lake.service.event import Event, Outgoing, answering, encode

Row = Mapping[str, Any]


class Rejected(Exception):
    """An event that cannot be handled, now or later: it becomes a dead letter. `code` names it for machines."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Temporary(Exception):
    """Something outside does not answer: the event is tried again, ever later, and what is behind it waits."""


@dataclass(frozen=True, slots=True)
class Timer:
    """An event to be sent at a moment, unless it is cancelled by its name before."""

    name: str
    due: datetime
    record: Outgoing
    id: str


@dataclass(slots=True)
class Context:
    """One event's view of its shard, within the transaction that handles it.

    A handler is a function of the event and of the tables: no clock, no chance, no call to elsewhere decides what it
    does. So the same log gives the same tables, and the same events, wherever it is read. Times are those of the event:
    `event.time` (who says so) and `event.place.at` (when the broker took it).
    """

    event: Event
    service: str
    db: sqlite3.Connection
    sent: list[Outgoing] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    _numbers: Counter[str] = field(default_factory=Counter)

    def one(self, sql: str, *values: Any) -> Row | None:
        """The first row of a query, by column names; None when there is none."""
        row: Row | None = self.db.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: Any) -> list[Row]:
        """All rows of a query."""
        return self.db.execute(sql, values).fetchall()

    def run(self, sql: str, *values: Any) -> int:
        """Change rows; how many were."""
        return self.db.execute(sql, values).rowcount

    def emit(self, topic: str, type: str, data: Mapping[str, Any], *, subject: str = "") -> Event:
        """Send an event that this one caused, keyed by `subject` (by default the event's own)."""
        made = self._made(type, data, subject)
        self.sent.append(encode(topic, made))
        return made

    def later(
        self, name: str, due: datetime, topic: str, type: str, data: Mapping[str, Any], *, subject: str = ""
    ) -> None:
        """Send an event at `due`, unless `cancel(name)` comes before. It comes back through the log, if it is read.

        Of one name there is one timer: a later one takes its place. It is sent by whoever holds the shard then.
        """
        made = replace(self._made(type, data, subject), time=due)
        self.timers.append(Timer(name, due, encode(topic, made), made.id))

    def cancel(self, name: str) -> None:
        """Forget a timer."""
        self.timers = [t for t in self.timers if t.name != name]
        self.run("DELETE FROM _timers WHERE name = ?", name)

    def reject(self, code: str, why: str) -> NoReturn:
        """Refuse the event: nothing of what was done for it stays, and it becomes a dead letter."""
        raise Rejected(code, why)

    def _made(self, type: str, data: Mapping[str, Any], subject: str) -> Event:
        number = self._numbers[type]
        self._numbers[type] += 1
        return answering(self.event, self.service, type, data, number=number, subject=subject)
