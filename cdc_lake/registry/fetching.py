"""The schemas of a registry for a loop that must not wait: they are fetched beside it, and kept for ever.

::

    want ──▶ fetching, one at a time ──▶ known
                 │ away: again, ever more slowly, until it answers
                 └ no such schema: again a few times, for it may be on its way; then refused for a while
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from cdc_lake.config import Config
from cdc_lake.errors import UnavailableError
from cdc_lake.registry.client import RegistryClient, UnknownSchemaError, open_client
from cdc_lake.registry.schemas import Refused, RegisteredSchema

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_TRIES = 4  # of a schema that is not there: with the pauses between, a few seconds
# How long a refusal holds before records with its number have it asked for again.
_REFUSED_SECONDS = 60.0


def beside(work: Callable[[], None]) -> None:
    """Do it on a thread that does not keep the process alive."""
    threading.Thread(target=work, name="registry", daemon=True).start()


class RegistrySchemas:
    """Implements `Schemas`. `want` and `awaits` are for one thread, `get` for any."""

    def __init__(
        self,
        client: RegistryClient,
        *,
        run: Callable[[Callable[[], None]], None] = beside,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._run, self._now, self._pause = client, run, now, pause
        self._known: dict[int, RegisteredSchema] = {}
        self._refused: dict[int, tuple[Refused, float]] = {}
        self._wanted: dict[int, int] = {}  # how often each was not there
        self._busy = False
        self._trouble = ""
        self._next, self._wait = 0.0, _FIRST_PAUSE

    def want(self, numbers: Collection[int]) -> None:
        """Begin to fetch what is not known yet."""
        for number in numbers:
            if number not in self._known and self._refusal(number) is None:
                self._wanted.setdefault(number, 0)

    def awaits(self) -> str:
        """In words, what must come before all that is wanted is known."""
        if not self._wanted:
            return ""
        if not self._busy and self._now() >= self._next:
            self._busy = True
            self._run(self._fetch)
        if not self._wanted:
            return ""
        if self._trouble:
            return f"waiting for the schema registry ({self._trouble})"
        return f"waiting for schema {next(iter(self._wanted), '')} of the registry"

    def get(self, number: int) -> RegisteredSchema | Refused:
        """The schema of a number. Waits for one that is not known; raises UnavailableError when the registry is away
        for longer than a few tries take."""
        wait, tries = _FIRST_PAUSE, 0
        while (found := self._known.get(number) or self._refusal(number)) is None:
            tries += 1
            try:
                self._known[number] = self._client.schema(number)
            except UnknownSchemaError:
                if tries >= _TRIES:
                    self._refuse(number)
            except UnavailableError:
                if tries >= _TRIES:
                    raise
            if number not in self._known and tries < _TRIES:
                self._pause(wait)
                wait *= 2
        return found

    def _fetch(self) -> None:
        """Ask for everything that is wanted, until something stands in the way."""
        try:
            for number in list(self._wanted):
                self._one(number)
        except UnavailableError as error:
            if not self._trouble:
                log.warning("%s %s The sink waits for it; nothing is dropped.", error.message, error.why)
            self._trouble = f"{self._client.url}: {error.why}"
            self._again()
        else:
            if self._trouble:
                log.info("The schema registry at %s answers again.", self._client.url)
            self._trouble = ""
            if self._wanted:
                self._again()
            else:
                self._next, self._wait = 0.0, _FIRST_PAUSE
        finally:
            self._busy = False

    def _one(self, number: int) -> None:
        try:
            self._known[number] = self._client.schema(number)
        except UnknownSchemaError:
            self._wanted[number] += 1
            if self._wanted[number] < _TRIES:
                return
            self._refuse(number)
            log.warning(
                "The schema registry at %s has no schema %d: its records are dead letters.", self._client.url, number
            )
        del self._wanted[number]

    def _again(self) -> None:
        self._next = self._now() + self._wait
        self._wait = min(self._wait * 2, _LONGEST_PAUSE)

    def _refuse(self, number: int) -> None:
        reason = f"the schema registry at {self._client.url} has no schema {number}"
        self._refused[number] = (Refused("unknown_schema", reason), self._now() + _REFUSED_SECONDS)

    def _refusal(self, number: int) -> Refused | None:
        found = self._refused.get(number)
        return found[0] if found is not None and self._now() < found[1] else None


def open_schemas(config: Config) -> RegistrySchemas | None:
    """The schemas of the configured registry; None when none is configured."""
    client = open_client(config)
    if client is None or config.registry is None:
        return None
    if config.registry.readable_by_others:
        log.warning(
            "The credentials for the schema registry at %s are not encrypted on the way. Name it with https.",
            client.url,
        )
    return RegistrySchemas(client)
