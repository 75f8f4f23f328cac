"""Server-sent events: what is on the board, and from then on what is new, until the page goes.

An ASGI application of its own: what a framework wraps around a response that never ends costs more than the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from cdc_lake.serve.dashboard.board import Board

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# A page that hears nothing for longer than some of these takes the connection for dead.
PING_SECONDS = 10.0
MOST_PAGES = 5_000
_PING = b"event: ping\ndata: {}\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def serve_events(board: Board, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one page until it goes, or the board closes."""
    if board.pages >= MOST_PAGES:
        await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"10")]})
        await send({"type": "http.response.body", "body": b""})
        return
    gone = asyncio.ensure_future(_gone(receive))
    board.pages += 1
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
        await _follow(board, board.number_of(last_event_id(scope)), gone, send)
        await send({"type": "http.response.body", "body": b""})
    finally:
        board.pages -= 1
        gone.cancel()


async def _follow(board: Board, number: int, gone: asyncio.Future[None], send: Send) -> None:
    while not gone.done() and not board.closed:
        entry = board.after(number)
        if entry is not None:
            # Waits while the page does not read: what is published meanwhile replaces what it has not got yet.
            await send({"type": "http.response.body", "body": entry.event, "more_body": True})
            number = entry.number
        elif not await board.changed(number, PING_SECONDS):
            await send({"type": "http.response.body", "body": _PING, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def last_event_id(scope: Mapping[str, Any]) -> str:
    """What a page that comes back says it has."""
    return next((v.decode("latin-1") for n, v in scope["headers"] if n == b"last-event-id"), "")
