"""Trouble for a whole running system: processes are killed, paused and restarted by a seed while people trade and read.

The system is a stack of its own, two sinks of one group, folds, a retail workload and a teller who moves money between
two tables. Readers open connections all the while; what they see must be one moment between transactions. A lake on an
object store has one trouble more, the store.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
import psycopg

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.config import load_config
from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Stats, Workload
from cdc_lake.local.stack import Stack
from cdc_lake.query.session import open_session
from tests.integration.conftest import wait_for
from tests.object_store import Gate
from tests.projects import Project

HOW = ("kill", "pause", "restart")
MONEY = 10_000
ACCOUNTS = 20
BANK = f"""
CREATE TABLE accounts (id int PRIMARY KEY, balance numeric(12,2) NOT NULL);
CREATE TABLE vaults (id int PRIMARY KEY, held numeric(12,2) NOT NULL, remark text);
ALTER TABLE vaults ALTER remark SET STORAGE EXTERNAL;
INSERT INTO accounts SELECT i, {MONEY // ACCOUNTS // 2} FROM generate_series(1, {ACCOUNTS}) i;
INSERT INTO vaults SELECT i, {MONEY // ACCOUNTS // 2}, repeat('vault ' || i, 600) FROM generate_series(1, {ACCOUNTS}) i;
"""
# What a reader must see at any moment: a query, and its answer.
INVARIANTS = {
    "money is neither made nor lost": (
        "SELECT (SELECT sum(balance) FROM accounts) + (SELECT sum(held) FROM vaults)",
        MONEY,
    ),
    "an order is the sum of its lines": (
        """SELECT count(*) FROM orders o FULL JOIN
        (SELECT order_id, sum(line_total) AS total FROM order_lines GROUP BY order_id) l USING (order_id)
        WHERE o.total IS DISTINCT FROM coalesce(l.total, 0)""",
        0,
    ),
    "an order is what was paid for it": (
        """SELECT count(*) FROM orders o FULL JOIN
        (SELECT order_id, sum(amount) AS total FROM payments GROUP BY order_id) p USING (order_id)
        WHERE o.total IS DISTINCT FROM coalesce(p.total, 0)""",
        0,
    ),
    "no shelf holds less than nothing": ("SELECT count(*) FROM inventory WHERE on_hand < 0", 0),
    "nothing stands on a shelf that is not in the list": (
        "SELECT count(*) FROM inventory i ANTI JOIN products p USING (product_id)",
        0,
    ),
    "every vault still has its remark": (
        "SELECT count(*) FROM vaults WHERE remark IS DISTINCT FROM repeat('vault ' || id, 600)",
        0,
    ),
}


@dataclass
class Told:
    """What happened in a run; `wrong` must stay empty."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    reads: int = 0
    moments: set[int] = field(default_factory=set)
    transfers: int = 0
    trade: Stats | None = None


class Teller:
    """Moves money from an account to a vault or back, in transactions of two tables."""

    def __init__(self, dsn: str, told: Told) -> None:
        self._dsn, self._told = dsn, told
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="teller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        rng = Random(1)
        while not self._stop.wait(0.03):
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._dsn, connect_timeout=5) as con:
                while not self._stop.wait(0.03):
                    amount = rng.randint(-20, 20)
                    account, vault = rng.randint(1, ACCOUNTS), rng.randint(1, ACCOUNTS)
                    con.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", (amount, account))
                    con.execute("UPDATE vaults SET held = held + %s WHERE id = %s", (amount, vault))
                    con.commit()
                    self._told.transfers += 1


class Reader:
    """Opens a connection, checks the invariants, closes it, and so on."""

    def __init__(self, config: Path, told: Told, *, store_may_be_away: bool) -> None:
        self._folder, self._config, self._told = config.parent, load_config(config), told
        self._store_may_be_away = store_may_be_away
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reader", daemon=True)
        self._last = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self.look()
            except CdcLakeError as error:
                if self._store_may_be_away and isinstance(error, UnavailableError):
                    self._told.done["reader was told that the store is away"] += 1
                else:
                    self._told.wrong.append(f"a reader failed: {error.message} {error.why}")
            except Exception as error:  # a thread has nobody to raise to
                self._told.wrong.append(f"a reader failed: {type(error).__name__}: {error}")

    def _keep(self, position: int) -> None:
        """The lake as it is now, for who looks into it: what was seen may be gone when the run ends."""
        to = os.environ.get("NEMESIS_KEEP")
        if to and not (kept := Path(to) / f"at-{position}").exists():
            with contextlib.suppress(shutil.Error):  # a file that was written aside and is gone again
                shutil.copytree(self._folder, kept)

    def look(self) -> None:
        """One connection: all invariants at its cut, and the cut is not behind the one before."""
        session = open_session(self._config)
        try:
            position = session.cut.position
            if position < self._last:
                self._told.wrong.append(f"the cut went back from {self._last} to {position}")
            self._last = position
            for claim, (query, answer) in INVARIANTS.items():
                row = session.connection.execute(query).fetchone()
                if row is None or row[0] != answer:
                    self._told.wrong.append(f"at {session.cut}: {claim}: {row}, not {answer}")
                    self._keep(position)
            self._told.reads += 1
            self._told.moments.add(position)
        finally:
            session.close()


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    log_file: str


class Nemesis:
    """The system and what is done to it. Use as a context; `run`, then `heal`, then ask `told` and the project."""

    def __init__(self, project: Project, stack: Stack, seed: int, store: Gate | None = None) -> None:
        self.project, self.stack, self.chance, self.told = project, stack, Random(seed), Told()
        self._store = store
        self._deck = self._shuffled()
        self._pool = ThreadPoolExecutor(len(stack.parts) + 1, thread_name_prefix="nemesis")
        self._busy: dict[str, Future[None]] = {}
        self._sinks: list[_Running] = []
        self._fold: _Running | None = None
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        """Load the shop and the bank, capture them, and land what is there."""
        create_schema(self.project.dsn)
        load(self.project.dsn, Size.for_rows(1500))
        with psycopg.connect(self.project.dsn, autocommit=True) as source:
            source.execute(BANK.encode())
        self.project.register()
        self.project.ok("sink", "run", "--until-caught-up")

    def run(self, seconds: float) -> None:
        """Trade, read and make trouble for so long."""
        workload = Workload(self.project.dsn, rate=20)
        teller = Teller(self.project.dsn, self.told)
        config = self.project.folder / "cdc-lake.yaml"
        reader = Reader(config, self.told, store_may_be_away=self._store is not None)
        self._sinks = [self._start_sink(), self._start_sink()]
        deadline = time.monotonic() + seconds
        for part in (workload, teller, reader):
            part.start()
        try:
            while time.monotonic() < deadline and not self.told.wrong:
                self._trouble()
                self._look_after()
                time.sleep(self.chance.uniform(0.5, 2.5))  # not a wait: the moment of the next trouble is any moment
        finally:
            self.told.trade = workload.stop()
            teller.stop()
            reader.stop()

    def heal(self) -> None:
        """Let everything run, and wait until the connector has read all that was committed."""
        for name in list(self._busy):
            self._settle(name)
        self.stack.up()
        self._end_processes()
        wait_for(self._connector_runs, "the connector to run again", seconds=120)
        with psycopg.connect(self.project.dsn, autocommit=True) as source:
            newest = source.execute("SELECT pg_current_wal_lsn()").fetchone()

            def has_read_all() -> bool:
                self._connector_runs()
                slot = "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s"
                found = source.execute(slot, (newest and newest[0], self.project.name)).fetchone()
                return bool(found and found[0])

            wait_for(has_read_all, "the connector to read what was committed", seconds=600)

    def close(self) -> None:
        """End the processes of this run, and let all parts run."""
        self._pool.shutdown()
        self._end_processes()
        self.stack.up()

    # -- trouble ----------------------------------------------------------------------------------------------------

    def _shuffled(self) -> list[tuple[str, str]]:
        """All kinds of trouble, each once, what is cheap more often; in any order."""
        parts = ("sink", "kafka", "connect", "postgres", *(["store"] if self._store else []))
        deck = [(victim, how) for victim in parts for how in HOW]
        deck += [("sink", how) for how in HOW] + [("fold", "run")] * 5 + [("fold", "kill")] * 2
        self.chance.shuffle(deck)
        return deck

    def _trouble(self) -> None:
        if not self._deck:
            self._deck = self._shuffled()
        victim, how = self._deck.pop()
        if victim == "fold":
            self._done("fold", how)
        elif victim == "sink":
            self._hurt_sink(how)
        elif victim not in self._busy or self._busy[victim].done():
            self._settle(victim)
            away = self.chance.uniform(1, 6) if how == "pause" else self.chance.uniform(0, 3)
            self.told.done[f"{victim} {how}"] += 1
            # Beside other trouble: parts may be away together.
            self._busy[victim] = self._pool.submit(self._hurt_part, victim, how, away)
        else:
            self._deck.insert(0, (victim, how))

    def _settle(self, victim: str) -> None:
        if victim in self._busy:
            self._busy.pop(victim).result()

    def _done(self, victim: str, how: str) -> None:
        if victim == "fold":
            if self._fold is not None and self._fold.process.poll() is None:
                if how == "kill":
                    self._fold.process.kill()
                return
            self._fold = self._start("fold")
        self.told.done[f"{victim} {how}"] += 1

    def _hurt_sink(self, how: str) -> None:
        sink = self.chance.choice(self._sinks)
        self.told.done[f"sink {how}"] += 1
        if how == "pause":
            with _paused([psutil.Process(sink.process.pid)]):
                time.sleep(self.chance.uniform(1, 9))  # beyond the group's session, the other sink takes over
            return
        sink.process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        code = sink.process.wait(timeout=60)
        # The signal itself ends one that is still starting.
        if how == "restart" and code not in (0, -signal.SIGTERM) and not self._could_not_begin(sink):
            self.told.wrong.append(f"a sink that was asked to end did so with {code}: {self._words(sink)[-800:]}")
        self._sinks[self._sinks.index(sink)] = self._start_sink()

    def _hurt_part(self, name: str, how: str, away: float) -> None:
        if name == "store" and self._store is not None:
            self._store.hurt(how, away)
            return
        if how == "pause":
            with _paused(self.stack.parts[name].processes()):
                time.sleep(away)  # so long it stands still
            return
        self.stack.stop(name, kill=how == "kill")
        time.sleep(away)  # so long it is away
        wait_for(lambda: self._started(name), f"{name} to start again", seconds=180)

    def _started(self, name: str) -> bool:
        try:
            self.stack.start(name)
        except CdcLakeError as error:
            raise AssertionError(f"{error.message} {error.why}") from None  # not yet: what it needs is away too
        return True

    def _look_after(self) -> None:
        """What runs must not end by itself; a task that failed, or a sink that could not begin, is started again."""
        for place, sink in enumerate(self._sinks):
            code = sink.process.poll()
            if code is not None and self._could_not_begin(sink):
                self.told.done["sink had to be started again"] += 1
                self._sinks[place] = self._start_sink()
            elif code is not None:
                self.told.wrong.append(f"a sink ended by itself with {code}: {self._words(sink)[-1500:]}")
        if self._fold is not None and self._fold.process.poll() not in (None, 0, -signal.SIGKILL):
            words = self._words(self._fold)
            if self._store is not None and "The object store of" in words and "does not answer" in words:
                self.told.done["fold was told that the store is away"] += 1
            else:
                self.told.wrong.append(f"a fold failed with {self._fold.process.returncode}: {words[-1500:]}")
            self._fold = None
        with contextlib.suppress(CdcLakeError):
            self._connector_runs()

    def _connector_runs(self) -> bool:
        with ConnectClient(self.stack.endpoints().connect_url) as client:
            try:
                status = client.find_status(self.project.name)
            except CdcLakeError:
                return False
        states = [status.state, *(t.state for t in status.tasks)] if status else []
        if "FAILED" in states:
            self.told.done["connector had to be restarted"] += 1
            done = self.project.run("connector", "restart", self.project.name)
            if done.returncode:
                self.told.done["connector could not be restarted yet"] += 1
        return bool(states[1:]) and set(states) == {"RUNNING"}

    def _start_sink(self) -> _Running:
        options = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000}
        return self._start("sink", "run", env={"CDC_LAKE__KAFKA__OPTIONS": json.dumps(options)})

    def _start(self, *command: str, env: dict[str, str] | None = None) -> _Running:
        log_file = f"{command[0]}-{next(self._numbers)}.log"
        return _Running(self.project.start(*command, env=env, log_file=log_file), log_file)

    def _words(self, running: _Running) -> str:
        return self.project.log(running.log_file)

    def _could_not_begin(self, sink: _Running) -> bool:
        """Whether it gave up before it began, as a sink does that finds no broker or no store; one that runs waits."""
        words = self._words(sink)
        return sink.process.returncode == 1 and "does not answer" in words and " tables · " not in words

    def _end_processes(self) -> None:
        for process in [one.process for one in [*self._sinks, *([self._fold] if self._fold else [])]]:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._sinks, self._fold = [], None


@contextlib.contextmanager
def _paused(processes: list[psutil.Process]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT when the block is left."""
    try:
        for process in processes:
            # One that has ended meanwhile must not leave the others standing.
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
