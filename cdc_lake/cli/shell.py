"""The interactive SQL shell: a loop of read, run, print over one session."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from cdc_lake.cli import output
from cdc_lake.cli.query import show_cut
from cdc_lake.cli.shell_show import View, show
from cdc_lake.cli.stoppable import StoppableReader, Stopped, stoppable
from cdc_lake.cli.witness import Witness
from cdc_lake.errors import CdcLakeError, UsageError
from cdc_lake.query.names import Names, read_names
from cdc_lake.query.run import Result, run_sql
from cdc_lake.query.session import Session, open_session
from cdc_lake.query.statements import statements

if TYPE_CHECKING:
    from cdc_lake.config import Config

LEAVE = ("\\q", "quit", "exit")
# Where an error of a command sends people, and the same from inside the shell.
_HERE = {"cdc-lake tables": "\\d", "run it again in a new session": "\\r reads the lake again, then run it again"}
_DEPTH = 16


class Shell:
    """Runs statements and backslash commands; an error is told and the shell goes on."""

    def __init__(self, config: Config, witness: Witness | None = None) -> None:
        self._config, self._witness = config, witness or Witness()
        self.view = View("json" if output.as_json() else "table")
        self.timing = False
        self.moment: str | None = None
        self.last = ""
        self._files: list[Path] = []
        self.session: Session = self._opened(None)
        self.names: Names = read_names(self.session)

    @property
    def prompt(self) -> str:
        """What stands before the cursor: the moment too, when it is not now."""
        return f"lake @ {self.moment}> " if self.moment else "lake> "

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def interact(self) -> None:
        """Read from the terminal until `\\q` or Ctrl-D."""
        from cdc_lake.cli.shell_prompt import prompt_of

        read = prompt_of(self, self._config.state_folder)
        self.timing = True
        show_cut(self.session)
        count = len(self.session.tables)
        output.say(f"{count} table{'' if count == 1 else 's'}. \\d lists them, \\? helps, \\q leaves.")
        while True:
            try:
                text = read()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.strip().rstrip(";").strip() in LEAVE:
                return
            with self._told():
                self.run_script(text)

    def run_script(self, text: str) -> None:
        """Run the statements and commands of a text; the first error ends it."""
        from cdc_lake.cli.shell_commands import run_command

        for statement in statements(text):
            if statement.rstrip(";") in LEAVE:
                return
            if statement.startswith("\\"):
                run_command(self, statement)
            else:
                self.run(statement)

    def run_file(self, file: Path) -> None:
        """Run a file of statements and commands. Raises UsageError when it cannot be read."""
        if len(self._files) >= _DEPTH:
            raise UsageError(f"{file} is read again and again.", why="Files read each other.", next="correct its \\i")
        try:
            text = file.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{file} cannot be read.", why=why, next="\\i FILE with another path") from None
        self._files.append(file)
        try:
            self.run_script(text)
        finally:
            self._files.pop()

    def run(self, sql: str) -> None:
        """Run one statement and show its result."""
        self.last = sql
        begun = time.monotonic()
        with self._witness.work("query"), self.result(sql) as result:
            self._witness.reads(self.session)
            seconds = time.monotonic() - begun
            count = show(result, self.view) if result is not None else -1
        if self.timing:
            rows = f"{count:,} row{'' if count == 1 else 's'} · " if count >= 0 else ""
            output.say(f"{rows}{_seconds(seconds)}")

    @contextlib.contextmanager
    def result(self, sql: str) -> Iterator[Result | None]:
        """A statement's result, which Ctrl-C stops. Raises SqlError."""
        con = self.session.connection
        found = stoppable(con, lambda: run_sql(self.session, sql))
        if found is None:
            yield None
            return
        try:
            yield replace(found, reader=StoppableReader(con, found.reader))
        finally:
            found.close()

    def reopen(self, moment: str | None) -> None:
        """Read the lake again, as of a moment; when that cannot be, the session stays as it was."""
        opened = self._opened(moment)
        self.session.close()
        self.session, self.moment = opened, moment
        self.names = read_names(opened)
        show_cut(opened)

    def _opened(self, moment: str | None) -> Session:
        session = open_session(self._config, as_of=moment)
        # DuckDB counts how far a query is only when it believes that it prints it.
        with contextlib.suppress(duckdb.Error):
            session.connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        return session

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except CdcLakeError as error:
            for there, here in _HERE.items():
                error.next = error.next.replace(there, here)
            output.fail(error)
        except (Stopped, KeyboardInterrupt):
            output.say("Stopped.")
        except BrokenPipeError:
            # The pager has left.
            return


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1000:,.0f} ms"
