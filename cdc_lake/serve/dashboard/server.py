"""The dashboard as a running server: its parts wired, its socket bound, until it is told to end."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn

from cdc_lake.addresses import LOOPBACK
from cdc_lake.config import Config
from cdc_lake.errors import ConfigError, first_line
from cdc_lake.query.guard import Limits
from cdc_lake.react.alerts import Alerts
from cdc_lake.serve.dashboard import outside
from cdc_lake.serve.dashboard.actions import Actions
from cdc_lake.serve.dashboard.app import Dashboard, Parts
from cdc_lake.serve.dashboard.board import Board
from cdc_lake.serve.dashboard.gate import Gate, Keys
from cdc_lake.serve.dashboard.past import Past
from cdc_lake.serve.dashboard.poller import Poller
from cdc_lake.serve.dashboard.sql_box import SqlBox
from cdc_lake.serve.http import parse_address

_ANY = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Wish:
    """Where and how to serve: `address` is host:port, `hosts` are further names under which pages may be asked for."""

    address: str
    token: str
    folder: Path
    hosts: Collection[str] = ()
    seconds: float = 0.25
    limits: Limits = field(default_factory=Limits)
    user: str = "dashboard"
    cert: str | None = None
    key: str | None = None


class DashboardServer(uvicorn.Server):
    """Lets the pages go before it waits for them: their events would never end."""

    def __init__(self, config: uvicorn.Config, board: Board) -> None:
        super().__init__(config)
        self._board = board

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._board.close()
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that is bound and not running yet."""

    server: DashboardServer
    listener: socket.socket
    url: str
    parts: Parts

    @property
    def entry(self) -> str:
        """The address to open, with the token."""
        return f"{self.url}/?token={quote(self.parts.token)}"

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        self.server.run(sockets=[self.listener])


def prepare(config: Config, wish: Wish, look: outside.Look = outside.nothing) -> Ready:
    """Bind the address and wire everything. Raises ConfigError when the address cannot be had."""
    host, port = parse_address(wish.address)
    listener = _bind(host, port)
    port = int(listener.getsockname()[1])
    keys = Keys(wish.token, port)
    parts = wire(config, wish, keys, look)
    app = Gate(Dashboard(parts), keys, hosts_of(host, port, wish.hosts))
    settings: dict[str, Any] = {"access_log": False, "log_level": "warning", "server_header": False, "lifespan": "on"}
    served = uvicorn.Config(
        app,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
        proxy_headers=False,
        ssl_certfile=wish.cert,
        ssl_keyfile=wish.key,
        **settings,
    )
    shown = f"[{host}]" if ":" in host else host
    return Ready(DashboardServer(served, parts.board), listener, f"http{'s' * bool(wish.cert)}://{shown}:{port}", parts)


def wire(config: Config, wish: Wish, keys: Keys, look: outside.Look = outside.nothing) -> Parts:
    """The parts, not started."""
    board = Board()
    poller = Poller(config, board, wish.folder, look=look, seconds=wish.seconds)
    box = SqlBox(config, wish.limits, lambda: poller.number)
    actions, alerts = Actions(config), Alerts(config)
    return Parts(board, poller, Past(poller), box, actions, alerts, keys.action, wish.user, wish.token)


def hosts_of(host: str, port: int, more: Collection[str]) -> list[str]:
    """The values of Host that are served: the address itself, this machine's own names for it, and `more`."""
    names = [*LOOPBACK, "[::1]"] if host in (*LOOPBACK, *_ANY) else [f"[{host}]" if ":" in host else host]
    return [*(f"{n}:{port}" for n in names), *more, *(f"{m}:{port}" for m in more if ":" not in m)]


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        raise ConfigError(
            f"The dashboard cannot answer on {host}:{port}.",
            why=error.strerror or first_line(error),
            next="name another one: cdc-lake serve --address 127.0.0.1:8766",
            code="address_taken",
        ) from None
    return listener
