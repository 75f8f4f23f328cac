"""The dashboard's HTTP: the page, each view as JSON, events, actions, SQL. `Gate` stands in front of all of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from cdc_lake import __version__
from cdc_lake.errors import CdcLakeError, LakeError, UnavailableError, UsageError, suggest
from cdc_lake.query.session import Session
from cdc_lake.react.alerts import ACKNOWLEDGED, RESOLVED, Alerts
from cdc_lake.serve.dashboard.actions import Actions, Actor, actor_of
from cdc_lake.serve.dashboard.board import Board
from cdc_lake.serve.dashboard.evaluate import Moment, default_of, evaluate, is_gone, options_of
from cdc_lake.serve.dashboard.past import Past
from cdc_lake.serve.dashboard.poller import PIPELINE, STATE, VERSION, Poller
from cdc_lake.serve.dashboard.sql_box import SqlBox
from cdc_lake.serve.dashboard.stream import Receive, Scope, Send, serve_events
from cdc_lake.serve.dashboard.viewfile import View

STATIC = Path(__file__).parent / "static"
_At = Annotated[str | None, Query(max_length=64)]
_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the dashboard is made of."""

    board: Board
    poller: Poller
    past: Past
    box: SqlBox
    actions: Actions
    alerts: Alerts
    action_key: str
    user: str
    token: str = field(repr=False)


class Body(BaseModel):
    """What an action sends: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Sql(Body):
    """One SELECT, of now or of a past moment."""

    sql: str = Field(min_length=1, max_length=100_000)
    at: str | None = Field(default=None, max_length=64)
    by: str | None = Field(default=None, max_length=200)


class Decision(Body):
    """What is said of an alert."""

    note: str | None = Field(default=None, max_length=1_000)
    by: str | None = Field(default=None, max_length=200)


class NewSilence(Body):
    """Which rule's alerts are not to be sent, and for how long."""

    rule: str = Field(min_length=1, max_length=200)
    span: str = Field(default="1h", max_length=40)
    key: str | None = Field(default=None, max_length=1_000)
    note: str | None = Field(default=None, max_length=1_000)
    by: str | None = Field(default=None, max_length=200)


class Dashboard:
    """The ASGI application: the events beside everything else, for they never end."""

    def __init__(self, parts: Parts) -> None:
        self._board, self._pages = parts.board, build(parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] == "/api/events" and scope["method"] == "GET":
            await serve_events(self._board, scope, receive, send)
        else:
            await self._pages(scope, receive, send)


