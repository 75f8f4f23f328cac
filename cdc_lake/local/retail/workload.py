"""A living source: sales, deliveries, returns and the rest at a steady rate, with a count of what was acknowledged.

As a program it trades until SIGTERM or Ctrl-C and prints its counts as JSON; the address comes from RETAIL_DSN::

    RETAIL_DSN=postgresql://… python -m cdc_lake.local.retail.workload --rate 20
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random

import psycopg

from cdc_lake.errors import UnavailableError, UsageError
from cdc_lake.local.retail.loader import TABLES, Connection, connect
from cdc_lake.local.retail.shop import Effect, Refused, Shop
from cdc_lake.local.retail.transactions import MIX

ATTEMPTS = 5
OnCommit = Callable[[Effect, float], None]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a workload has done so far.

    `acknowledged` counts committed transactions by kind, `rows` their changed rows by table and operation: an oracle
    for any copy of the database; `orders` are the keys of its sales. `refused` were rolled back for a business
    reason, `retried` after a deadlock or serialization failure, `failed` because the database was away; for `unknown`
    the connection broke during COMMIT, so that nobody knows. `skipped` were never tried: the database was too slow for
    the rate.
    """

    seconds: float
    acknowledged: dict[str, int]
    rows: dict[str, dict[str, int]]
    orders: tuple[int, ...] = field(repr=False)
    refused: int
    retried: int
    failed: int
    unknown: int
    skipped: int

    @property
    def transactions(self) -> int:
        """All committed transactions."""
        return sum(self.acknowledged.values())

    def net_rows(self, table: str) -> int:
        """By how many rows the table has grown."""
        done = self.rows.get(table, {})
        return done.get("insert", 0) - done.get("delete", 0)


class Pacer:
    """Hands out the times at which transactions are due: `rate` a second, whether or not the last one has ended.

    When the database is slower, the backlog is at most `backlog` seconds; what is beyond is skipped and counted.
    """

    def __init__(self, rate: float, backlog: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.skipped = 0
        self._interval = 1 / rate
        self._backlog = backlog
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()

    def next(self) -> float:
        """Seconds until the next transaction is due; zero or less when it is overdue."""
        with self._lock:
            late = self._clock() - self._next - self._backlog
            if late > 0:
                missed = int(late / self._interval) + 1
                self.skipped += missed
                self._next += missed * self._interval
            due, self._next = self._next, self._next + self._interval
            return due - self._clock()


class Workload:
    """Transactions on a loaded retail database, from `workers` threads. Start it once, stop it once.

    The same seed gives the same choices with one worker; with several, threads interleave. `on_commit` hears each
    effect with the time (`time.monotonic`) just before its COMMIT was sent, from the worker's thread.
    """

    def __init__(
        self, dsn: str, *, seed: int = 1, rate: float = 50, workers: int = 2, on_commit: OnCommit | None = None
    ) -> None:
        if rate <= 0 or workers < 1:
            raise UsageError("A workload needs a rate above zero and at least one worker.")
        self._dsn = dsn
        self._seed = seed
        self._on_commit = on_commit or (lambda effect, before: None)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._tally: Counter[str] = Counter()
        self._acknowledged: Counter[str] = Counter()
        self._rows: Counter[tuple[str, str]] = Counter()
        self._orders: list[int] = []
        self._failure: Exception | None = None
        self._pacer = Pacer(rate)
        self._rate = rate
        self._began = self._ended = 0.0
        with connect(dsn) as connection:
            self.shop = Shop(connection, seed)
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"retail-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Begin to trade."""
        self._pacer = Pacer(self._rate)
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> Stats:
        """Finish the transactions under way; the final counts. Raises what stopped a worker before its time."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._ended = self._ended or time.monotonic()
        if self._failure is not None:
            raise self._failure
        return self.stats()

    def abandon(self) -> None:
        """End the threads soon, whatever they are at; nothing is raised. After `stop` it does nothing."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=5)

    def stats(self) -> Stats:
        """The counts so far."""
        with self._lock:
            return Stats(
                seconds=(self._ended or time.monotonic()) - self._began if self._began else 0.0,
                acknowledged=dict(self._acknowledged),
                rows={
                    table: {op: n for (t, op), n in sorted(self._rows.items()) if t == table and n} for table in TABLES
                },
                orders=tuple(self._orders),
                refused=self._tally["refused"],
                retried=self._tally["retried"],
                failed=self._tally["failed"],
                unknown=self._tally["unknown"],
                skipped=self._pacer.skipped,
            )

    def perform(self, kind: str, *, attempts: int = 50) -> Effect:
        """One transaction of `kind` on the caller's thread, counted with the rest. Refused after `attempts` tries."""
        rng = Random(f"{self._seed}:{kind}:{self.stats().transactions}")
        with connect(self._dsn) as connection:
            for _ in range(attempts):
                effect = self._attempt(connection, kind, rng)
                if effect is not None:
                    return effect
        raise Refused(f"no {kind} was possible")

    def _work(self, number: int) -> None:
        rng = Random(f"{self._seed}:{number}")
        kinds, weights = list(MIX), [weight for _, weight in MIX.values()]
        connection: Connection | None = None
        try:
            while not self._stopping.wait(max(self._pacer.next(), 0)):
                try:
                    connection = connect(self._dsn) if connection is None or connection.closed else connection
                    self._attempt(connection, rng.choices(kinds, weights)[0], rng)
                except (psycopg.OperationalError, UnavailableError):
                    # The database is away: what was acknowledged stays so, and trade goes on when it is back.
                    self._count("failed")
                    _close(connection)
                    connection = None
                    self._stopping.wait(0.2)
        except Exception as error:  # handed to stop(): a thread has nobody to raise to
            self._failure = error
        finally:
            _close(connection)

    def _attempt(self, connection: Connection, kind: str, rng: Random) -> Effect | None:
        """Run one transaction, again after a deadlock; None when the shop refused or somebody else kept being first."""
        for _ in range(ATTEMPTS):
            try:
                effect = MIX[kind][0](connection, self.shop, rng)
            except Refused:
                connection.rollback()
                self._count("refused")
                return None
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                connection.rollback()
                self._count("retried")
                continue
            return effect if self._commit(connection, effect) else None
        return None

    def _commit(self, connection: Connection, effect: Effect) -> bool:
        before = time.monotonic()
        try:
            connection.commit()
        except psycopg.OperationalError:
            self._count("unknown")
            connection.close()
            return False
        with self._lock:
            self._acknowledged[effect.kind] += 1
            self._rows.update(effect.rows)
            if effect.kind == "sale":
                self._orders.append(effect.key)
        self.shop.committed(effect)
        self._on_commit(effect, before)
        return True

    def _count(self, what: str) -> None:
        with self._lock:
            self._tally[what] += 1


def _close(connection: Connection | None) -> None:
    if connection is not None:
        connection.close()


def main() -> None:
    """Trade until told to stop, then print the counts."""
    parser = argparse.ArgumentParser(prog="python -m cdc_lake.local.retail.workload", description=__doc__)
    parser.add_argument("--rate", type=float, default=20, help="transactions a second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--for", metavar="NAME", help="whom it serves; without effect, to find the process by")
    options = parser.parse_args()
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    workload = Workload(os.environ["RETAIL_DSN"], seed=options.seed, rate=options.rate, workers=options.workers)
    workload.start()
    told.wait()
    print(json.dumps({**asdict(workload.stop()), "orders": None}))


if __name__ == "__main__":
    main()
