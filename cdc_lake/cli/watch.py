"""`status --watch`: a full screen that is drawn anew, and the keys that do something."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import typer

from cdc_lake.cli import output
from cdc_lake.cli.watch_state import Moment, Reader
from cdc_lake.cli.watch_view import Looked, as_ansi, choices, draw
from cdc_lake.config import Config
from cdc_lake.errors import EXIT_INTERRUPTED, CdcLakeError, UsageError

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import Output

_SECONDS = 2.0
_CHANGES = 50


def watch_status(config: Config) -> None:
    """Show the screen until `q`. Raises UsageError off a terminal."""
    if output.as_json() or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "`status --watch` needs a terminal.",
            why="It fills the screen and reads keys; what is not a terminal has neither.",
            next="cdc-lake --json status",
            code="no_terminal",
        )
    if Watch(config, Reader(config, output.config_option())).run():
        raise typer.Exit(EXIT_INTERRUPTED)


class Watch:
    """The screen's state. A thread reads the moments; keys only note what is wanted, so that they never wait."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self._config, self._reader = config, reader
        self._moment: Moment | None = None
        self._chosen = 0
        self._look: str | None = None
        self._looked: Looked | None = None
        self._said = ""
        self._tasks: list[tuple[str, str]] = []
        self._wake, self._stop = threading.Event(), threading.Event()
        self._app: Any = None

    def run(self, *, source: Input | None = None, screen: Output | None = None) -> bool:
        """Until `q` or Ctrl-C; whether it was the latter. Terminals other than the process' own are for tests."""
        from prompt_toolkit.application import Application
        from prompt_toolkit.layout import Layout, Window
        from prompt_toolkit.layout.controls import FormattedTextControl
        from prompt_toolkit.output import ColorDepth

        self._app = Application[bool](
            layout=Layout(Window(FormattedTextControl(self._text, show_cursor=False))),
            key_bindings=self._keys(),
            full_screen=True,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            input=source,
            output=screen,
        )
        thread = threading.Thread(target=self._read, name="watch", daemon=True)
        thread.start()
        try:
            return bool(self._app.run())
        finally:
            self._stop.set()
            self._wake.set()

    def picture(self, height: int) -> Any:
        """What the screen shows now."""
        return draw(self._moment, self._chosen, height, looked=self._looked, said=self._said)

    def step(self) -> None:
        """Do what keys asked for, then read the next moment."""
        while self._tasks:
            self._steer(*self._tasks.pop(0))
        self._moment = self._reader.read()
        self._chosen = min(self._chosen, max(0, len(choices(self._moment)) - 1))
        self._looked = self._changes(self._look) if self._look is not None else None

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except Exception as error:  # a screen that dies takes the terminal with it; the next moment may be better
                self._said = f"{type(error).__name__}: {error}"
            self._app.invalidate()
            self._wake.wait(_SECONDS)
            self._wake.clear()

    def _text(self) -> Any:
        from prompt_toolkit.formatted_text import ANSI

        size = self._app.output.get_size()
        return ANSI(as_ansi(self.picture(size.rows), size.columns, size.rows))

    def _keys(self) -> KeyBindings:
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()

        def on(*names: str) -> Any:
            return lambda action: [keys.add(name, eager=True)(action) for name in names]

        on("q", "Q")(lambda event: event.app.exit(result=False))
        on("c-c")(lambda event: event.app.exit(result=True))
        on("up", "k")(lambda _: self._choose(-1))
        on("down", "j")(lambda _: self._choose(1))
        on("enter")(lambda _: self._open())
        on("escape")(lambda _: self._close())
        on("p")(lambda _: self._ask("pause"))
        on("r")(lambda _: self._ask("resume"))
        return keys

    def _chosen_thing(self) -> tuple[str, str] | None:
        things = choices(self._moment) if self._moment is not None else []
        return things[self._chosen] if self._chosen < len(things) else None

    def _choose(self, by: int) -> None:
        count = len(choices(self._moment)) if self._moment is not None else 0
        self._chosen = max(0, min(self._chosen + by, count - 1))

    def _open(self) -> None:
        thing = self._chosen_thing()
        if thing is not None and thing[0] == "table":
            self._look, self._looked = thing[1], Looked(thing[1], ())
            self._wake.set()

    def _close(self) -> None:
        self._look = self._looked = None

    def _ask(self, verb: str) -> None:
        thing = self._chosen_thing()
        if thing is None or thing[0] != "connector":
            self._said = f"Choose a connector to {verb} it: it captures all its tables together."
            return
        self._said = f"{verb} {thing[1]}…"
        self._tasks.append((verb, thing[1]))
        self._wake.set()

    def _steer(self, verb: str, name: str) -> None:
        from cdc_lake.capture.connect import ConnectClient
        from cdc_lake.capture.running import await_state

        wanted = {"pause": "PAUSED", "resume": "RUNNING"}[verb]
        try:
            with ConnectClient(self._config.connect_url) as client:
                (client.pause if verb == "pause" else client.resume)(name)
                await_state(client, name, wanted, seconds=15)
            self._said = f"Connector {name} is {wanted.lower()}."
        except CdcLakeError as error:
            self._said = f"{error.message} {error.next}".rstrip()

    def _changes(self, table: str) -> Looked:
        from cdc_lake.cli.changes import line_of
        from cdc_lake.query.events import EventReader

        try:
            reader = EventReader(self._config, table)
            try:
                return Looked(table, [line_of(event) for event in reader.last(_CHANGES)])
            finally:
                reader.close()
        except CdcLakeError as error:
            self._said = error.message
            return Looked(table, ())
