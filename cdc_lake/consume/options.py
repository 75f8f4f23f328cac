"""Settings of the Kafka clients: ours, the user's, and one vocabulary for both.

Options may be written as kafka-python spells them (`security_protocol`) or as librdkafka does (`security.protocol`);
the usual ones are translated, so that a configuration keeps working when the faster client is installed.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cdc_lake.errors import ConfigError, suggest

log = logging.getLogger(__name__)

# What the landing guarantee stands on. Both spellings; not for the user to change.
RESERVED = {
    "auto_offset_reset",
    "bootstrap_servers",
    "check_crcs",
    "enable_auto_commit",
    "enable_auto_offset_store",
    "enable_partition_eof",
    "error_cb",
    "group_id",
    "group_protocol",
    "isolation_level",
    "kafka_client",
    "key_deserializer",
    "logger",
    "max_poll_records",
    "partition_assignment_strategy",
    "value_deserializer",
}

# kafka-python's name -> librdkafka's, where they are not the same word with dots.
_SAME = {
    "sasl_mechanism": "sasl.mechanisms",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_password": "ssl.key.password",
    "ssl_ciphers": "ssl.cipher.suites",
    "ssl_check_hostname": "ssl.endpoint.identification.algorithm",
    "fetch_max_wait_ms": "fetch.wait.max.ms",
    "fetch_max_bytes": "fetch.max.bytes",
    "max_partition_fetch_bytes": "max.partition.fetch.bytes",
    "receive_message_max_bytes": "receive.message.max.bytes",
    "receive_buffer_bytes": "socket.receive.buffer.bytes",
    "retry_backoff_ms": "retry.backoff.ms",
    "reconnect_backoff_max_ms": "reconnect.backoff.max.ms",
    "request_timeout_ms": "socket.timeout.ms",
}
LIBRDKAFKA_NAMES = frozenset(_SAME.values())
_ALIASES = {"sasl.mechanism": "sasl.mechanisms", "fetch.message.max.bytes": "max.partition.fetch.bytes"}


def for_kafka_python(options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's options as keyword arguments of `KafkaConsumer`. Raises ConfigError for one that is reserved."""
    back = {theirs: ours for ours, theirs in _SAME.items()}
    result = {}
    for name, value in options.items():
        dotted = _ALIASES.get(name, name)
        ours = back.get(dotted, name.replace(".", "_"))
        _refuse_reserved(name, ours)
        result[ours] = value != "none" if ours == "ssl_check_hostname" and isinstance(value, str) else value
    return result


def for_confluent(options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's options as librdkafka's configuration. Raises ConfigError for one that is reserved."""
    result = {}
    for name, value in options.items():
        theirs = _SAME.get(name, name.replace("_", "."))
        theirs = _ALIASES.get(theirs, theirs)
        _refuse_reserved(name, theirs.replace(".", "_"))
        is_switch = theirs == "ssl.endpoint.identification.algorithm" and isinstance(value, bool)
        result[theirs] = ("https" if value else "none") if is_switch else value
    return result


def unknown_option(name: str, known: Iterable[str], client: str) -> ConfigError:
    """The error for an option that the client does not have; never shows a value."""
    hint = suggest(name, known)
    return ConfigError(
        f"kafka.options: {client} has no option `{name}`.",
        why=hint or "It is neither one of the client's settings nor a translated one.",
        next="edit `options` below `kafka` in cdc-lake.yaml",
    )


def check_files(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for a certificate or key file that is not there; the clients do not say which one."""
    for name, value in options.items():
        dotted = _SAME.get(name, name.replace("_", "."))
        if dotted.startswith("ssl.") and dotted.endswith(".location") and not Path(str(value)).exists():
            raise ConfigError(
                f"kafka.options: `{name}` names a file that is not there: {value}",
                why="Paths are relative to the folder the command is started in.",
                next="edit `options` below `kafka` in cdc-lake.yaml",
            )


def warn_if_readable_by_others(bootstrap: str, security_protocol: str) -> None:
    """Log a warning when records would cross a network unencrypted."""
    if security_protocol.upper() in {"SSL", "SASL_SSL"}:
        return
    far = [host for host in hosts(bootstrap) if not _is_loopback(host)]
    if far:
        log.warning(
            "The connection to Kafka at %s is not encrypted: records can be read on the way. "
            "Set `security_protocol: SSL` or `SASL_SSL` under kafka.options.",
            ", ".join(far),
        )


def hosts(bootstrap: str) -> list[str]:
    """The host names of a bootstrap list."""
    return [split_address(address)[0] for address in bootstrap.split(",") if address.strip()]


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or `PROTOCOL://host:port` as host and port (9092 when there is none)."""
    host, colon, port = address.strip().rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return address.strip().rpartition("://")[2].strip("[]"), 9092
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _refuse_reserved(name: str, underscored: str) -> None:
    if underscored in RESERVED:
        raise ConfigError(
            f"kafka.options: `{name}` cannot be set.",
            why="Landing every record exactly once depends on the value that cdc-lake gives it.",
            next="remove it from `options` below `kafka` in cdc-lake.yaml",
        )
