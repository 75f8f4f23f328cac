"""One reader of the lake for all pages: it evaluates each view once for each version of the lake, and publishes.

Delivery: a state on the board is that of one session, so all views of one reading are at one cut. What cannot be read
leaves the last states where they are, and says so. Views with parameters are evaluated when a page asks for them, in
the session of the newest reading.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, UnavailableError, first_line
from cdc_lake.events import TableId
from cdc_lake.query.news import News
from cdc_lake.query.session import Cache, Session, open_session
from cdc_lake.serve.dashboard import outside
from cdc_lake.serve.dashboard.board import Board
from cdc_lake.serve.dashboard.evaluate import Moment, evaluate, is_gone
from cdc_lake.serve.dashboard.pipeline_state import Rates, counts_of, pipeline_document
from cdc_lake.serve.dashboard.viewfile import View, load_views, view_files
from cdc_lake.serve.lake_state import Looker

T = TypeVar("T")
VERSION = 1
STATE, PIPELINE = "state", "pipeline"
# The pipeline is looked at also while nothing lands: its lag grows then.
_TICK_SECONDS = 5.0
_VIEW_SECONDS = 60


class Poller:
    """Reads on a thread of its own, from `start` to `stop`."""

    def __init__(
        self, config: Config, board: Board, folder: Path, *, look: outside.Look = outside.nothing, seconds: float = 0.25
    ) -> None:
        self.config, self.board, self.folder = config, board, folder
        self.number = 0
        self.views: list[View] = []
        self._seconds = seconds
        self._looker = Looker(lambda: self._take(look()), _TICK_SECONDS)
        self._news, self._rates = News(config, beside=True), Rates()
        self._stop, self._mutex = threading.Event(), threading.Lock()
        self._session: Session | None = None
        self._cache = Cache()
        self._moment: Moment | None = None
        self._known: list[TableId] | None = None
        self._files: object = None
        self._owed: set[str] = set()
        self._done: dict[str, float] = {}
        self._outside, self._ticked = outside.Outside(), 0.0
        self._began: str | None = None
        self._stale = self._failed = False
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._looker.start()
        self._thread.start()

    def stop(self) -> None:
        """End, when the reading under way is done."""
        self._stop.set()
        self._looker.stop()
        if self._thread.is_alive():
            self._thread.join()
        with self._mutex:
            if self._session is not None:
                self._session.close()
                self._session = None

    def use(self, do: Callable[[Session, Moment], T]) -> T:
        """What `do` makes of the newest session, which is its own until it returns. Raises UnavailableError."""
        with self._mutex:
            if self._session is None or self._moment is None:
                raise UnavailableError(
                    "The lake has not been read yet.",
                    why="The first reading is under way.",
                    next="try again in a moment",
                )
            return do(self._session, self._moment)

    def refresh(self) -> None:
        """Read the lake again at the next turn, though no commit tells of anything new."""
        self._stale = True

    def text(self) -> str | None:
        """The SQL of all views, by which a session knows what it needs; None when it needs everything."""
        parts = [p for v in self.views for p in (v.sql, *(s for _, s in v.parameters)) if p]
        return ";\n".join(parts) if self._known is not None and parts else None

    def step(self) -> None:
        """One turn: read the lake when there is something new, and look outside from time to time."""
        try:
            files = [(f.name, f.stat().st_mtime_ns) for f in view_files(self.folder)]
            due = self._news.arrived() or files != self._files or self._stale or self._failed
            if due:
                self._files, self._stale = files, False
                self._read()
            if due or time.monotonic() - self._ticked > _TICK_SECONDS:
                self._tick()
            self._pay()
            self._failed = False
        except (CdcLakeError, OSError) as error:
            self._failed = True
            known = error if isinstance(error, CdcLakeError) else CdcLakeError(first_line(error))
            self._publish_state(known.as_dict()["error"])

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self.step()
            except Exception as error:  # a poller that dies leaves pages that look alive
                self._failed = True
                self._publish_state(CdcLakeError(first_line(error), code="internal").as_dict()["error"])
            # A lake that takes long to read is left alone for a while; what lands meanwhile waits so much longer.
            self._stop.wait(max(self._seconds, (time.monotonic() - begun) / 4))

    def _read(self) -> None:
        self.views = [v for v in load_views(self.folder) if self._known is None or v.fits(self._known)]
        session = open_session(self.config, sql=self.text(), cache=self._cache)
        try:
            session.connection.execute(f"SET max_execution_time = {_VIEW_SECONDS * 1000}")
            moment, known = Moment.of(session), session.tables
            if known != self._known:
                self._known = known
                self.views = [v for v in load_views(self.folder) if v.fits(known)]
            self._began = self._began or _beginning(session)
        except BaseException:
            session.close()
            raise
        with self._mutex:
            old, self._session, self._moment = self._session, session, moment
            self.number += 1
        if old is not None:
            old.close()
        self._owed = {v.name for v in self.views if not v.parameters}
        self.board.keep([STATE, PIPELINE, *self._owed])
        self._publish_state(None)

    def _pay(self) -> None:
        """Evaluate what is due of the views, and publish what has changed."""
        now = time.monotonic()
        for view in [v for v in self.views if v.name in self._owed]:
            if now - self._done.get(view.name, -view.every) < view.every:
                continue
            text = self.use(lambda session, moment, view=view: evaluate(session, view, moment))  # type: ignore[misc]
            self._stale = self._stale or is_gone(text)
            self._owed.discard(view.name)
            self._done[view.name] = now
            self.board.publish(view.name, text)

    def _tick(self) -> None:
        self._ticked = time.monotonic()

        def document(session: Session, _moment: Moment) -> dict[str, Any]:
            return pipeline_document(self.config, session, self._outside, self._rates.note(counts_of(session)))

        self.board.publish(PIPELINE, _dumps({"version": VERSION, **self.use(document)}), kind=PIPELINE)

    def _take(self, found: outside.Outside) -> None:
        self._outside = found

    def _publish_state(self, error: dict[str, str] | None) -> None:
        moment = self._moment.as_dict() if self._moment is not None else {"at": None, "data_at": None, "read_at": None}
        state = {
            "version": VERSION,
            "number": self.number,
            **moment,
            "began_at": self._began,
            "tables": [str(t) for t in self._known or ()],
            "views": [v.as_dict() for v in self.views],
            "error": error,
        }
        self.board.publish(STATE, _dumps(state), kind=STATE)


def _beginning(session: Session) -> str | None:
    """When the first transaction of the lake was committed."""
    query = "SELECT strftime(min(source_ts), '%Y-%m-%dT%H:%M:%SZ') FROM lake.transactions"
    ((first,),) = session.connection.execute(query).fetchall()
    return str(first) if first is not None else None


def _dumps(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)
