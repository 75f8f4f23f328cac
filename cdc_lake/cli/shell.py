"""The interactive SQL shell: a loop of read, run, print over one session."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cdc_lake.cli import output
from cdc_lake.cli.query import show, show_cut
from cdc_lake.errors import CdcLakeError, UsageError
from cdc_lake.query.names import Names, read_names
from cdc_lake.query.run import run_sql
from cdc_lake.query.session import Session, open_session

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History

    from cdc_lake.config import Config

_HELP = """\
  \\d          tables            \\d TABLE    columns of a table
  \\r          read the lake again: see what has landed since
  \\timing     show or hide how long a query took
  \\?          this help         \\q          leave (also Ctrl-D)
  A statement ends with ; and may take several lines. Ctrl-C drops the line, or stops a query."""

_KEYWORDS = re.findall(
    r"\w+",
    """select from where group by order having limit offset join left right full inner outer on using as with union all
    except intersect distinct case when then else end and or not in exists between like ilike is null asc desc count
    sum avg min max describe summarize show current changes lake qualify over partition""",
)
_WORD = re.compile(r'[\w."]*$')


class Shell:
    """Runs statements and backslash commands; an error is told and the shell goes on."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._timing = True
        self._session: Session = open_session(config)
        self._names: Names = read_names(self._session)

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def interact(self) -> None:
        """Read from the terminal until `\\q` or Ctrl-D."""
        prompt = _prompt(self, self._config)
        show_cut(self._session)
        output.say(f"{len(self._session.tables)} tables. \\d lists them, \\? helps, \\q leaves.")
        while True:
            try:
                text = prompt.prompt().strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text in ("\\q", "quit", "exit", "quit;", "exit;"):
                return
            with self._told():
                self._run(text)

    def run_script(self, text: str) -> None:
        """Run the statements of a script; the first error ends it."""
        for statement in _statements(text):
            self._run(statement)

    def complete(self, text: str, word: str) -> Iterator[str]:
        """What `word`, the last of `text`, may become."""
        yield from self._names.matching(word, text)
        if word:
            yield from (k for k in _KEYWORDS if k.startswith(word.lower()))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except CdcLakeError as error:
            output.fail(error)
        except KeyboardInterrupt:
            self._session.connection.interrupt()
            output.say("Stopped.")

    def _run(self, text: str) -> None:
        if text.startswith("\\"):
            self._command(text.rstrip(";"))
            return
        if not text.rstrip(";").strip():
            return
        begun = time.monotonic()
        result = run_sql(self._session, text)
        if result is not None:
            show(result, "json" if output.as_json() else "table")
        if self._timing:
            output.say(f"{(time.monotonic() - begun) * 1000:,.0f} ms")

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        if name == "\\d":
            self._describe(argument.strip())
        elif name == "\\r":
            self._session.close()
            self._session = open_session(self._config)
            self._names = read_names(self._session)
            show_cut(self._session)
        elif name == "\\timing":
            self._timing = not self._timing
            output.say(f"Timing is {'on' if self._timing else 'off'}.")
        elif name == "\\?":
            output.say(_HELP)
        else:
            raise UsageError(f"There is no command {name}.", next="\\?")

    def _describe(self, table: str) -> None:
        if table:
            query = f"SELECT column_name AS column, column_type AS type FROM (DESCRIBE {table})"
            result = run_sql(self._session, query)
            if result is not None:
                show(result, "table")
            return
        output.table(["table", "columns"], [[n, ", ".join(c)] for n, c in self._names.relations.items()])


def _statements(text: str) -> Iterator[str]:
    """The statements and backslash commands of a script."""
    held: list[str] = []
    for line in text.splitlines():
        if not held and line.lstrip().startswith("\\"):
            yield line.strip()
            continue
        held.append(line)
        if is_complete("\n".join(held)):
            yield "\n".join(held)
            held.clear()
    if "\n".join(held).strip():
        yield "\n".join(held)


def is_complete(text: str) -> bool:
    """Whether a statement may run: a backslash command, an empty line, or one that ends with `;` outside quotes."""
    stripped = text.strip()
    if not stripped or stripped.startswith("\\") or stripped in ("quit", "exit"):
        return True
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|--[^\n]*", "", stripped)
    return bare.rstrip().endswith(";") and "'" not in bare and '"' not in bare


def _history(config: Config) -> History:
    """Kept beside the project's other state; only for this run where that cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        config.state_folder.mkdir(parents=True, exist_ok=True)
        file = config.state_folder / "sql_history"
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


def _prompt(shell: Shell, config: Config) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.lexers import PygmentsLexer
    from pygments.lexers.sql import PostgresLexer  # type: ignore[import-untyped]

    class Lake(Completer):
        def get_completions(self, document: Document, _event: CompleteEvent) -> Iterator[Completion]:
            found = _WORD.search(document.text_before_cursor)
            word = found.group(0) if found is not None else ""
            for name in shell.complete(document.text, word):
                yield Completion(name, start_position=-len(word))

    keys = KeyBindings()

    @keys.add("enter", filter=Condition(lambda: is_complete(get_app().current_buffer.text)))
    def _submit(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return PromptSession(
        "lake> ",
        completer=Lake(),
        lexer=PygmentsLexer(PostgresLexer),
        history=_history(config),
        key_bindings=keys,
        multiline=True,
        prompt_continuation="   -> ",
        complete_while_typing=False,
    )
