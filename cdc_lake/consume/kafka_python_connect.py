"""Connecting kafka-python: within a time, with a reason when it fails, and reading the socket in large pieces.

What is used of kafka-python beyond its documented interface: the connection manager and the transport that it builds.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport

from cdc_lake.consume import failures
from cdc_lake.consume.options import unknown_option
from cdc_lake.errors import CdcLakeError

_RECEIVE_BYTES = 256 << 10


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        if type(transport) is KafkaTCPTransport:
            sock = transport._sock
            transport._sock_recv = lambda: _receive(sock)
        return transport


def _receive(sock: socket.socket) -> tuple[bytes, errors.KafkaError | None]:
    """What is there, and why there will be no more.

    kafka-python reads 4 KB at a time, each a turn of the interpreter's lock, and drops what it read when the
    connection was closed right after, as brokers do with "wrong password".
    """
    try:
        data = sock.recv(_RECEIVE_BYTES)
    except (BlockingIOError, InterruptedError):
        return b"", None
    except OSError as error:
        return b"", errors.KafkaConnectionError(error)
    return data, None if data else errors.KafkaConnectionError("socket disconnected")


def connect(bootstrap: str, settings: dict[str, Any], wait: float) -> KafkaConsumer:
    """A connected consumer within about `wait` seconds. Raises UnavailableError, or ConfigError for a bad value."""
    clients: list[KafkaNetClient] = []
    first_failure: list[errors.KafkaError] = []

    def client(**configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        clients.append(KafkaNetClient(net=net, manager=_Manager(net, **configs)))
        clients[-1].cluster.need_all_topic_metadata = True
        first_failure.extend(_try(clients[-1], wait))
        # Here and not in KafkaConsumer, which may wait for ever once the first connection told it the broker's version.
        clients[-1]._manager.bootstrap(wait * 1000)
        return clients[-1]

    try:
        return KafkaConsumer(**settings, kafka_client=client)
    except BaseException as error:
        if clients:
            clients[-1].close()  # a consumer that could not be built leaves its network thread running
        if isinstance(error, errors.KafkaConfigurationError | TypeError | ValueError):
            raise failures.bad_option(str(error)) from None
        if isinstance(error, errors.KafkaError):
            raise _explained(bootstrap, settings, [*first_failure, error]) from None
        raise


def _try(client: KafkaNetClient, wait: float) -> list[errors.KafkaError]:
    """Why a first connection fails, if it does: kafka-python's own retries swallow the reason.

    Raises what retrying will not mend; the connection is used on when it comes about.
    """

    async def connect() -> None:
        first = client.cluster.bootstrap_brokers()[0].node_id
        # Without a refresh: it would begin a bootstrap of its own, which has no end.
        await client._manager.get_connection(first, timeout_ms=wait * 1000, refresh_metadata_on_err=False)

    client._net.start()
    try:
        client._manager.run(connect)
    except errors.KafkaError as error:
        if named("", error) is not None:
            raise
        return [error]
    return []


def _explained(bootstrap: str, settings: Mapping[str, Any], found: list[errors.KafkaError]) -> CdcLakeError:
    for error in found:
        if (known := named(bootstrap, error)) is not None:
            return known
    first = str(found[0])
    if "Handshake failed" in first:
        return failures.wrong_security(bootstrap, first)
    if "SASL" in str(settings.get("security_protocol")) and "disconnected" in first:
        return failures.wrong_credentials(bootstrap, "The connection was closed during the login.")
    return failures.no_answer(bootstrap)


def check_known(given: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option that kafka-python does not have, or a text where it has a number."""
    known = KafkaConsumer.DEFAULT_CONFIG
    for name, value in given.items():
        if name not in known:
            raise unknown_option(name, known, "kafka-python")
        if type(known[name]) in {int, float} and not isinstance(value, int | float):
            raise failures.bad_option(f"`{name}` is a number.")


def named(bootstrap: str, error: errors.KafkaError) -> CdcLakeError | None:
    """The error in the product's words when waiting does not mend it."""
    detail = str(error) or type(error).__name__
    if isinstance(error, errors.CorruptRecordError):
        return failures.damaged(error.tp, error.offset, error.detail) if hasattr(error, "tp") else None
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return failures.wrong_credentials(bootstrap, detail)
    if isinstance(error, errors.UnsupportedSaslMechanismError | errors.IllegalSaslStateError):
        return failures.wrong_security(bootstrap, detail)
    if isinstance(error, errors.AuthorizationError):
        return failures.no_rights(bootstrap, detail)
    return None
