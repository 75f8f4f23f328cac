"""A service's HTTP: its answers, /dead-letters, /metrics, /healthz and /readyz; all of it only reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.message import Message
from urllib.parse import parse_qsl

from prometheus_client.exposition import choose_encoder

from cdc_lake.addresses import LOOPBACK
from cdc_lake.errors import ConfigError
from cdc_lake.listening import Answer, Listening, Respond, document
from cdc_lake.service.answers import ALONE, Answering, checks, letters
from cdc_lake.service.run import Runner

log = logging.getLogger(__name__)
_ALIVE_SECONDS = 120.0


class Server(Listening):
    """Answers on threads of its own, within its context."""

    def __init__(self, address: str, answering: Answering) -> None:
        """Bind `address` (host:port; port 0: one that is free). Raises ConfigError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"This is no address: {address}", why="It is host:port.", next="--listen 127.0.0.1:8100")
        another = "give another address (--listen), or stop what listens there"
        careful = {"X-Content-Type-Options": "nosniff"}
        asked = _guarded(answering) if host in LOOPBACK else _logged(answering)
        super().__init__(address, (host, int(port)), asked, who="The service", next=another, headers=careful)
        self.url = f"http://{host}:{self.port}"


def respond(answering: Answering, target: str, accept: str, *, alone: bool) -> Answer:
    """Status, kind and body for one GET."""
    path, _, query = target.partition("?")
    runner = answering.runner
    if path == "/metrics":
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(runner.numbers.registry)
    if path in _OPERATION:
        return _OPERATION[path](runner)
    route = runner.service.routes.get(path)
    if route is None:
        return document(404, {"error": f"There are {', '.join([*runner.service.routes, *_OPERATION, '/metrics'])}."})
    try:
        found = answering.ask(route, dict(parse_qsl(query)), alone=alone)
    except (KeyError, ValueError) as error:
        return document(400, {"error": f"The question is not whole: {error}"})
    return document(503 if found["stale"] and not found["as_of"] else 200, found)


def _alive(runner: Runner) -> Answer:
    quiet = time.monotonic() - runner.stepped_at
    return document(200 if quiet < _ALIVE_SECONDS else 503, {"alive": quiet < _ALIVE_SECONDS, "quiet_seconds": quiet})


def _ready(runner: Runner) -> Answer:
    found = checks(runner)
    ready = all(c["ok"] for c in found)
    return document(200 if ready else 503, {"ready": ready, "service": runner.service.group, "checks": found})


def _letters(runner: Runner) -> Answer:
    return document(200, {"rows": letters(runner)})


_OPERATION: dict[str, Callable[[Runner], Answer]] = {
    "/healthz": _alive,
    "/readyz": _ready,
    "/dead-letters": _letters,
}


def _guarded(answering: Answering) -> Respond:
    """Answers questions to this machine by one of its own names: no page elsewhere whose name leads here."""
    ask = _logged(answering)

    def asked(target: str, headers: Message) -> Answer:
        named = headers.get("Host")
        host = (named or "").rpartition(":")[0].strip("[]") or named
        return ask(target, headers) if host in LOOPBACK else document(403, {"error": "This host is not served."})

    return asked


def _logged(answering: Answering) -> Respond:
    """Answers questions; of one that fails, the log has why."""

    def asked(target: str, headers: Message) -> Answer:
        try:
            return respond(answering, target, headers.get("Accept", ""), alone=headers.get(ALONE) is not None)
        except Exception:
            log.exception("a question failed: %s", target.partition("?")[0])
            return document(500, {"error": "The question failed; the log of the service says why."})

    return asked
