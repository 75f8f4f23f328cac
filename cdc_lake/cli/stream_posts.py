"""The HTTP receivers of models: a thread for each, so that a slow one holds up neither evaluation nor the others."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from cdc_lake.cli import output
from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, ConfigError, suggest
from cdc_lake.react.outputs import Receiver
from cdc_lake.react.stream.http import Posts
from cdc_lake.react.stream.run import table_of
from cdc_lake.react.stream.shape import Shape

_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class _Line:
    posts: Posts
    wake: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    error: CdcLakeError | None = None


@dataclass(slots=True)
class Outlets:
    """Sends rows of models that have an output."""

    config: Config
    _lines: dict[str, _Line] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def open(self, shapes: list[Shape]) -> None:
        """Take the models that have an output. Raises ConfigError for one that the configuration does not have."""
        for shape in shapes:
            if shape.model.output is not None:
                self._lines[shape.name] = _Line(self._posts(shape, shape.model.output))

    def start(self) -> None:
        """Send from now on, until `close`."""
        for name, line in self._lines.items():
            line.thread = threading.Thread(target=self._run, args=(name, line), name=f"post-{name}", daemon=True)
            line.thread.start()

    def wake(self) -> None:
        """There may be new rows."""
        for line in self._lines.values():
            line.wake.set()

    def finish(self) -> None:
        """End the threads, and send what is left once."""
        self.close()
        for line in self._lines.values():
            line.posts.stopped = lambda: False
            self._once(line)

    def close(self) -> None:
        """Finish the rows under way, and end the threads."""
        self._stop.set()
        self.wake()
        for line in self._lines.values():
            if line.thread is not None:
                line.thread.join()
                line.thread = None

    @property
    def sent(self) -> dict[str, int]:
        """How many rows of each model were taken."""
        return {name: line.posts.sent for name, line in self._lines.items()}

    @property
    def errors(self) -> list[CdcLakeError]:
        """Why rows wait."""
        return [line.error for line in self._lines.values() if line.error is not None]

    def _posts(self, shape: Shape, name: str) -> Posts:
        outputs = self.config.streams.outputs
        if name not in outputs:
            known = ", ".join(outputs) or "none"
            raise ConfigError(
                f"{shape.model.file}: there is no output {name}.",
                why=suggest(name, outputs) or f"`streams.outputs` in cdc-lake.yaml has: {known}.",
                next=f"add it there: streams: {{outputs: {{{name}: {{url: https://…}}}}}}",
            )
        receiver = Receiver(outputs[name].url, outputs[name].headers)
        return Posts(shape, table_of(self.config, shape), receiver, self._stop.is_set)

    def _run(self, name: str, line: _Line) -> None:
        while not self._stop.is_set():
            line.wake.clear()
            before = line.error
            self._once(line)
            if line.error is None:
                line.wake.wait(_LOOK_SECONDS * 30)
                continue
            if before is None:
                output.say(f"Rows of {name} wait: {line.error.message} {line.error.why}")
            until = time.monotonic() + line.posts.pause(line.error)
            while time.monotonic() < until and not self._stop.wait(min(_LOOK_SECONDS, until - time.monotonic())):
                pass

    @staticmethod
    def _once(line: _Line) -> None:
        try:
            line.posts.deliver()
            line.error = None
        except CdcLakeError as error:
            line.error = error
