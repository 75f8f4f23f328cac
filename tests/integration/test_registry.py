"""Avro through a real schema registry: from PostgreSQL to the lake nothing is different from JSON."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from cdc_lake.config import STATE_FOLDER
from cdc_lake.config_registry import RegistrySection
from cdc_lake.decode.codecs import Codec, codec_of
from cdc_lake.local.stack import Stack
from cdc_lake.registry.client import RegistryClient
from tests.integration.conftest import VARIABLE, Database, RunningStack, fresh_database, wait_for
from tests.integration.test_types import RECORDING, record
from tests.projects import ROOT, Project, make_project
from tests.registry_server import RegistryServer, add_converter, converter

pytestmark = pytest.mark.stack


@dataclass(frozen=True, slots=True)
class World:
    """A stack whose Connect has the converter, and a registry."""

    stack: RunningStack
    registry: RegistryServer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A stack of its own: its worker needs more plugins than that of the others."""
    lent = os.environ.get(VARIABLE)
    folder = Path(lent) if lent else tmp_path_factory.mktemp("registry")
    registry = RegistryServer(tmp_path_factory.mktemp("server"))
    add_converter(folder / STATE_FOLDER / "plugins")
    stack = Stack(folder / STATE_FOLDER)
    try:
        at = stack.up()
        registry.start()
        yield World(RunningStack(at.dsn, at.bootstrap, at.connect_url, folder, stack), registry)
    finally:
        registry.kill()
        if not lent:
            stack.down(wipe=True)


class Reading:
    """Makes `{"schema", "payload"}` of wire format, with the codecs that the sink uses."""

    def __init__(self, registry: RegistryServer) -> None:
        self._client = RegistryClient(RegistrySection(url=registry.confluent_url))
        self._codecs: dict[int, Codec] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        magic, number = struct.unpack(">bI", value[:5])
        assert magic == 0
        if number not in self._codecs:
            self._codecs[number] = codec_of(self._client.schema(number))
        codec = self._codecs[number]
        return {"schema": json.loads(codec.definition), "payload": json.loads(codec.payload(value[5:]) or "null")}


def test_every_type_arrives_as_the_json_converter_writes_it(world: World) -> None:
    found = record(world.stack, converter(world.registry.own_url), Reading(world.registry))
    recorded = json.loads(RECORDING.read_text(encoding="utf-8"))
    for kind in ("values", "large"):
        for type_, event in recorded[kind].items():
            assert found[kind][type_] == event, type_


NAMES = "field.name.adjustment.mode"
ESCAPED = {NAMES: "avro_unicode"}
TABLE = """CREATE TABLE till (id bigint PRIMARY KEY, label text, total numeric(10,2), weight real, at timestamptz,
    tags text[], raw bytea, vip boolean, "No. (ü_1)" text)"""
ROWS = """INSERT INTO till SELECT i, 'é ' || i, i + 0.5, i / 3.0, '2026-01-01'::timestamptz + i * interval '1 s',
    ARRAY['a', NULL, i::text], decode(repeat('ab', i::int % 5), 'hex'), NULLIF(i % 3 = 0, true), 'n' || i
    FROM generate_series({}, {}) i"""


@pytest.fixture
def database(world: World) -> Iterator[Database]:
    """A source with one table."""
    with fresh_database(world.stack) as made:
        made.execute(TABLE, ROWS.format(1, 200))
        yield made


@pytest.fixture
def project(world: World, database: Database, tmp_path: Path) -> Iterator[Project]:
    """A project whose connector writes Avro."""
    at, settings = world.stack, {"schema.name.adjustment.mode": "avro", **ESCAPED, **converter(world.registry.own_url)}
    with make_project(tmp_path / "p", database.dsn, at.bootstrap, at.connect_url, settings) as made:
        with (made.folder / "cdc-lake.yaml").open("a") as file:
            file.write(f'registry: {{url: "{world.registry.confluent_url}"}}\n')
        made.register()
        yield made


