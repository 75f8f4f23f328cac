"""The configuration is checked as a whole: what is wrong is named with place and remedy, and never with a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.config import Config, load_config
from cdc_lake.config_source import Source
from cdc_lake.errors import ConfigError, UnavailableError
from cdc_lake.events import TableId

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-very-secret"


def load(folder: Path, text: str, **environ: str) -> Config:
    (folder / "cdc-lake.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "cdc-lake.yaml", environ=environ)


def refused(folder: Path, text: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    error = caught.value
    assert error.exit_code == 2
    assert error.next, "an error without a next step"
    return error


# --- what is good


def test_no_file_means_all_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(environ={})
    assert config.all_sources == [Source()]
    assert config.lake_uri == str(tmp_path / "lake")
    assert (config.sink.flush_seconds, config.sink.flush_mb, config.sink.memory_mb) == (5, 64, 1024)


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n").sink == Config().sink


def test_the_commented_example_at_the_top_equals_the_defaults() -> None:
    example = load_config(ROOT / "cdc-lake.yaml", environ={})
    bare = Config(root=ROOT)
    assert example.model_dump(exclude={"source"}) == bare.model_dump(exclude={"source"})
    assert example.all_sources[0].model_dump(exclude={"connector"}) == Source().model_dump(exclude={"connector"})
    assert example.connector_file(example.all_sources[0]) == bare.connector_file(Source())


def test_paths_are_relative_to_the_files_folder_and_may_hold_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    config = load(folder, "lake: {uri: my lake}\nsource: {connector: my connectors/pos.json}")
    assert config.lake_uri == str(folder / "my lake")
    assert config.connector_file(config.all_sources[0]) == folder / "my connectors/pos.json"
    assert config.state_folder == folder / ".cdc-lake"


def test_a_uri_is_left_as_it_is(tmp_path: Path) -> None:
    assert load(tmp_path, "lake: {uri: 's3://bucket/lake'}").lake_uri == "s3://bucket/lake"


def test_references_to_the_environment_and_to_files_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    text = 'source: {dsn: "host=${HOST:-localhost} user=${DB_USER} password=${file:password}"}'
    assert load(tmp_path, text, DB_USER="ada").all_sources[0].dsn == f"host=localhost user=ada password={SECRET}"


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    text = "sink: {flush_seconds: 3, flush_mb: 8}"
    config = load(tmp_path, text, CDC_LAKE__SINK__FLUSH_SECONDS="0.5", CDC_LAKE__LAKE__URI="./other")
    assert (config.sink.flush_seconds, config.sink.flush_mb, config.sink.memory_mb) == (0.5, 8, 1024)
    assert config.lake_uri == str(tmp_path / "other")


def test_the_last_glob_that_matches_a_table_decides(tmp_path: Path) -> None:
    text = 'tables: {"public.*": {}, "public.audit_*": {exclude: true}, "public.orders": {class: critical}}'
    config = load(tmp_path, f"{text}\nretention: {{classes: {{critical: {{}}, standard: {{}}}}}}")
    orders = config.table("public", "orders")
    assert orders is not None
    assert orders.retention_class == "critical"
    assert config.table("public", "audit_log") is None
    assert config.table("other", "orders") is None


@pytest.mark.parametrize(
    ("text", "where", "near"),
    [
        ('tables: {"public.orders": {class: standart}}', "tables.public.orders.class", 'Did you mean "standard"?'),
        ("retention: {classes: {gold: {log: 7d}}}", "retention.default", "The classes are: gold."),
    ],
)
def test_a_retention_class_that_does_not_exist_is_named_with_the_near_one(
    tmp_path: Path, text: str, where: str, near: str
) -> None:
    error = refused(tmp_path, text)
    assert f"`{where}` names the retention class" in error.message
    assert (error.why, error.code) == (near, "no_such_class")


def test_a_table_has_the_class_that_the_last_glob_names_and_a_hold_of_any(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        tables: {"public.*": {class: telemetry, hold: true}, "public.orders": {}, "public.pings": {class: standard}}
        retention: {classes: {standard: {log: 400d}, telemetry: {log: 7d, history: 30d}}}
        """,
    )
    found = {name: config.retained(TableId(*name.split("."))) for name in ("public.orders", "public.pings", "other.x")}
    assert {n: (c, k.log, hold) for n, (c, k, hold) in found.items()} == {
        "public.orders": ("telemetry", "7d", True),
        "public.pings": ("standard", "400d", True),
        "other.x": ("standard", "400d", False),
    }


def test_a_table_without_settings_may_be_written_bare(tmp_path: Path) -> None:
    assert load(tmp_path, "tables:\n  public.orders:\n").table("public", "orders") is not None


