"""Where the demo plays: a project of its own inside the state folder, with its own stack, and what runs beside it.

Nothing of it touches the user's stack or lake. Its processes are found again by the folder's name in their arguments,
so that the next demo also clears away what a killed one has left.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil

from cdc_lake.config import DEFAULT_FILE, STATE_FOLDER, Config, load_config
from cdc_lake.errors import CdcLakeError
from cdc_lake.local import process
from cdc_lake.local.stack import Stack

FLUSH_SECONDS = 0.5
BACKGROUND_RATE = 5

_CONFIG = f"""\
# Written by `cdc-lake demo`, and written anew by the next one.
sources:
  - {{name: pos, connector: connectors/pos.json}}<<events>>
lake: {{uri: ./lake}}
sink: {{flush_seconds: {FLUSH_SECONDS}}}   # default 5: the demo shows changes sooner and writes more, smaller files
"""
# Commands that go on running: any other of the same configuration is the user's own.
_COMMANDS = ("sink", "rules", "stream", "serve")


class Stage:
    """The demo's folder and what runs for it. `folder` is wiped by `clear`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.config_file = self.folder / DEFAULT_FILE
        self.stack = Stack(self.folder / STATE_FOLDER)
        self._running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._told = ""

    @property
    def _mark(self) -> str:
        return f"--config={self.config_file}"

    @property
    def _trade_mark(self) -> str:
        return f"--for={self.folder}"

    @property
    def _service_mark(self) -> str:
        return f"--state={self.folder / 'services'}"

    @property
    def sink_log(self) -> Path:
        """The output of the sink."""
        return self.stack.state.log("sink")

    def clear(self, say: Callable[[str], None]) -> None:
        """End what an earlier demo left running and delete all it wrote."""
        self.end(say)
        self.stack.down(wipe=True, progress=say)
        shutil.rmtree(self.folder, ignore_errors=True)

    def prepare(self, *, events: tuple[str, ...] = (), more: Mapping[str, str] | None = None) -> Config:
        """Write the project: its configuration and connector file, and `more` files by their path.

        The topics `events` are landed, too.
        """
        shipped = files("cdc_lake.init").joinpath("templates", "connector.json").read_text(encoding="utf-8")
        for name, text in {"connectors/pos.json": shipped, **(more or {})}.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        source = f"\n  - {{name: services, events: [{', '.join(events)}]}}" if events else ""
        self.config_file.write_text(_CONFIG.replace("<<events>>", source), encoding="utf-8")
        # The user's CDC_LAKE__… variables are about another lake.
        return load_config(self.config_file, environ={})

    def start(self, name: str, *words: str, stdout: int | None = None) -> None:
        """Run a command of cdc-lake as the user would, in a process of its own, until the end of the demo."""
        self._launch(name, ["-m", "cdc_lake", self._mark, *words], _environment(), stdout)

    def start_service(self, name: str, module: str, folder: Path, *words: str) -> None:
        """Run a service, whose module is found below `folder`."""
        command = ["-m", module, "--bootstrap", self.stack.endpoints().bootstrap, self._service_mark, *words]
        self._launch(name, command, _environment(PYTHONPATH=str(folder)), None)

    def _launch(self, name: str, arguments: list[str], env: dict[str, str], stdout: int | None) -> None:
        log = self.stack.state.log(name)
        since = log.stat().st_size if log.exists() else 0
        started = process.launch([sys.executable, *arguments], log, cwd=self.folder, env=env, stdout=stdout)
        self._running[name] = (started, since)

    def check(self) -> None:
        """Raise CdcLakeError with the last words of a process that has ended."""
        for name, (running, since) in self._running.items():
            if (code := running.poll()) is not None:
                log = self.stack.state.log(name)
                raise CdcLakeError(
                    f"The demo's process {name} has ended by itself.",
                    why=f"Exit code {code}. {process.last_lines(log, since=since)}",
                    next=f"read {log}",
                    code="sink_ended",
                )

    def wait(
        self,
        what: str,
        check: Callable[[], bool],
        *,
        seconds: float,
        say: Callable[[str], None],
        pause: float = 0.1,
    ) -> None:
        """Ask until `check` is true while all that was started runs; CdcLakeError naming `what` when `seconds` have
        passed. `pause` is between two questions: those that cost much are in the way of what they wait for.
        """
        deadline = time.monotonic() + seconds
        while not check():
            self.check()
            if time.monotonic() > deadline:
                raise CdcLakeError(
                    f"Not seen within {seconds:.0f} s: {what}.",
                    why=f"The sink's last words: {process.last_lines(self.sink_log, since=0, count=3)}",
                    next=f"read the logs in {self.stack.state.logs}",
                    code="demo_stalled",
                )
            since = self._running["sink"][1] if "sink" in self._running else 0
            words = process.last_lines(self.sink_log, since=since, count=1)
            if words and words != self._told:
                say(words)
                self._told = words
            time.sleep(pause)

    def run(self, *words: str) -> dict[str, Any]:
        """What a command of cdc-lake says with `--json`. Raises CdcLakeError with its own words when it failed."""
        command = [sys.executable, "-m", "cdc_lake", self._mark, "--json", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=_environment(), capture_output=True, check=False, start_new_session=True
        )
        try:
            document: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            words_of_it = done.stderr.decode("utf-8", "replace").strip()[-600:]
            raise CdcLakeError(f"cdc-lake {words[0]} gave no answer.", why=words_of_it, code="internal") from None
        # A command over many tables tells of each; the first that failed speaks for them.
        failed = [part for part in (document, *document.get("tables", ())) if "error" in part]
        if failed:
            told = failed[0]["error"]
            raise CdcLakeError(told["message"], why=told["why"], next=told["next"], code=told["code"])
        return document

    def start_trade(self) -> None:
        """Go on trading in the background, slowly, after the demo has ended."""
        command = [sys.executable, "-m", "cdc_lake.local.retail.workload", f"--rate={BACKGROUND_RATE}"]
        log = self.stack.state.log("workload")
        process.launch(
            [*command, self._trade_mark], log, cwd=self.folder, env=_environment(RETAIL_DSN=self.stack.endpoints().dsn)
        )

    def end(self, say: Callable[[str], None]) -> None:
        """Stop everything: trade and sink finish what they do, then the stack goes down. Data and logs stay."""
        try:
            process.end(process.find(self._trade_mark), how=signal.SIGTERM, seconds=15)
            process.end(self._left(), how=signal.SIGTERM, seconds=30)
            for running, _ in self._running.values():
                running.wait(timeout=10)
            self._running = {}
        finally:
            self.stack.down(progress=say)

    def _left(self) -> Iterator[psutil.Process]:
        """What follows the log: services, and those of the commands that go on running."""
        yield from process.find(self._service_mark)
        # A query of the user's on the same configuration carries the same mark.
        yield from (p for p in process.find(self._mark) if _has_argument(p, _COMMANDS))


def _has_argument(candidate: psutil.Process, words: tuple[str, ...]) -> bool:
    try:
        return any(word in candidate.cmdline() for word in words)
    except psutil.Error:
        return False


def _environment(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in process.environment().items() if not k.startswith("CDC_LAKE__")}
    return kept | extra
