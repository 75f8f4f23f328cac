"""The sink's HTTP: /metrics, /healthz and /readyz, and nothing that changes anything."""

from __future__ import annotations

from email.message import Message

from prometheus_client.exposition import choose_encoder

from cdc_lake.errors import ConfigError
from cdc_lake.listening import Answer, Listening, document
from cdc_lake.serve.health import liveness
from cdc_lake.serve.metrics import Numbers


class Server(Listening):
    """Answers on a thread of its own, within its context."""

    def __init__(self, address: str, numbers: Numbers) -> None:
        """Bind `address` (host:port). Raises ConfigError when it is no address, or cannot be had."""

        def respond(target: str, headers: Message) -> Answer:
            return answer(numbers, target.partition("?")[0], headers.get("Accept", ""))

        host, port = parse_address(address)
        another = "give another address: `sink: {metrics: 127.0.0.1:9465}` or --metrics; or stop what listens there"
        super().__init__(address, (host, port), respond, who="The sink", next=another, headers={})
        self.address = f"{host}:{self.port}"


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `:port` or `[::1]:port`. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(
            f"`sink.metrics` is not an address: {address}",
            why="It is host:port, the host may be left out: 127.0.0.1:9464",
            next="cdc-lake sink run --metrics 127.0.0.1:9464",
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def answer(numbers: Numbers, path: str, accept: str) -> Answer:
    """Status, kind and body for one GET."""
    if path == "/metrics":
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(numbers.registry)
    if path == "/healthz":
        check = liveness(numbers.sinks)
        return document(200 if check.ok else 503, {"alive": check.ok, "found": check.found})
    if path == "/readyz":
        checks = numbers.checks()
        ready = all(c.ok for c in checks)
        return document(200 if ready else 503, {"ready": ready, "checks": [c.as_dict() for c in checks]})
    return document(404, {"error": "There are /metrics, /healthz and /readyz."})
