"""What rules must find, told one event after another: a slow and simple twin of the SQL that evaluates them."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from cdc_lake.events import TableId
from tests.lake_model import Feed, Row

MINUTE = 60_000_000
START = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp()) * 1_000_000

NEVER = -(1 << 62)

# (change, key, time, the transactions and orders of its events)
Found = tuple[str, str, int, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """An event in the order in which patterns see it."""

    time: int
    number: int
    order: int
    tx: str = field(compare=False)
    stream: str = field(compare=False)
    key: str = field(compare=False)
    qty: int = field(compare=False)

    @property
    def name(self) -> tuple[str, int]:
        """What tells it from others."""
        return (self.tx, self.order)


def _no_delay(_qty: int) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of a test's rule: which changes of a table it picks, and their event time."""

    name: str
    table: TableId
    picks: Callable[[int], bool]
    delay: Callable[[int], int] = _no_delay
    ops: str = "cu"


def events_of(
    feed: Feed, streams: list[Stream], *, lateness: int = 0
) -> Iterator[tuple[int, list[Event], list[Found]]]:
    """Transaction by transaction: the watermark, the events that it lets through, in order, and those too late."""
    yield from merged_events({feed.source: feed}, streams, lateness=lateness)


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction where the merged order has it: the clock of its source before and with it, and the least of all."""

    number: int
    source: str
    tx: str
    changes: list[tuple[TableId, Row]]
    before: int
    clock: int
    mark: int


def in_order(feeds: Mapping[str, Feed]) -> Iterator[Step]:
    """Always the next transaction of the source whose clock is furthest back, of several the first by name. Ends when
    that one has no more, though others have."""
    clocks = dict.fromkeys(sorted(feeds), NEVER)
    waiting = {source: list(feed.delivered) for source, feed in feeds.items()}
    for number in itertools.count():
        source = min(clocks, key=lambda s: (clocks[s], s))
        if not waiting[source]:
            return
        tx, changes, _ = waiting[source].pop(0)
        before = clocks[source]
        clocks[source] = max(before, committed(feeds[source], tx))
        yield Step(number, source, tx, changes, before, clocks[source], min(clocks.values()))


def committed(feed: Feed, tx: str) -> int:
    """When a transaction was committed, in microseconds."""
    return int(feed.when(tx).timestamp()) * 1_000_000


def merged_events(
    feeds: Mapping[str, Feed], streams: list[Stream], *, lateness: int = 0
) -> Iterator[tuple[int, list[Event], list[Found]]]:
    """As `events_of` of several sources; the watermark is that of the clock furthest back."""
    pending: list[Event] = []
    for step in in_order(feeds):
        late: list[Found] = []
        times = (step.clock, committed(feeds[step.source], step.tx))
        for event in _picked(streams, step.changes, (step.number, step.tx), times):
            if event.time < step.before - lateness:
                late.append(("late", event.key, event.time, (event.name,)))
            else:
                pending.append(event)
        watermark = step.mark - lateness
        released = sorted(e for e in pending if e.time <= watermark)
        pending = [e for e in pending if e.time > watermark]
        yield watermark, released, late


def _picked(
    streams: list[Stream], changes: list[tuple[TableId, Row]], tx: tuple[int, str], times: tuple[int, int]
) -> Iterator[Event]:
    for order, (table, row) in enumerate(changes, start=1):
        for stream in streams:
            if table != stream.table or row["__op"] not in stream.ops:
                continue
            image = json.loads(row["__after"] or row["__before"])
            if stream.picks(_qty(image)):
                # An event time of its own is said by the change, else it is the source's clock.
                time = times[0 if stream.delay is _no_delay else 1]
                key, qty = json.dumps({"id": image["id"]}, separators=(",", ":")), _qty(image)
                yield Event(time - stream.delay(qty) * MINUTE, tx[0], order, tx[1], stream.name, key, qty)


def _qty(image: Row) -> int:
    # A delete does not tell.
    return -1 if image["qty"] is None else int(image["qty"])


class Model:
    """One kind of pattern: takes events one by one, and is told how far the time is."""

    def take(self, event: Event) -> list[Found]:
        """An event, in order."""
        raise NotImplementedError

    def pass_(self, watermark: int) -> list[Found]:
        """Nothing earlier than this comes any more."""
        return []


def findings(feed: Feed, streams: list[Stream], model: Model, *, lateness: int = 0) -> list[Found]:
    """All that a rule finds."""
    return merged_findings({feed.source: feed}, streams, model, lateness=lateness)


def merged_findings(
    feeds: Mapping[str, Feed], streams: list[Stream], model: Model, *, lateness: int = 0
) -> list[Found]:
    """All that a rule over several sources finds."""
    found: list[Found] = []
    for watermark, released, late in merged_events(feeds, streams, lateness=lateness):
        found += late
        for event in released:
            found += model.pass_(event.time) + model.take(event)
        found += model.pass_(watermark)
    return found


class Threshold(Model):
    """Open while the last event of a key meets a condition."""

    def __init__(self, when: Callable[[int], bool]) -> None:
        self.when, self.open = when, set[str]()

    def take(self, event: Event) -> list[Found]:
        hit = self.when(event.qty)
        if hit == (event.key in self.open):
            return []
        (self.open.add if hit else self.open.discard)(event.key)
        return [("opened" if hit else "resolved", event.key, event.time, (event.name,))]


class Windows(Model):
    """Counts per window; `when` looks at the quantities of one."""

    def __init__(self, size: int, step: int, *, at_least: int | None = None, when: Callable[[list[int]], bool]) -> None:
        self.size, self.step, self.at_least, self.when = size, step, at_least, when
        self.events: dict[tuple[str, int], list[Event]] = defaultdict(list)
        self.met: set[tuple[str, int]] = set()

    def take(self, event: Event) -> list[Found]:
        found: list[Found] = []
        last = event.time // self.step * self.step
        for start in range(last - self.size + self.step, last + 1, self.step):
            window = self.events[event.key, start]
            window.append(event)
            if self.at_least == len(window):
                found += self._meet(event.key, start, event.time)
        return found

    def _meet(self, key: str, start: int, at: int) -> list[Found]:
        self.met.add((key, start))
        follows = (key, start - self.step) in self.met
        return [] if follows else [("opened", key, at, tuple(e.name for e in self.events[key, start]))]

    def pass_(self, watermark: int) -> list[Found]:
        found: list[Found] = []
        for key, start in sorted(self.events, key=lambda w: w[1]):
            if start + self.size > watermark:
                continue
            if self.at_least is None and self.when([e.qty for e in self.events[key, start]]):
                found += self._meet(key, start, start + self.size)
            del self.events[key, start]
        for key, start in sorted(self.met):
            over = start + self.step + self.size
            if over <= watermark:
                if (key, start + self.step) not in self.met:
                    found.append(("resolved", key, over, ()))
                if (key, start + self.step) in self.met or over <= watermark:
                    self.met.discard((key, start))
        return found


class Sequence(Model):
    """Any chain of steps, each after the one before, that is short enough; the last start counts."""

    def __init__(self, steps: list[str], within: int) -> None:
        self.steps, self.within = steps, within
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.last: dict[str, tuple[str, int]] = {}

    def take(self, event: Event) -> list[Found]:
        past = self.events[event.key]
        past.append(event)
        if event.stream != self.steps[-1]:
            return []
        chain = [event]
        for step in reversed(self.steps[:-1]):
            earlier = [e for e in past if e.stream == step and e < chain[0]]
            if not earlier:
                return []
            chain.insert(0, max(earlier))
        if event.time - chain[0].time > self.within or self.last.get(event.key) == chain[0].name:
            return []
        self.last[event.key] = chain[0].name
        return [("opened", event.key, event.time, tuple(e.name for e in chain))]


class Absence(Model):
    """The first `after` waits for `of`."""

    def __init__(self, after: str, of: str, within: int) -> None:
        self.after, self.of, self.within = after, of, within
        self.waits: dict[str, Event] = {}
        self.open: set[str] = set()

    def take(self, event: Event) -> list[Found]:
        if event.stream == self.after:
            self.waits.setdefault(event.key, event)
            return []
        self.waits.pop(event.key, None)
        if event.key not in self.open:
            return []
        self.open.discard(event.key)
        return [("resolved", event.key, event.time, (event.name,))]

    def pass_(self, watermark: int) -> list[Found]:
        found: list[Found] = []
        for key, event in self.waits.items():
            if event.time + self.within < watermark and key not in self.open:
                self.open.add(key)
                found.append(("opened", key, event.time + self.within, (event.name,)))
        return found


def _root(x: float) -> float:
    # Without a sign, zero has none: sign(0) is 0.
    return 2 * math.sqrt(x + 0.375) if x > 0 else 0.0


class Anomaly(Model):
    """Each bucket against the median of its slot before, in units of how far off such forecasts were."""

    def __init__(self, every: int, season: int, history: int, sensitivity: float) -> None:
        self.every, self.season, self.history, self.sensitivity = every, season, history, sensitivity
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.next: dict[str, int] = {}
        self.series: dict[str, list[tuple[int, float, float | None]]] = defaultdict(list)
        self.met: set[tuple[str, int]] = set()

    def take(self, event: Event) -> list[Found]:
        self.next.setdefault(event.key, event.time // self.every * self.every)
        self.events[event.key].append(event)
        return []

    def pass_(self, watermark: int) -> list[Found]:
        found: list[Found] = []
        for key in sorted(self.next):
            while self.next[key] + self.every <= watermark:
                found += self._close(key, self.next[key])
                self.next[key] += self.every
        return found

    def _close(self, key: str, start: int) -> list[Found]:
        events = [e for e in self.events[key] if start <= e.time < start + self.every]
        x, series = float(sum(e.qty for e in events)), self.series[key]
        slots = self.season // self.every
        same = [v for at, v, _ in series if (start - at) % self.season == 0][-self.history :]
        off = [abs(r) for _, _, r in series[-self.history * slots :] if r is not None]
        expected = median(same) if len(same) >= 3 else None
        r = None if expected is None or x == expected == 0 else _root(x) - _root(expected)
        series.append((start, x, r))
        scale = max(1.4826 * median(off), 0.5) if off else 0.5
        met = r is not None and len(off) >= min(slots, 100) and abs(r / scale) > self.sensitivity
        follows = (key, start - self.every) in self.met
        if not met:
            return [("resolved", key, start + self.every, ())] if follows else []
        self.met.add((key, start))
        return [] if follows else [("opened", key, start + self.every, tuple(e.name for e in events))]


class Correlation(Model):
    """The last event of each stream, close together."""

    def __init__(self, of: list[str], within: int) -> None:
        self.of, self.within = of, within
        self.last: dict[tuple[str, str], Event] = {}
        self.matched: dict[str, int] = {}

    def take(self, event: Event) -> list[Found]:
        self.last[event.key, event.stream] = event
        events = [self.last[event.key, s] for s in self.of if (event.key, s) in self.last]
        if len(events) < len(self.of) or event.time - min(e.time for e in events) > self.within:
            return []
        previous = self.matched.get(event.key)
        self.matched[event.key] = event.time
        if previous is not None and event.time - previous <= self.within:
            return []
        return [("opened", event.key, event.time, tuple(e.name for e in sorted(events)))]
