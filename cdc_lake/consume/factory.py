"""Which client reads Kafka."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from cdc_lake.budget import AMPLE, Budget
from cdc_lake.consume.broker import Broker
from cdc_lake.consume.options import check_files
from cdc_lake.errors import ConfigError


def open_broker(
    client: str,
    bootstrap: str,
    *,
    group: str,
    options: Mapping[str, Any] | None = None,
    wait: float = 10.0,
    budget: Budget = AMPLE,
) -> Broker:
    """Connect to Kafka with the configured client (`auto`, `kafka-python` or `confluent`).

    Raises UnavailableError when no broker answers within about `wait` seconds or it refuses the credentials,
    ConfigError for a client that is not installed or an option that it does not have.
    """
    given = options or {}
    check_files(given)
    if client == "auto":
        client = "confluent" if importlib.util.find_spec("confluent_kafka") else "kafka-python"
    if client == "confluent":
        return _confluent(bootstrap, group, given, wait, budget)
    from cdc_lake.consume.kafka_python import KafkaPythonBroker

    return KafkaPythonBroker(bootstrap, group, given, wait, budget)


def _confluent(bootstrap: str, group: str, options: Mapping[str, Any], wait: float, budget: Budget) -> Broker:
    try:
        from cdc_lake.consume.confluent import ConfluentBroker
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise ConfigError(
            "kafka.client is `confluent`, and confluent-kafka is not installed.",
            why="It comes with the extra `fast`.",
            next="pip install 'cdc-lake[fast]'   (or set kafka.client to auto)",
        ) from None
    return ConfluentBroker(bootstrap, group, options, wait, budget)
