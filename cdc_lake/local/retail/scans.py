"""What the scanners of the stores' warehouses send, as CloudEvents: purchases, restocks, returns, transfers and
adjustments.

The vocabulary is that of examples/retail/events.md. Scanners are as they are: some messages come hours late, some
twice, one scanner in a hundred has a clock that is ahead, they count their messages and begin again, and now and then
one sends what is no event. All of it is a function of the seed; `sent` orders the messages as they reach Kafka.
"""

from __future__ import annotations

import heapq
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from cdc_lake.local.retail.demand import Demand, arrivals

TOPIC = "retail.scans"
Headers = tuple[tuple[str, bytes], ...]
# A store and a product.
Shelf = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Message:
    """A record on its way to Kafka, at the moment `sent` of the made-up world."""

    sent: datetime
    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Faults:
    """Which share of the messages comes late, twice, from a scanner that is offline, or is no event."""

    late: float = 0.02
    twice: float = 0.01
    offline: float = 0.01
    broken: float = 0.0005


@dataclass(frozen=True, slots=True)
class _Happening:
    """Something that happens on a shelf; `make` says what by the id that its event will have."""

    kind: str
    store: int
    product: int
    change: int
    more: dict[str, object] = field(default_factory=dict)
    correlation: str = ""
    cause: str = ""


