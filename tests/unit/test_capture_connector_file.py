"""A connector file is read whole, or refused with the place to correct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.connector_file import (
    ConnectorFile,
    is_secret_key,
    literal_secrets,
    load_connector,
    refuse_literal_secrets,
)
from cdc_lake.errors import ConfigError

POS = Path(__file__).parents[2] / "connectors" / "pos.json"
MINIMAL = {"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "topic.prefix": "shop"}


def write(folder: Path, content: Any) -> Path:
    file = folder / "shop.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def refused(file: Path) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load_connector(file)
    assert error.value.exit_code == 2
    assert error.value.next
    return error.value


def test_both_shapes_of_a_file_mean_the_same(tmp_path: Path) -> None:
    nested = load_connector(write(tmp_path, {"name": "shop", "config": MINIMAL}))
    flat = load_connector(write(tmp_path, {"name": "shop", **MINIMAL}))
    assert nested == flat == ConnectorFile("shop", dict(MINIMAL))


def test_numbers_and_truth_values_become_the_texts_connect_takes(tmp_path: Path) -> None:
    file = write(tmp_path, {"name": "shop", "config": {**MINIMAL, "tasks.max": 1, "tombstones.on.delete": False}})
    config = load_connector(file).config
    assert (config["tasks.max"], config["tombstones.on.delete"]) == ("1", "false")


def test_what_is_not_json_is_refused_with_line_and_column(tmp_path: Path) -> None:
    error = refused(write(tmp_path, '{\n  "name": "shop",\n  "config": {,}\n}'))
    assert "line 3, column 14" in error.message
    assert error.code == "not_json"


def test_bytes_that_are_no_text_are_refused_as_not_json(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_bytes(b"\xff\xfe{}")
    assert refused(file).code == "not_json"


@pytest.mark.parametrize("content", ["[]", '"shop"', "3"])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    assert "one JSON object" in refused(write(tmp_path, content)).message


def test_a_missing_file_suggests_the_near_one(tmp_path: Path) -> None:
    write(tmp_path, {"name": "shop", "config": MINIMAL})
    assert refused(tmp_path / "shp.json").why == 'Did you mean "shop.json"?'


def test_a_folder_is_not_a_connector_file(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path).message


@pytest.mark.parametrize("missing", ["connector.class", "topic.prefix"])
def test_a_required_setting_is_named_when_it_is_missing(tmp_path: Path, missing: str) -> None:
    config = {k: v for k, v in MINIMAL.items() if k != missing}
    assert f"`{missing}` is missing" in refused(write(tmp_path, {"name": "shop", "config": config})).message


def test_a_misspelt_required_setting_is_suggested(tmp_path: Path) -> None:
    config = {"connector.class": "x", "topic.prefx": "shop"}
    assert refused(write(tmp_path, {"name": "shop", "config": config})).why == 'Did you mean "topic.prefx"?'


@pytest.mark.parametrize("document", [{"config": MINIMAL}, {"name": "", "config": MINIMAL}, {"name": 3, **MINIMAL}])
def test_a_file_without_a_name_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    assert "`name` is missing" in refused(write(tmp_path, document)).message


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path, '{"name": "shop", "topic.prefix": "a", "topic.prefix": "b"}'))
    assert "`topic.prefix` stands there twice" in error.message


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}])
def test_a_value_that_is_no_text_is_refused_without_being_shown(tmp_path: Path, value: Any) -> None:
    error = refused(write(tmp_path, {"name": "shop", "config": {**MINIMAL, "table.include.list": value}}))
    assert "`table.include.list` must be a text" in error.message


def test_special_topics_follow_the_settings_that_name_them() -> None:
    plain = ConnectorFile("shop", dict(MINIMAL))
    assert (plain.transaction_topic, plain.heartbeat_topics) == (None, ())
    on = {"provide.transaction.metadata": "true", "heartbeat.interval.ms": "5000"}
    assert ConnectorFile("shop", {**MINIMAL, **on}).transaction_topic == "shop.transaction"
    assert ConnectorFile("shop", {**MINIMAL, **on}).heartbeat_topics == ("__debezium-heartbeat.shop",)
    named = {"topic.transaction": "tx", "topic.delimiter": "-", "topic.heartbeat.prefix": "beat"}
    connector = ConnectorFile("shop", {**MINIMAL, **on, **named})
    assert (connector.transaction_topic, connector.heartbeat_topics) == ("shop-tx", ("beat-shop",))


def test_the_placeholder_is_debeziums_unless_the_file_sets_one() -> None:
    assert ConnectorFile("shop", dict(MINIMAL)).placeholder == "__debezium_unavailable_value"
    assert ConnectorFile("shop", {**MINIMAL, "unavailable.value.placeholder": "gone"}).placeholder == "gone"
    assert ConnectorFile("shop", {**MINIMAL, "unavailable.value.placeholder": "hex:676f6e65"}).placeholder == "gone"


def test_decode_settings_hold_debeziums_default_where_the_file_is_silent() -> None:
    settings = ConnectorFile("shop", {**MINIMAL, "decimal.handling.mode": "string"}).decode_settings
    assert settings["decimal.handling.mode"] == "string"
    assert settings["time.precision.mode"] == "adaptive"
    assert settings["include.unknown.datatypes"] == "false"


def test_a_comma_inside_a_pattern_does_not_split_the_list() -> None:
    connector = ConnectorFile("shop", {**MINIMAL, "table.include.list": r"public\.a\,b , public\.c"})
    assert connector.include_tables == [r"public\.a\,b", r"public\.c"]


def test_secrets_are_told_by_the_name_of_the_setting() -> None:
    for key in (
        "database.password",
        "database.sslpassword",
        "producer.override.sasl.jaas.config",
        "value.converter.basic.auth.user.info",
    ):
        assert is_secret_key(key), key
    for key in ("database.user", "topic.prefix", "driver.ssl.truststore.location", "snapshot.mode"):
        assert not is_secret_key(key), key


def test_a_secret_by_reference_passes_and_one_written_out_is_refused() -> None:
    for text in ("${file:/run/secrets/pos:password}", "${env:PASSWORD}", "${capture:password}"):
        refuse_literal_secrets(POS, ConnectorFile("shop", {**MINIMAL, "database.password": text}))
    literal = ConnectorFile("shop", {**MINIMAL, "database.password": "hunter2"})
    assert literal_secrets(literal.config) == ["database.password"]
    with pytest.raises(ConfigError) as error:
        refuse_literal_secrets(POS, literal)
    assert "hunter2" not in f"{error.value.message}{error.value.why}{error.value.next}"
    assert "${env:" in error.value.next


def test_the_shipped_connector_has_the_settings_that_lose_nothing() -> None:
    connector = load_connector(POS)
    refuse_literal_secrets(POS, connector)
    expected = {
        "skipped.operations": "none",
        "decimal.handling.mode": "string",
        "interval.handling.mode": "string",
        "include.unknown.datatypes": "true",
        "provide.transaction.metadata": "true",
        "column.propagate.source.type": ".*",
        "publication.autocreate.mode": "disabled",
        "offset.mismatch.strategy": "trust_offset",
    }
    assert expected.items() <= connector.config.items()
    assert connector.transaction_topic == "pos.transaction"
    assert connector.heartbeat_topics == ("__debezium-heartbeat.pos",)
    assert connector.placeholder != "__debezium_unavailable_value"


def test_every_setting_of_the_shipped_connector_is_explained_beside_it() -> None:
    text = (POS.parent / "README.md").read_text()
    missing = [key for key in load_connector(POS).config if f"`{key}`" not in text]
    assert missing == []
