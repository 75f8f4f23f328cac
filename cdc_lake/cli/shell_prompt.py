"""Reading a statement from the terminal: colours, history, completion, lines until it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import ColorDepth
from pygments.lexers.sql import PostgresLexer  # type: ignore[import-untyped]

from cdc_lake.cli.shell_commands import COMMANDS
from cdc_lake.query.statements import is_complete

if TYPE_CHECKING:
    from cdc_lake.cli.shell import Shell


class LakeCompleter(Completer):
    """Names of the lake as it is shown now, words of SQL, the shell's commands and what stands behind them."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What the word before the cursor may become."""
        before = document.text_before_cursor.lstrip()
        if not before.startswith("\\"):
            yield from self._names(document.text_before_cursor, document.text_after_cursor)
            return
        name, space, argument = before.partition(" ")
        if not space:
            yield from (Completion(c, start_position=-len(name)) for c in COMMANDS if c.startswith(name))
        elif name in ("\\d", "\\dt"):
            # As behind FROM: tables, and their catalogues and schemas.
            yield from self._names(f"FROM {argument}", "")
        elif name in ("\\i", "\\o"):
            path = Document(argument, len(argument))
            yield from PathCompleter(expanduser=True).get_completions(path, complete_event)
        elif name == "\\plot":
            yield from self._names(argument, document.text_after_cursor)
        elif name in COMMANDS:
            words = (w for w in COMMANDS[name].words if w.startswith(argument))
            yield from (Completion(w, start_position=-len(argument)) for w in words)

    def _names(self, before: str, after: str) -> Iterator[Completion]:
        word, found = self._shell.names.completions(before, after)
        for name in found:
            yield Completion(name, start_position=-len(word), display=name.rpartition(".")[2])


def prompt_of(shell: Shell, folder: Path) -> Callable[[], str]:
    """A function that reads what the person types next. Raises KeyboardInterrupt on Ctrl-C, EOFError on Ctrl-D."""
    keys = KeyBindings()

    @keys.add("enter", filter=Condition(lambda: is_complete(get_app().current_buffer.text)))
    def _submit(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    session: PromptSession[str] = PromptSession(
        completer=LakeCompleter(shell),
        lexer=PygmentsLexer(PostgresLexer),
        history=_history(folder),
        auto_suggest=AutoSuggestFromHistory(),
        key_bindings=keys,
        multiline=True,
        prompt_continuation=lambda width, _line, _wrapped: "-> ".rjust(width),
        complete_while_typing=False,
        enable_open_in_editor=True,
        color_depth=ColorDepth.MONOCHROME if os.environ.get("NO_COLOR") else None,
    )
    return lambda: session.prompt(shell.prompt)


def _history(folder: Path) -> History:
    """Kept beside the project's other state; only for this run where that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "sql_history"
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))