@dataclass(slots=True)
class Scanners:
    """The scanners of all stores. `rate` is how many purchases a second are made at an average moment.

    Without `deliveries` nobody fills the shelves but who answers `retail.reorder.requested`.
    """

    demand: Demand
    rate: float
    faults: Faults = Faults()
    deliveries: bool = True
    made: Counter[str] = field(default_factory=Counter)
    _rng: Random = field(init=False)
    _stock: dict[tuple[int, int], int] = field(default_factory=dict)
    _awaited: set[tuple[int, int]] = field(default_factory=set)
    _counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _clocks: dict[str, timedelta] = field(default_factory=dict)
    _due: list[tuple[datetime, int, _Happening]] = field(default_factory=list)
    _out: list[tuple[datetime, int, Message]] = field(default_factory=list)
    _number: int = 0

    def __post_init__(self) -> None:
        self._rng = Random(f"{self.demand.seed}:scans")

    def between(self, start: datetime, end: datetime) -> Iterator[Message]:
        """The messages that are sent from `start` on and before `end`, in the order in which they are sent."""
        minute = start
        while minute < end:
            after = min(minute + timedelta(minutes=1), end)
            seconds = (after - minute).total_seconds()
            for _ in range(arrivals(self._rng, self.rate * seconds * self.demand.level(minute))):
                self._plan(minute + timedelta(seconds=self._rng.random() * seconds), self._purchase(minute))
            while self._due and self._due[0][0] < after:
                at, _, happening = heapq.heappop(self._due)
                self._happen(at, happening)
            while self._out and self._out[0][0] < after:
                yield heapq.heappop(self._out)[2]
            minute = after

    def restock(self, at: datetime, *, order: str, cause: str, correlation: str, shelf: Shelf, pieces: int) -> None:
        """Let a supplier deliver what somebody ordered; `cause` is the id of the event that did."""
        more: dict[str, object] = {"purchase_order_id": order}
        self._plan(at, _Happening("restock", *shelf, pieces, more, correlation, cause))

    def on_hand(self, store: int, product: int) -> int:
        """What is on a shelf."""
        shelf = (store, product)
        if shelf not in self._stock:
            self._stock[shelf] = Random(f"{self.demand.seed}:shelf:{store}:{product}").randint(12, 48)
        return self._stock[shelf]

    def _plan(self, at: datetime, happening: _Happening) -> None:
        self._number += 1
        heapq.heappush(self._due, (at, self._number, happening))

    def _purchase(self, at: datetime) -> _Happening:
        rng, demand = self._rng, self.demand
        store, product = demand.store(rng), demand.product(rng, at)
        chance = rng.random()
        if chance < 0.01:
            return _Happening("adjustment", store, product, rng.choice((-3, -2, -1, -1, 1, 2)))
        if chance < 0.025:
            return _Happening("transfer", store, product, -rng.randint(2, 6), {"direction": "out"})
        if chance < 0.028:  # nobody knows of what
            return _Happening("return", store, product, 1, {"receipt": self._receipt()})
        price = demand.price_cents(product, at)
        more: dict[str, object] = {"receipt": self._receipt(), "unit_price_cents": price}
        return _Happening("purchase", store, product, -rng.choice((1, 1, 1, 1, 2, 2, 3, 6)), more)

    def _receipt(self) -> str:
        return f"R-{self._rng.getrandbits(40):010x}"

    def _happen(self, at: datetime, happening: _Happening) -> None:
        """What can happen, happens, and is scanned: nobody takes what is not there."""
        shelf = (happening.store, happening.product)
        there = self.on_hand(*shelf)
        if there + happening.change < 0:
            self.made["missed"] += happening.kind == "purchase"
            return
        self._stock[shelf] = there + happening.change
        identity = str(UUID(int=self._rng.getrandbits(128), version=4))
        follow = _FOLLOWS.get(happening.kind)
        if follow is not None:
            follow(self, at, happening, identity)
        if self._stock[shelf] <= 6 and self.deliveries and shelf not in self._awaited:
            self._awaited.add(shelf)
            morning = (at + timedelta(days=1)).replace(hour=6, minute=self._rng.randrange(60))
            self._plan(
                morning, _Happening("restock", *shelf, self._rng.choice((24, 36, 48)), {"purchase_order_id": None})
            )
        self._send(at, happening, identity)

    def _follow_purchase(self, at: datetime, happening: _Happening, identity: str) -> None:
        if self._rng.random() < 0.04:
            later = at + timedelta(hours=self._rng.uniform(1, 120))
            more: dict[str, object] = {"receipt": happening.more["receipt"]}
            self._plan(later, _Happening("return", happening.store, happening.product, 1, more, identity, identity))

    def _follow_transfer(self, at: datetime, happening: _Happening, identity: str) -> None:
        if happening.more["direction"] == "in":
            return
        other = self.demand.store(self._rng)
        happening.more.update(transfer_id=f"T-{identity[:8]}", other_store_id=other)
        back: dict[str, object] = {**happening.more, "direction": "in", "other_store_id": happening.store}
        arrival = at + timedelta(hours=self._rng.uniform(2, 8))
        self._plan(
            arrival, _Happening("transfer", other, happening.product, -happening.change, back, identity, identity)
        )

    def _follow_adjustment(self, _at: datetime, happening: _Happening, _identity: str) -> None:
        lost = ("stocktake", "damaged", "expired")
        happening.more["reason"] = self._rng.choice(lost) if happening.change < 0 else "found"

    def _follow_restock(self, _at: datetime, happening: _Happening, _identity: str) -> None:
        self._awaited.discard((happening.store, happening.product))

    def _send(self, at: datetime, happening: _Happening, identity: str) -> None:
        rng, faults = self._rng, self.faults
        scanner = str(1 + rng.randrange(3))
        source = f"/stores/{happening.store}/scanners/{scanner}"
        message = self._message(at + self._clock(source), happening, identity, source, scanner)
        sent = at + timedelta(seconds=rng.uniform(0.05, 0.8))
        if rng.random() < faults.late:
            sent += timedelta(minutes=min(rng.expovariate(1 / 30), 24 * 60))
        if hash_share(self.demand.seed, source, at.toordinal(), at.hour) < faults.offline:
            back = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=3)
            sent = max(sent, back + timedelta(seconds=rng.random() * 20))
        self.made[happening.kind] += 1
        self._put(sent, message)
        if rng.random() < faults.twice:
            self.made["sent again"] += 1
            self._put(sent + timedelta(seconds=rng.expovariate(1 / 60)), message)
        if rng.random() < faults.broken:
            self.made["broken"] += 1
            self._put(sent, self._broken(message))

    def _clock(self, source: str) -> timedelta:
        """By how much a scanner's clock is ahead."""
        if source not in self._clocks:
            own = Random(f"{self.demand.seed}:{source}")
            wrong = own.random() < 0.01
            ahead = timedelta(hours=own.uniform(1, 30)) if wrong else timedelta(seconds=own.uniform(-2, 2))
            self._clocks[source] = ahead
        return self._clocks[source]

    def _message(self, time: datetime, what: _Happening, identity: str, source: str, scanner: str) -> tuple[bytes, ...]:
        # Some begin to count again.
        self._counts[source] = 1 if self._rng.random() < 0.0005 else self._counts[source] + 1
        subject = f"{what.store}/{what.product}"
        data = {
            "store_id": what.store,
            "product_id": what.product,
            "quantity": abs(what.change),
            "change": what.change,
            "scanner_id": scanner,
            **what.more,
        }
        attributes = {
            "specversion": "1.0",
            "id": identity,
            "source": source,
            "type": f"retail.{what.kind}",
            "subject": subject,
            "time": f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z",
            "correlationid": what.correlation or identity,
            **({"causationid": what.cause} if what.cause else {}),
            "sequence": str(self._counts[source]),
        }
        named = [part for name, value in attributes.items() for part in (f"ce_{name}".encode(), value.encode())]
        return (subject.encode(), json.dumps(data, separators=(",", ":")).encode(), *named)

    def _broken(self, message: tuple[bytes, ...]) -> tuple[bytes, ...]:
        key, value, *named = message
        if self._rng.random() < 0.5:
            return (key, value[: len(value) // 2], *named)
        return (key, value, *named[:4], *named[8:])  # without its source and type

    def _put(self, sent: datetime, message: tuple[bytes, ...]) -> None:
        key, value, *named = message
        headers = [(name.decode(), text) for name, text in zip(named[::2], named[1::2], strict=True)]
        self._number += 1
        made = Message(sent, key, value, (*headers, ("content-type", b"application/json")))
        heapq.heappush(self._out, (sent, self._number, made))


def hash_share(*parts: object) -> float:
    """A number between 0 and 1 that the parts alone decide."""
    return zlib.crc32(repr(parts).encode()) / 2**32


_FOLLOWS: dict[str, Callable[[Scanners, datetime, _Happening, str], None]] = {
    "purchase": Scanners._follow_purchase,
    "transfer": Scanners._follow_transfer,
    "adjustment": Scanners._follow_adjustment,
    "restock": Scanners._follow_restock,
}
