"""The page as it was: all views as of a past moment, each moment read once for all who ask for it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from cdc_lake.errors import UnavailableError, UsageError
from cdc_lake.query.session import Session, open_session
from cdc_lake.serve.dashboard.evaluate import Moment, evaluate
from cdc_lake.serve.dashboard.poller import VERSION, Poller

T = TypeVar("T")
_PAGES, _SESSIONS, _WAITING = 64, 3, 24
_LONGEST = 64
_VIEW_SECONDS = 60


class Past:
    """Sessions and pages of past moments, the ones used last. One moment is read at a time."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_WAITING)
        self._pages: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, int], tuple[Session, Moment]] = OrderedDict()

    def page(self, at: str) -> str:
        """All views without parameters, as one document. Raises MomentError, LakeError, UnavailableError (busy)."""
        key = self._key(at)

        def read(session: Session, moment: Moment) -> str:
            views = [evaluate(session, v, moment) for v in self._poller.views if not v.parameters]
            head = {"version": VERSION, "number": self._poller.number, **moment.as_dict()}
            return f'{json.dumps(head)[:-1]}, "views": [{", ".join(views)}]}}'

        found = self._pages.get(key)
        return found if found is not None else self.use(at, read, kept=self._pages)

    def use(
        self, at: str, do: Callable[[Session, Moment], T], *, kept: OrderedDict[tuple[str, int], T] | None = None
    ) -> T:
        """What `do` makes of the session as of `at`, which is its own until it returns. Raises as `page`."""
        key = self._key(at)
        if not self._waiting.acquire(blocking=False):
            raise UnavailableError("Too many are looking back.", why="One moment is read at a time.", next="try again")
        try:
            with self._turn:
                if kept is not None and key in kept:
                    return kept[key]
                done = do(*self._session(key, at))
                if kept is not None:
                    kept[key] = done
                    while len(kept) > _PAGES:
                        kept.popitem(last=False)
                return done
        finally:
            self._waiting.release()

    def close(self) -> None:
        """Close the sessions."""
        with self._turn:
            for session, _ in self._sessions.values():
                session.close()
            self._sessions.clear()

    def _key(self, at: str) -> tuple[str, int]:
        # What a late row or a new file of views changes in the past is seen with the next version of the lake.
        if not 0 < len(at) <= _LONGEST:
            raise UsageError("This is no moment.", why="A time (ISO 8601), an LSN or tx:ID is one.", code="no_moment")
        return at, self._poller.number

    def _session(self, key: tuple[str, int], at: str) -> tuple[Session, Moment]:
        if key not in self._sessions:
            while len(self._sessions) >= _SESSIONS:
                self._sessions.popitem(last=False)[1][0].close()
            session = open_session(self._poller.config, at, sql=self._poller.text())
            session.connection.execute(f"SET max_execution_time = {_VIEW_SECONDS * 1000}")
            self._sessions[key] = session, Moment.of(session, at)
        self._sessions.move_to_end(key)
        return self._sessions[key]