def test_without_addresses_the_embedded_stacks_are_used(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    config.state_folder.mkdir()
    addresses = {
        "postgres": {"dsn": "postgresql://127.0.0.1:5/pos"},
        "kafka": {"bootstrap": "127.0.0.1:6"},
        "connect": {"url": "http://127.0.0.1:7"},
    }
    config.stack_file.write_text(json.dumps(addresses))
    assert config.dsn(Source()) == "postgresql://127.0.0.1:5/pos"
    assert (config.bootstrap, config.connect_url) == ("127.0.0.1:6", "http://127.0.0.1:7")


def test_addresses_of_the_file_go_before_the_embedded_ones(tmp_path: Path) -> None:
    config = load(tmp_path, "kafka: {bootstrap: 'k:9092'}\nconnect: {url: 'http://c:8083'}\nsource: {dsn: 'host=p'}")
    assert (config.bootstrap, config.connect_url) == ("k:9092", "http://c:8083")
    assert config.dsn(config.all_sources[0]) == "host=p"


# --- what is bad


def test_a_stack_that_is_down_is_named_with_the_command_that_starts_it(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="embedded stack is not running") as caught:
        _ = load(tmp_path, "").bootstrap
    assert (caught.value.code, caught.value.next) == ("stack_down", "cdc-lake up")


@pytest.mark.parametrize("content", ["{", "[]", '{"kafka": 7}', '{"kafka": {}}'])
def test_a_broken_stack_file_counts_as_a_stack_that_is_down(tmp_path: Path, content: str) -> None:
    config = load(tmp_path, "")
    config.state_folder.mkdir()
    config.stack_file.write_text(content)
    with pytest.raises(UnavailableError):
        _ = config.bootstrap


def test_a_file_that_is_not_there_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*nowhere\.yaml") as caught:
        load_config(tmp_path / "nowhere.yaml", environ={})
    assert "cdc-lake init" in caught.value.next


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("snik: {flush_seconds: 1}", "snik", "sink"),
        ("sink: {flush_second: 1}", "sink.flush_second", "flush_seconds"),
        ("kafka: {bootstrap: x, clint: auto}", "kafka.clint", "client"),
        ("source: {nane: pos}", "source.nane", "name"),
        ("sources: [{name: a, dns: x}]", "sources.0.dns", "dsn"),
        ("tables: {public.orders: {clas: critical}}", "tables.public.orders.clas", "class"),
        ("retention: {classes: {gold: {logs: 1d}}}", "retention.classes.gold.logs", "log"),
    ],
)
def test_a_misspelt_key_is_named_and_the_near_one_suggested(tmp_path: Path, text: str, key: str, near: str) -> None:
    error = refused(tmp_path, text)
    assert f"unknown key `{key}`" in error.message
    assert error.why == f'Did you mean "{near}"?'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sink: {flush_seconds: often}", "sink.flush_seconds"),
        ("sink: {flush_seconds: 0}", "sink.flush_seconds"),
        ("sink: {memory_mb: 1}", "sink.memory_mb"),
        ("sink: 5", "sink"),
        ("kafka: {bootstrap: x, client: librdkafka}", "kafka.client"),
        ("source: {name: 'two words'}", "source.name"),
        ("retention: {classes: {gold: {log: soon}}}", "retention.classes.gold.log"),
        ("tables: [public.orders]", "tables"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_place(tmp_path: Path, text: str, key: str) -> None:
    error = refused(tmp_path, text)
    assert f"`{key}` is not valid" in error.message
    assert error.why


def test_a_key_without_default_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "`kafka.bootstrap` is missing" in refused(tmp_path, "kafka: {client: auto}").message


@pytest.mark.parametrize("text", ["a: [1", "\tx: 1", "a: b: c"])
def test_text_that_is_not_yaml_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, text)
    assert "is not valid YAML" in error.message
    assert "line" in error.why


@pytest.mark.parametrize("text", ["- a\n- b", "just words"])
def test_a_document_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    assert "must hold keys and values" in refused(tmp_path, text).message


def test_the_folder_of_the_project_is_no_setting(tmp_path: Path) -> None:
    assert "unknown key `root`" in refused(tmp_path, "root: /").message


def test_a_reference_to_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, 'source: {dsn: "${POS_DSN}"}')
    assert "${POS_DSN}, which is not set" in error.message
    assert "export POS_DSN" in error.next


def test_a_reference_to_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, 'source: {dsn: "${file:nowhere}"}')
    assert "${file:nowhere}, which cannot be read" in error.message
    assert str(tmp_path / "nowhere") in error.next


def test_a_variable_that_fits_no_section_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, "lake: {uri: x}", CDC_LAKE__LAKE__URI__DEEPER="1")
    assert "CDC_LAKE__LAKE__URI__DEEPER" in error.message
    assert "unset" in error.next


def test_a_misspelt_variable_is_an_unknown_key(tmp_path: Path) -> None:
    assert "unknown key `sink.flsh_mb`" in refused(tmp_path, "", CDC_LAKE__SINK__FLSH_MB="1").message


# --- secrets


def test_a_configuration_never_shows_its_secrets(tmp_path: Path) -> None:
    text = f"""
source: {{dsn: "postgresql://ada:{SECRET}@h/pos"}}
kafka: {{bootstrap: x, options: {{sasl_plain_password: {SECRET}}}}}
lake: {{uri: "s3://b/l", options: {{AWS_SECRET_ACCESS_KEY: {SECRET}}}}}
"""
    config = load(tmp_path, text)
    assert config.all_sources[0].dsn is not None
    assert SECRET in config.all_sources[0].dsn
    assert SECRET not in repr(config) + str(config)


@pytest.mark.parametrize(
    "text",
    [
        "source: {dsn: {url: ${PW}}}",
        "source: {name: '${PW} ${PW}'}",
        "kafka: {bootstrap: x, options: '${PW}'}",
        "lake: {options: {key: ['${PW}']}}",
        "sink: {memory_mb: '${PW}'}",
    ],
)
def test_an_error_never_shows_a_value(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, text, PW=SECRET)
    shown: dict[str, Any] = error.as_dict()
    assert SECRET not in json.dumps(shown)
