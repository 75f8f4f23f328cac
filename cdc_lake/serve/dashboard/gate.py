"""Who may come in: the right host, the right origin, the token; and the headers that every answer carries.

The token is in the address that the command prints. A page that is opened with it gets a cookie instead, which no
script can read and no other site can send, and an address without the token. What changes anything is a POST with a
second token, which only a page of this origin could read. Programs send `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cdc_lake.serve.dashboard.stream import Receive, Scope, Send

ACTION_HEADER = b"x-cdc-lake-action"
_ENTRY = (
    b'<!doctype html><html lang="en"><title>cdc-lake</title><link rel="icon" href="/static/icon.svg">'
    b'<p><a href="/">Open the dashboard</a></p></html>'
)
_SAFE = frozenset({"GET", "HEAD"})
_CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_HEADERS = [
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


@dataclass(frozen=True, slots=True)
class Keys:
    """What is derived from the token: the cookie's name and value, and what actions must send."""

    token: str
    port: int

    @property
    def cookie_name(self) -> str:
        """One per port: browsers give cookies of one host to all its ports."""
        return f"cdc_lake_{self.port}"

    @property
    def cookie(self) -> str:
        """What the cookie holds. It does not tell the token."""
        return self._derived("cookie")

    @property
    def action(self) -> str:
        """What an action has to send."""
        return self._derived("action")

    def _derived(self, what: str) -> str:
        return hmac.new(self.token.encode(), f"cdc-lake {what}".encode(), hashlib.sha256).hexdigest()


class Gate:
    """An ASGI application in front of another one."""

    def __init__(self, inner: Any, keys: Keys, hosts: Collection[str]) -> None:
        self._inner, self._keys = inner, keys
        self._hosts = frozenset(h.lower() for h in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("there are no web sockets")
        sealed = _sealed(send, scope["path"])
        headers = {n.lower(): v.decode("latin-1") for n, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await (_page if scope["path"] == "/" else _answer)(sealed, *refusal)
        elif self._comes_with_token(scope):
            await self._hand_cookie(scope, sealed)
        else:
            await self._inner(scope, receive, sealed)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, str]) -> tuple[int, str, str] | None:
        if headers.get(b"host", "").lower() not in self._hosts:
            return 421, "This host is not served.", "add it to `serve.hosts` in cdc-lake.yaml"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc.lower() not in self._hosts:
            return 403, "This origin is not allowed.", "open the dashboard at its own address"
        if headers.get(b"sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return 403, "Another site asked.", "open the dashboard at its own address"
        return self._without_key(scope, headers)

    def _without_key(self, scope: Scope, headers: Mapping[bytes, str]) -> tuple[int, str, str] | None:
        bearer = self._is_bearer(headers)
        if not (bearer or self._has_cookie(headers) or self._comes_with_token(scope)):
            return 401, "The token is missing or wrong.", "open the address that `cdc-lake serve` printed"
        if scope["method"] in _SAFE or bearer:
            return None
        given = headers.get(ACTION_HEADER, "")
        if b"origin" not in headers or not hmac.compare_digest(given.encode(), self._keys.action.encode()):
            return 403, "The action did not come from the dashboard.", "reload the page, and try again"
        return None

    def _is_bearer(self, headers: Mapping[bytes, str]) -> bool:
        kind, _, token = headers.get(b"authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._keys.token.encode())

    def _has_cookie(self, headers: Mapping[bytes, str]) -> bool:
        try:
            found = SimpleCookie(headers.get(b"cookie", "")).get(self._keys.cookie_name)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self._keys.cookie.encode())

    def _comes_with_token(self, scope: Scope) -> bool:
        if scope["path"] != "/" or scope["method"] not in _SAFE:
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return bool(given) and hmac.compare_digest(given.encode(), self._keys.token.encode())

    async def _hand_cookie(self, scope: Scope, send: Send) -> None:
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = (
            f"{self._keys.cookie_name}={self._keys.cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800{secure}"
        )
        # A page instead of a redirect: a browser that came from elsewhere would not send a Strict cookie along one.
        headers = [
            (b"set-cookie", cookie.encode()),
            (b"content-type", b"text/html; charset=utf-8"),
            (b"refresh", b"0; url=/"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _ENTRY})


def _sealed(send: Send, path: str) -> Send:
    kept = b"no-cache" if path.startswith("/static/") else b"no-store"

    async def seal(message: Any) -> None:
        if message["type"] == "http.response.start":
            given = {n.lower() for n, _ in message.get("headers", [])}
            more = _HEADERS if b"cache-control" in given else [*_HEADERS, (b"cache-control", kept)]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return seal


async def _page(send: Send, status: int, message: str, following: str) -> None:
    text = f"{message}\nNext: {following}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def _answer(send: Send, status: int, message: str, following: str) -> None:
    error = {"code": "refused", "message": message, "why": "", "next": following}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