def build(parts: Parts) -> FastAPI:
    """All but the events."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        parts.board.attach(asyncio.get_running_loop())
        parts.poller.start()
        yield
        await asyncio.to_thread(_end, parts)

    app = FastAPI(title="cdc-lake", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(CdcLakeError, _told)
    app.add_exception_handler(RequestValidationError, _misfit)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-store"})

    _add_reads(app, parts)
    _add_views(app, parts)
    _add_alerts(app, parts)
    _add_actions(app, parts)
    return app


def _end(parts: Parts) -> None:
    parts.poller.stop()
    parts.past.close()
    parts.box.close()


def _add_reads(app: FastAPI, parts: Parts) -> None:
    @app.get("/api/session")
    def session() -> dict[str, Any]:
        limits = {
            "seconds": parts.box.limits.seconds,
            "rows": parts.box.limits.rows,
            "memory_mb": parts.box.limits.memory_mb,
        }
        return {
            "version": VERSION,
            "action": parts.action_key,
            "user": parts.user,
            "release": __version__,
            "sql": limits,
        }

    @app.get("/api/state")
    def state(at: _At = None) -> Response:
        if at is not None:
            return _text(parts.past.page(at))
        views = [t for v in parts.poller.views if (t := parts.board.get(v.name)) is not None]
        head = parts.board.get(STATE) or _text_of(_unread())
        return _text(f'{{"version": {VERSION}, "state": {head}, "views": [{", ".join(views)}]}}')

    @app.get("/api/pipeline")
    def pipeline() -> Response:
        return _text(parts.board.get(PIPELINE) or _text_of(_unread()))


def _add_views(app: FastAPI, parts: Parts) -> None:
    @app.get("/api/views")
    def views() -> dict[str, Any]:
        return {"version": VERSION, "views": [v.as_dict() for v in parts.poller.views]}

    @app.get("/api/views/{name}")
    def view(name: str, request: Request, at: _At = None) -> Response:
        one = _find(parts, name)
        given = {k: v for k, v in request.query_params.items() if k != "at"}

        def read(session: Session, moment: Moment) -> str:
            values = given or default_of(session, one, moment)
            shown, head = evaluate(session, one, moment, values), _text_of({"version": VERSION, **moment.as_dict()})
            if is_gone(shown):
                parts.poller.refresh()
            return f"{shown[:-1]}, {head[1:]}"

        return _text(_use(parts, at, read))

    @app.get("/api/views/{name}/parameters/{parameter}")
    def options(name: str, parameter: str, at: _At = None) -> Response:
        one = _find(parts, name)
        return _text(_use(parts, at, lambda session, moment: options_of(session, one, parameter, moment)))


def _add_alerts(app: FastAPI, parts: Parts) -> None:
    @app.get("/api/alerts")
    def alerts(state: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Response:
        found = parts.alerts.all("$1 IS NULL OR state = $1", [state])[:limit]
        shown = [{k: v for k, v in a.items() if k not in ("evidence", "resolution")} for a in found]
        return _text(_text_of({"version": VERSION, "alerts": shown}))

    @app.get("/api/alerts/{id}")
    def alert(id: str) -> Response:
        return _text(_text_of({"version": VERSION, "alert": parts.alerts.find(id)}))

    @app.get("/api/silences")
    def silences() -> dict[str, Any]:
        return {"version": VERSION, "silences": parts.actions.silences()}


def _add_actions(app: FastAPI, parts: Parts) -> None:
    def actor(request: Request, by: str | None) -> Actor:
        return actor_of(by, request.client.host if request.client is not None else "", parts.user)

    @app.post("/api/alerts/{id}/acknowledge")
    def acknowledge(id: str, said: Decision, request: Request) -> dict[str, Any]:
        return {"version": VERSION, **parts.actions.decide(id, ACKNOWLEDGED, said.note, actor(request, said.by))}

    @app.post("/api/alerts/{id}/resolve")
    def resolve(id: str, said: Decision, request: Request) -> dict[str, Any]:
        return {"version": VERSION, **parts.actions.decide(id, RESOLVED, said.note, actor(request, said.by))}

    @app.post("/api/silences")
    def silence(said: NewSilence, request: Request) -> dict[str, Any]:
        by = actor(request, said.by)
        return {"version": VERSION, **parts.actions.silence(said.rule, said.key, said.span, said.note, by)}

    @app.post("/api/silences/{id}/end")
    def end_silence(id: str, said: Decision, request: Request) -> dict[str, Any]:
        return {"version": VERSION, **parts.actions.end_silence(id, actor(request, said.by))}

    @app.post("/api/sql")
    def sql(asked: Sql, request: Request) -> Response:
        by, outcome = actor(request, asked.by), "answered"
        try:
            return _text(parts.box.ask(asked.sql, asked.at))
        except CdcLakeError as error:
            outcome = f"refused: {error.message}"
            raise
        finally:
            parts.actions.asked(asked.sql, outcome, by)


def _use(parts: Parts, at: str | None, do: Callable[[Session, Moment], str]) -> str:
    return parts.poller.use(do) if at is None else parts.past.use(at, do)


def _find(parts: Parts, name: str) -> View:
    known = {v.name: v for v in parts.poller.views}
    if name not in known:
        why = suggest(name, known) or f"There are: {', '.join(known) or 'none'}"
        raise UsageError(f"There is no view {name}.", why=why, code="no_view")
    return known[name]


def _unread() -> dict[str, Any]:
    return {"version": VERSION, "number": 0, "error": None, "at": None, "data_at": None, "read_at": None, "views": []}


def _text(text: str) -> Response:
    return Response(text, media_type=_JSON)


def _text_of(document: Any) -> str:
    return json.dumps(
        document, ensure_ascii=False, default=lambda v: v.isoformat() if hasattr(v, "isoformat") else str(v)
    )


def _told(_request: Request, error: Exception) -> Response:
    if not isinstance(error, CdcLakeError):
        raise error
    missing = error.code in ("no_view", "no_alert", "no_silence", "no_parameter")
    status = (
        404 if missing else 503 if isinstance(error, UnavailableError) else 500 if isinstance(error, LakeError) else 422
    )
    return JSONResponse(error.as_dict(), status)


def _misfit(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"])
    words = UsageError(f"`{where}` is not valid.", why=str(first["msg"]), next="see docs/how-to/dashboard.md")
    return JSONResponse(words.as_dict(), 422)