def write_with(project: Project, settings: dict[str, str]) -> None:
    """Have the connector write with other converters from now on; without any, with those for plain JSON."""
    file = project.folder / "connectors" / f"{project.name}.json"
    connector = json.loads(file.read_text())
    theirs = ("key.converter", "value.converter")
    kept = {k: v for k, v in connector["config"].items() if not k.startswith(theirs)}
    own = json.loads((ROOT / "connectors" / "pos.json").read_text())["config"]
    json_ = {k: v for k, v in own.items() if k.startswith(theirs)} | {NAMES: "none"}
    file.write_text(json.dumps({**connector, "config": {**kept, **(settings or json_)}}))
    project.register()


def equal(project: Project, database: Database, rows: int) -> None:
    """Land all, and hold the lake against the source."""

    def is_equal() -> bool:
        project.ok("sink", "run", "--until-caught-up")
        report = project.verify()
        mine = next(t for t in report["tables"] if t["table"] == "public.till")
        return bool(report["ok"] and mine["rows_source"] == mine["rows_lake"] == rows)

    wait_for(is_equal, f"{rows} rows in the lake", seconds=120)


def test_a_lake_through_a_registry_is_equal_to_the_source_whatever_happens(
    world: World, project: Project, database: Database
) -> None:
    equal(project, database, 200)

    # The source's table changes, and with it the schema.
    database.execute("ALTER TABLE till ADD colour text DEFAULT 'red'", ROWS.format(201, 220))
    database.execute("UPDATE till SET total = total + 1 WHERE id % 7 = 0", "DELETE FROM till WHERE id = 5")
    equal(project, database, 219)
    (versions,) = project.query("SELECT count(DISTINCT schema_id) AS n FROM lake.schemas WHERE \"table\" = 'till'")
    assert versions["n"] >= 2

    # The registry dies. A sink that knows no schema yet waits for it, and goes on by itself.
    world.registry.kill()
    database.execute(ROWS.format(301, 320))
    sink = project.start("sink", "run", log_file="waiting.log")
    try:
        wait_for(lambda: "does not answer" in project.log("waiting.log"), "the sink to say what it waits for")
        assert sink.poll() is None
        world.registry.start()
        wait_for(lambda: project.query("SELECT count(*) AS n FROM till")[0]["n"] == 239, "its rows", seconds=120)
    finally:
        sink.terminate()
        assert sink.wait(60) == 0
    equal(project, database, 239)

    # The same topic goes on in JSON, and in Avro again.
    write_with(project, {})
    database.execute(ROWS.format(401, 410), "UPDATE till SET label = 'plain' WHERE id <= 10")
    equal(project, database, 249)
    write_with(project, ESCAPED | converter(world.registry.own_url))
    database.execute(ROWS.format(601, 610), "DELETE FROM till WHERE id <= 30")
    equal(project, database, 230)

    # A record whose schema nobody has: all others land.
    producer = KafkaProducer(bootstrap_servers=project.bootstrap)
    producer.send(f"{project.name}.public.till", struct.pack(">bI", 0, 987_654) + b"x").get(30)
    producer.close()
    database.execute(ROWS.format(701, 701))
    equal(project, database, 231)
    (letter,) = json.loads(project.ok("--json", "dlq", "list"))["dead_letters"]
    assert letter["error_class"] == "unknown_schema"
    assert "987654" in letter["reason"]
    assert world.registry.confluent_url in letter["reason"]


def test_doctor_finds_the_registry_well(project: Project) -> None:
    document = json.loads(project.run("--json", "doctor").stdout)
    found = {c["name"]: c for c in document["checks"] if c["name"].startswith("registry.")}
    assert found["registry.answers"]["status"] == "OK"
    # Apicurio asks for nothing unless it is told to.
    assert found["registry.compatibility"]["status"] == "WARN"
