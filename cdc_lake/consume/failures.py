"""What a person reads when Kafka does not answer or refuses."""

from __future__ import annotations

import socket

from cdc_lake.consume.options import split_address
from cdc_lake.errors import ConfigError, PartitionError, UnavailableError
from cdc_lake.events import TopicPartition

NO_ANSWER = "kafka_unavailable"
_PROBE_SECONDS = 2.0


def no_answer(bootstrap: str, detail: str = "") -> UnavailableError:
    """Nobody answers at `bootstrap`; `detail` is the client's own word, where it has one."""
    return UnavailableError(
        f"Kafka at {bootstrap} does not answer.",
        why=detail or _probe(bootstrap),
        next="check `kafka.bootstrap` in cdc-lake.yaml, or start the embedded stack: cdc-lake up",
        code=NO_ANSWER,
    )


def wrong_credentials(bootstrap: str, detail: str) -> UnavailableError:
    """The broker knows SASL and refuses this user."""
    return UnavailableError(
        f"Kafka at {bootstrap} refuses the credentials.",
        why=detail,
        next="check the mechanism, user and password (`sasl_…`) under kafka.options in cdc-lake.yaml",
        code="kafka_credentials",
    )


def wrong_security(bootstrap: str, detail: str) -> UnavailableError:
    """The two sides do not agree on TLS or on SASL at all."""
    return UnavailableError(
        f"Kafka at {bootstrap} and this client do not agree on how to secure the connection.",
        why=detail,
        next="check `security_protocol`, the certificates (`ssl_…`) and `sasl_mechanism` under kafka.options, "
        "and that the port belongs to that listener",
        code="kafka_security",
    )


def no_rights(bootstrap: str, detail: str) -> UnavailableError:
    """The user is known and may not do this."""
    return UnavailableError(
        f"Kafka at {bootstrap} does not allow this.",
        why=detail,
        next="grant READ and DESCRIBE on the topics and READ on the consumer group to the user of kafka.options",
        code="kafka_rights",
    )


def bad_option(detail: str) -> ConfigError:
    """The client refuses a setting."""
    return ConfigError(
        "kafka.options: the client refuses a value.",
        why=detail,
        next="edit `options` below `kafka` in cdc-lake.yaml",
    )


def damaged(tp: TopicPartition, offset: int, detail: str) -> PartitionError:
    """What the broker holds at an offset cannot be read."""
    return PartitionError(
        f"{tp} cannot be read on from offset {offset}.",
        why=detail,
        next=f"check the broker's disk; see what is there with: kafka-dump-log (partition {tp.topic}-{tp.partition})",
        code="kafka_damaged",
    )


def _probe(bootstrap: str) -> str:
    """Why a connection does not come about, asked of the first address with a plain TCP connection."""
    host, port = split_address(bootstrap.split(",", maxsplit=1)[0])
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
    except socket.gaierror:
        return f"The host name {host} is not known."
    except TimeoutError:
        return f"No connection to {host}:{port} within {_PROBE_SECONDS:g} s."
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}."
    return (
        f"{host}:{port} takes connections and does not speak Kafka in time: "
        "it is still starting, is another service, or wants TLS or SASL."
    )
