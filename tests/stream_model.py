"""What streaming models must make, told one event after another: a slow and simple twin of the SQL that makes it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cdc_lake.events import TableId
from tests.lake_model import Feed
from tests.rule_model import MINUTE, START

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A change that a stream sees: its transaction, its place there, its event time and its values."""

    tx: int
    order: int
    time: int
    id: int
    qty: int | None


@dataclass(slots=True)
class Seen:
    """The events of a stream, those that came too late, and the clock of the source at each transaction."""

    events: list[Event] = field(default_factory=list)
    late: list[Event] = field(default_factory=list)


def clock(tx: int) -> int:
    """When a transaction was committed."""
    return START + tx * MINUTE


def seen(feed: Feed, table: TableId, *, delay: Callable[[int | None], int], lateness: int, ops: str = "cu") -> Seen:
    """What a stream over a table sees of a feed."""
    found = Seen()
    for name, changes, _ in feed.delivered:
        tx = int(name)
        for order, (other, row) in enumerate(changes, start=1):
            if other != table or row["__op"] not in ops:
                continue
            image = json.loads(row["__after"] or row["__before"])
            event = Event(tx, order, clock(tx) - delay(image["qty"]) * MINUTE, image["id"], image["qty"])
            late = tx > 1 and event.time < clock(tx - 1) - lateness
            (found.late if late else found.events).append(event)
    return found


def windows(events: Iterable[Event], size: int, every: int) -> dict[tuple[int, int, int], list[Event]]:
    """Events by key, start and end of the windows that they are in."""
    found = defaultdict(list)
    for e in events:
        last = e.time // every * every
        for start in range(last - size + every, last + 1, every):
            found[e.id, start, start + size].append(e)
    return found


def sessions(events: Iterable[Event], gap: int) -> dict[tuple[int, int, int], list[Event]]:
    """Events by key, start and end of the sessions that they are in."""
    by_key = defaultdict(list)
    for e in events:
        by_key[e.id].append(e)
    found: dict[tuple[int, int, int], list[Event]] = {}
    for key, mine in by_key.items():
        current: list[Event] = []
        for e in sorted(mine, key=lambda one: one.time):
            if current and e.time - current[-1].time >= gap:
                found[key, current[0].time, current[-1].time + gap] = current
                current = []
            current = [*current, e]
        found[key, current[0].time, current[-1].time + gap] = current
    return found


def closed(groups: dict[tuple[int, int, int], list[Event]], feed: Feed, lateness: int) -> list[Row]:
    """A row for each window that has ended: key, start, end, how many, their sum, their least, how many different."""
    last = clock(feed.transactions) - lateness
    return [
        (
            *(key, start, end, len(events)),
            sum(e.qty or 0 for e in events),
            min((e.qty for e in events if e.qty is not None), default=None),
            len({e.qty for e in events if e.qty is not None}),
        )
        for (key, start, end), events in groups.items()
        if end <= last
    ]


def at(feed: Feed, event: Event, table: TableId) -> dict[int, int]:
    """The quantities in a table at the event's transaction, by id."""
    return {int(r[0]): int(r[1]) for r in feed.at(f"{event.tx:05d}", table)}


def pairs(one: list[Event], other: list[Event], within: int) -> list[tuple[Event, Event]]:
    """Events of one key that are near each other."""
    return [(a, b) for a in one for b in other if a.id == b.id and abs(a.time - b.time) <= within]
