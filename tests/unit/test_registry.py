"""A schema is fetched once and kept for ever; a registry that is away is waited for, one that lacks a schema is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cdc_lake.checks import Check, Status
from cdc_lake.config import Config, load_config
from cdc_lake.config_registry import RegistrySection
from cdc_lake.errors import ConfigError, UnavailableError
from cdc_lake.registry.check import RegistryFacts, check_converters, check_nulls, check_registry, read_registry
from cdc_lake.registry.client import RegistryClient, UnknownSchemaError
from cdc_lake.registry.fetching import RegistrySchemas, open_schemas
from cdc_lake.registry.schemas import Refused, RegisteredSchema

URL = "http://registry.test:8081"


class World:
    """A registry behind httpx, a clock, and what was asked."""

    def __init__(self, answers: dict[str, Any] | None = None, **section: Any) -> None:
        self.answers: dict[str, Any] = answers or {}
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []
        self.away = ""
        self.time = 0.0
        self.work: list[Callable[[], None]] = []
        self.inline = True
        settings = RegistrySection(url=URL, **section)
        self.client = RegistryClient(settings, transport=httpx.MockTransport(self._answer))
        self.schemas = RegistrySchemas(self.client, run=self._run, now=lambda: self.time, pause=self._pass)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.raw_path.decode())
        self.requests.append(request)
        if self.away:
            raise httpx.ConnectError(self.away)
        answer = self.answers.get(self.asked[-1], 404)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(200, json=answer)

    def _run(self, work: Callable[[], None]) -> None:
        work() if self.inline else self.work.append(work)

    def _pass(self, seconds: float) -> None:
        self.time += seconds

    def until_quiet(self) -> int:
        """Look as a loop does until nothing is waited for; the number of looks."""
        for look in range(100):
            if not self.schemas.awaits():
                return look
            self.time += 1
        raise AssertionError(self.schemas.awaits())


def avro(text: str = '"string"', **more: Any) -> dict[str, Any]:
    return {"schema": text, **more}


def test_a_schema_is_asked_for_once() -> None:
    world = World({"/schemas/ids/7": avro(), "/schemas/ids/8": avro("{}", schemaType="JSON")})
    for _ in range(3):
        world.schemas.want({7, 8})
        assert not world.schemas.awaits()
        assert world.schemas.get(7) == RegisteredSchema(7, "AVRO", '"string"')
        assert world.schemas.get(8) == RegisteredSchema(8, "JSON", "{}")
    assert sorted(world.asked) == ["/schemas/ids/7", "/schemas/ids/8"]


def test_looking_never_waits_for_the_answer() -> None:
    world = World({"/schemas/ids/7": avro()})
    world.inline = False
    world.schemas.want({7})
    assert "schema 7" in world.schemas.awaits()
    assert "schema 7" in world.schemas.awaits()
    assert len(world.work) == 1
    world.work.pop()()
    assert not world.schemas.awaits()


def test_a_registry_that_is_away_is_waited_for_ever_more_slowly_and_found_again() -> None:
    world = World({"/schemas/ids/7": avro()})
    world.away = "Connection refused"
    world.schemas.want({7})
    for _ in range(600):
        assert "Connection refused" in world.schemas.awaits()
        world.time += 0.5
    tries = len(world.asked)
    assert 15 < tries < 40  # of 600 looks in 300 s
    world.away = ""
    assert world.until_quiet() <= 16
    assert world.schemas.get(7) == RegisteredSchema(7, "AVRO", '"string"')
    assert len(world.asked) == tries + 1


@pytest.mark.parametrize(
    "answer", [500, 503, 429, 302, httpx.Response(200, text="<html>"), httpx.Response(200, json=[])]
)
def test_what_is_no_answer_of_a_registry_is_waited_for(answer: Any) -> None:
    world = World({"/schemas/ids/7": answer})
    world.schemas.want({7})
    assert world.schemas.awaits()
    world.answers["/schemas/ids/7"] = avro()
    world.until_quiet()
    assert isinstance(world.schemas.get(7), RegisteredSchema)


def test_a_schema_that_is_not_there_is_tried_again_then_refused_by_name() -> None:
    world = World({"/schemas/ids/7": avro()})
    world.schemas.want({7, 404})
    assert world.until_quiet() > 2
    assert world.asked.count("/schemas/ids/404") == 4
    assert world.asked.count("/schemas/ids/7") == 1
    refused = world.schemas.get(404)
    assert isinstance(refused, Refused)
    assert "404" in refused.reason
    assert URL in refused.reason
    world.schemas.want({404})
    assert not world.schemas.awaits(), "it is not waited for again at once"


def test_a_schema_that_comes_late_is_found_within_the_tries_and_after_a_refusal() -> None:
    world = World()
    world.schemas.want({7})
    assert world.schemas.awaits()
    world.answers["/schemas/ids/7"] = avro()
    world.until_quiet()
    assert isinstance(world.schemas.get(7), RegisteredSchema)
    world.schemas.want({8})
    world.until_quiet()
    assert isinstance(world.schemas.get(8), Refused)
    world.answers["/schemas/ids/8"] = avro()
    world.time += 61
    world.schemas.want({8})
    world.until_quiet()
    assert isinstance(world.schemas.get(8), RegisteredSchema)


def test_without_a_loop_it_waits_itself_and_says_when_the_registry_is_away() -> None:
    world = World({"/schemas/ids/7": avro()})
    assert isinstance(world.schemas.get(7), RegisteredSchema)
    assert isinstance(world.schemas.get(8), Refused)
    world.away = "no route"
    assert isinstance(world.schemas.get(7), RegisteredSchema), "what is known needs no registry"
    with pytest.raises(UnavailableError, match="does not answer") as away:
        world.schemas.get(9)
    assert "no route" in away.value.why


def test_references_come_with_a_schema_each_behind_what_it_needs() -> None:
    world = World(
        {
            "/schemas/ids/1": avro("a", references=[{"name": "B", "subject": "s/b", "version": 2}] * 2),
            "/subjects/s%2Fb/versions/2": avro("b", references=[{"name": "C", "subject": "c", "version": 1}]),
            "/subjects/c/versions/1": avro("c", references=[{"name": "B", "subject": "s/b", "version": 2}]),
        }
    )
    found = world.client.schema(1)
    assert found.references == (("C", "c"), ("B", "b"))


def test_a_reference_that_is_gone_makes_the_schema_one_that_is_not_there() -> None:
    world = World({"/schemas/ids/1": avro("a", references=[{"name": "B", "subject": "b", "version": 2}])})
    with pytest.raises(UnknownSchemaError):
        world.client.schema(1)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named_without_showing_them(status: int) -> None:
    world = World({"/schemas/ids/7": status}, user="u", password="canary-secret")
    with pytest.raises(UnavailableError, match="refuses the credentials") as refused:
        world.client.schema(7)
    assert world.requests[0].headers["authorization"].startswith("Basic ")
    world.schemas.want({7})
    assert "canary" not in str(refused.value.as_dict()) + world.schemas.awaits()


def test_headers_of_the_configuration_are_sent() -> None:
    world = World({"/schemas/ids/7": avro()}, headers={"Authorization": "Bearer t"})
    world.client.schema(7)
    assert world.requests[0].headers["authorization"] == "Bearer t"


def test_levels_of_compatibility_are_told_where_the_registry_tells_them() -> None:
    answers = {"/config": {"compatibilityLevel": "BACKWARD"}, "/config/a-value": {"compatibility": "NONE"}}
    world = World({**answers, "/subjects": ["a-value"], "/mode": {"mode": "READWRITE"}})
    assert world.client.subjects() == ["a-value"]
    assert (world.client.compatibility(), world.client.compatibility("a-value")) == ("BACKWARD", "NONE")
    assert world.client.compatibility("b") is None
    assert world.client.mode() == "READWRITE"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"url": "registry:8081"}, "http://"),
        ({"url": "http://u:p@registry:8081"}, "settings of their own"),
        ({"url": URL, "password": "p"}, "needs `user`"),
        ({"url": URL, "key": "k.pem"}, "needs `certificate`"),
    ],
)
def test_a_section_that_cannot_work_is_refused(tmp_path: Path, section: dict[str, str], words: str) -> None:
    file = tmp_path / "cdc-lake.yaml"
    file.write_text(json.dumps({"registry": section}))
    with pytest.raises(ConfigError) as refused:
        load_config(file, environ={})
    assert words in refused.value.why
    assert "p@" not in str(refused.value.as_dict())


@pytest.mark.parametrize("name", ["ca", "certificate"])
def test_a_certificate_that_is_not_there_or_none_is_named(tmp_path: Path, name: str) -> None:
    section = RegistrySection.model_validate({"url": "https://registry", name: "own.pem"})
    with pytest.raises(ConfigError, match=r"own\.pem"):
        RegistryClient(section, tmp_path)
    (tmp_path / "own.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="cannot be read"):
        RegistryClient(section, tmp_path)


def test_credentials_in_plain_text_over_a_network_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for url, user, warned in (
        ("http://far", "u", True),
        ("http://127.0.0.1:8081", "u", False),
        ("https://far", "u", False),
        ("http://far", None, False),
    ):
        caplog.clear()
        assert open_schemas(Config(registry=RegistrySection(url=url, user=user))) is not None
        assert bool(caplog.records) is warned, (url, user)


def test_none_is_opened_where_none_is_configured() -> None:
    assert open_schemas(Config()) is None


AVRO = "io.confluent.connect.avro.AvroConverter"
SECTION = RegistrySection(url=URL)


def facts(**told: Any) -> RegistryFacts:
    return RegistryFacts(**{"subjects": ["pos.a-value"], "level": "BACKWARD", "levels": {}, "mode": None, **told})


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_doctor_says_that_the_registry_is_well() -> None:
    found = by_name(check_registry(SECTION, facts(mode="READWRITE")))
    assert {c.status for c in found.values()} == {Status.OK}
    assert "1 subject" in found["registry.answers"].found
    assert "READWRITE" in found["registry.answers"].found


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"level": "NONE"}, Status.WARN),
        ({"level": "NONE", "subjects": []}, Status.WARN),
        ({"level": "NONE", "levels": {"pos.a-value": "FULL"}}, Status.OK),
        ({"levels": {"pos.a-value": "NONE"}}, Status.WARN),
        ({"level": None}, Status.OK),
    ],
)
def test_doctor_warns_where_new_schemas_are_held_against_nothing(told: dict[str, Any], status: Status) -> None:
    check = by_name(check_registry(SECTION, facts(**told)))["registry.compatibility"]
    assert check.status is status
    assert status is Status.OK or "/config" in check.fix


def test_doctor_looks_at_the_subjects_of_these_sources_alone() -> None:
    world = World(
        {"/subjects": ["pos.a-value", "other-value"], "/config": {"compatibilityLevel": "FULL"}, "/mode": 500}
    )
    assert read_registry(world.client, ["pos"]) == facts(level="FULL")
    assert not any("other" in path for path in world.asked)


def test_doctor_names_a_registry_that_is_away_and_credentials_in_plain_text() -> None:
    section = RegistrySection(url="http://far:8081", user="u", password="p")
    found = by_name(check_registry(section, UnavailableError("It does not answer.", next="start it")))
    assert found["registry.answers"].status is Status.FAIL
    assert found["registry.encrypted"].status is Status.WARN


@pytest.mark.parametrize(
    ("config", "configured", "status", "words"),
    [
        ({"value.converter": "org.apache.kafka.connect.json.JsonConverter"}, False, Status.OK, ""),
        ({}, True, Status.OK, ""),
        ({"value.converter": AVRO}, False, Status.FAIL, "registry: {url"),
        (
            {"key.converter": "io.apicurio.registry.utils.converter.ExtJsonConverter"},
            False,
            Status.FAIL,
            "key.converter",
        ),
        ({"value.converter": AVRO}, True, Status.WARN, "avro_unicode"),
        ({"value.converter": AVRO, "field.name.adjustment.mode": "avro_unicode"}, True, Status.OK, ""),
        ({"value.converter": "io.confluent.connect.protobuf.ProtobufConverter"}, True, Status.FAIL, "Protobuf"),
        (
            {"value.converter": "io.apicurio.registry.utils.converter.ExtJsonConverter"},
            True,
            Status.FAIL,
            "Apicurio's own",
        ),
    ],
)
def test_doctor_knows_which_converters_need_a_registry(
    config: dict[str, str], configured: bool, status: Status, words: str
) -> None:
    check = check_converters(config, "connectors/pos.json", configured=configured)
    assert check.status is status
    assert words in check.found + check.fix


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({}, Status.OK),
        ({"value.converter": AVRO}, Status.FAIL),
        ({"value.converter": AVRO, "value.converter.ignore.default.for.nullables": "true"}, Status.OK),
        ({"value.converter": "io.apicurio.registry.utils.converter.AvroConverter"}, Status.WARN),
        ({"value.converter": "io.confluent.connect.json.JsonSchemaConverter"}, Status.OK),
    ],
)
def test_doctor_says_where_nulls_become_defaults(config: dict[str, str], status: Status) -> None:
    assert check_nulls(config, "connectors/pos.json").status is status
