"""The newest state of each view, and who waits for the next one.

There is one state per view however many pages are open, and no queue: a page says how far it is and is given what is
newer, each view once. A page that is slow skips what was replaced meanwhile, and one that comes back after a while gets
what it lacks. So a page costs a few kilobytes, and a change costs one sending to each.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest state of a view (`text`, its document), the number it came under, and its event as it is sent."""

    name: str
    number: int
    text: str
    event: bytes


class Board:
    """States by name. Any thread may `publish`, the rest is for that of the event loop which `attach` named."""

    def __init__(self) -> None:
        # Numbers count from the start of a process: a page that comes from an earlier one is told from its mark.
        self.mark = secrets.token_hex(4)
        self._entries: dict[str, Entry] = {}
        self._mutex = threading.Lock()
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self.closed = False
        self.pages = 0

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake those who wait in `loop` from now on."""
        self._loop = loop

    def publish(self, name: str, text: str, *, kind: str = "view") -> bool:
        """Replace the state of `name`; whether it differs from the one before."""
        with self._mutex:
            old = self._entries.get(name)
            if old is not None and old.text == text:
                return False
            self._number += 1
            event = f"id: {self.mark}-{self._number}\nevent: {kind}\ndata: {text}\n\n".encode()
            self._entries[name] = Entry(name, self._number, text, event)
        self._wake()
        return True

    def keep(self, names: Sequence[str]) -> None:
        """Forget all states but those of `names`."""
        with self._mutex:
            self._entries = {n: e for n, e in self._entries.items() if n in names}

    def close(self) -> None:
        """Let everyone who waits go."""
        self.closed = True
        self._wake()

    def get(self, name: str) -> str | None:
        """The state of `name`."""
        entry = self._entries.get(name)
        return entry.text if entry is not None else None

    def after(self, number: int) -> Entry | None:
        """The oldest state that is newer than `number`; None when there is none."""
        with self._mutex:
            newer = [e for e in self._entries.values() if e.number > number]
        return min(newer, key=lambda e: e.number, default=None)

    def number_of(self, last_event_id: str) -> int:
        """How far a page is that got this event last; 0, nothing, when it was an event of another process."""
        mark, _, number = last_event_id.partition("-")
        return int(number) if mark == self.mark and number.isascii() and number.isdigit() else 0

    async def changed(self, number: int, seconds: float) -> bool:
        """Wait until there is something newer than `number`; False when there was not within `seconds`."""
        news = self._news
        if self._number > number or self.closed:
            return True
        try:
            await asyncio.wait_for(news.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
