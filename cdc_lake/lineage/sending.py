"""Events to whoever keeps lineage: in order, on a thread of their own, never in the way of what they tell about."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from openlineage.client import OpenLineageClient

from cdc_lake import undelivered
from cdc_lake.errors import first_line
from cdc_lake.logs import Redactor

log = logging.getLogger("cdc_lake.lineage")
# More than these waiting means that nobody takes them.
_WAITING = 1000
_LONGEST = 200
_SECRET = re.compile(r"auth|key|token|pass|secret|credential|header", re.IGNORECASE)


def _hidden(config: Any, *, secret: bool = False) -> Iterator[str]:
    """What is not for everybody in a transport's configuration: everything below a name that says so."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _hidden(value, secret=secret or bool(_SECRET.search(str(name))))
    elif secret and isinstance(config, str):
        yield from (config, config.rpartition(" ")[2])


class Sender:
    """Sends events one after the other, says once when that fails and once when it goes again, counts what was lost."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Where to, and how, OpenLineage's client reads from its own variables and file. Raises what it raises when
        something is wrong there. `secrets` are what else must not be told."""
        # At debug level it writes its configuration down, with what is secret in it; urllib3 tells of each attempt.
        logging.getLogger("openlineage").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._client = OpenLineageClient()
        self.redact = Redactor([*secrets, *_hidden(self._client.config.transport)])
        self._events: queue.Queue[Any] = queue.Queue(_WAITING)
        self._failing, self._closed = False, threading.Event()
        self._thread = threading.Thread(target=self._run, name="lineage", daemon=True)
        self._thread.start()

    @property
    def where(self) -> str:
        """Where events go, without what may be a secret."""
        transport = self._client.transport
        url = urlsplit(str(getattr(transport, "url", "")))
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", "")) or str(transport.kind)

    def send(self, event: Any) -> None:
        """Send an event some time soon."""
        try:
            self._events.put_nowait(event)
        except queue.Full:
            undelivered.count("lineage", 1)

    def close(self) -> None:
        """Send what waits, and wait a bounded time for it: a short one where the server makes trouble."""
        self._closed.set()
        with contextlib.suppress(queue.Full):
            self._events.put_nowait(None)
        if not undelivered.wait_for_last(self._thread, lambda: self._failing):
            undelivered.count("lineage", self._events.qsize())
            log.warning("The last events of lineage were not delivered to %s in time.", self.where)

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            self._send(event)
            if self._closed.is_set() and self._events.empty():
                return

    def _send(self, event: Any) -> None:
        try:
            self._client.emit(event)
        except Exception as error:  # whatever a transport raises: a server that is away, a wrong key
            undelivered.count("lineage", 1)
            if not self._failing:
                why = self.redact(f"{type(error).__name__}: {first_line(error)}")[:_LONGEST]
                log.warning("Lineage does not reach %s and has gaps from now on: %s", self.where, why)
            self._failing = True
        else:
            if self._failing:
                log.warning("Lineage reaches %s again.", self.where)
            self._failing = False
