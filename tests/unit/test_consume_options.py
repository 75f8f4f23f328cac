"""One vocabulary of options for both clients, no way around the guarantees, no secret in an error."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.consume import open_broker
from cdc_lake.consume.options import (
    check_files,
    for_confluent,
    for_kafka_python,
    hosts,
    split_address,
    warn_if_readable_by_others,
)
from cdc_lake.errors import ConfigError, UnavailableError

KAFKA_PYTHON = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "sink",
    "sasl_plain_password": "pw",
    "ssl_cafile": "ca.pem",
    "ssl_check_hostname": False,
    "max_partition_fetch_bytes": 5,
}
LIBRDKAFKA = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanisms": "PLAIN",
    "sasl.username": "sink",
    "sasl.password": "pw",
    "ssl.ca.location": "ca.pem",
    "ssl.endpoint.identification.algorithm": "none",
    "max.partition.fetch.bytes": 5,
}
CLOSED = "127.0.0.1:1"


def test_either_spelling_serves_either_client() -> None:
    assert for_kafka_python(KAFKA_PYTHON) == for_kafka_python(LIBRDKAFKA) == KAFKA_PYTHON
    assert for_confluent(KAFKA_PYTHON) == for_confluent(LIBRDKAFKA) == LIBRDKAFKA
    assert for_confluent({"sasl.mechanism": "PLAIN"}) == {"sasl.mechanisms": "PLAIN"}
    assert for_kafka_python({"ssl.endpoint.identification.algorithm": "https"}) == {"ssl_check_hostname": True}


@pytest.mark.parametrize(
    "name", ["enable.auto.commit", "isolation_level", "auto.offset.reset", "group.id", "check.crcs"]
)
@pytest.mark.parametrize("translate", [for_confluent, for_kafka_python])
def test_what_the_guarantees_stand_on_cannot_be_set(translate: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` cannot be set"):
        translate({name: "x"})


@pytest.mark.parametrize(
    ("address", "expected"),
    [("kafka:9093", ("kafka", 9093)), ("kafka", ("kafka", 9092)), ("[::1]:1", ("::1", 1)), ("SSL://b:9", ("b", 9))],
)
def test_an_address_is_a_host_and_a_port(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected
    assert hosts(f"{address}, {address}") == [expected[0]] * 2


def test_records_that_cross_a_network_unencrypted_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_readable_by_others("localhost:9092,127.0.0.2:9092,[::1]:9092", "PLAINTEXT")
        warn_if_readable_by_others("kafka.example:9092", "SASL_SSL")
        assert not caplog.records
        warn_if_readable_by_others("localhost:1,kafka.example:9092", "SASL_PLAINTEXT")
    assert "kafka.example is not encrypted" in caplog.text


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    there = tmp_path / "ca.pem"
    there.touch()
    check_files({"ssl_cafile": str(there), "ssl.key.location": str(there), "sasl.password": "ssl.location"})
    with pytest.raises(ConfigError, match="`ssl_certfile` names a file that is not there"):
        check_files({"ssl_cafile": str(there), "ssl_certfile": str(tmp_path / "none.pem")})


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
@pytest.mark.parametrize("option", [{"sesion_timeout_ms": "S3CRET"}, {"session_timeout_ms": "S3CRET"}])
def test_an_option_that_is_not_one_is_a_config_error_without_its_value(client: str, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        open_broker(client, CLOSED, group="g", options=option)
    assert "S3CRET" not in str(caught.value.as_dict())
    assert "session" in str(caught.value.as_dict())


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_broker_that_is_not_there_is_an_error_with_a_reason_and_never_a_hang(client: str) -> None:
    secret = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u"}
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        open_broker(client, CLOSED, group="g", options={**secret, "sasl_plain_password": "S3CRET"}, wait=1.0)
    assert "Connection refused" in caught.value.why
    assert "cdc-lake up" in caught.value.next
    assert "S3CRET" not in str(caught.value.as_dict())


def test_confluent_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cdc_lake.consume.confluent", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)  # how Python itself says that a module is not there
    with pytest.raises(ConfigError, match="is not installed") as caught:
        open_broker("confluent", CLOSED, group="g")
    assert "pip install 'cdc-lake[fast]'" in caught.value.next
    with pytest.raises(UnavailableError):
        open_broker("auto", CLOSED, group="g", wait=0.5)
