"""A service's answers over HTTP: rows of all shards that can be reached, with their age; nothing but reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cdc_lake.errors import ConfigError
from cdc_lake.service.answers import Answering
from cdc_lake.service.http import Server
from cdc_lake.service.process import own_folder, read_settings
from cdc_lake.service.run import Runner
from tests.service_world import World, settle
from tests.unit.test_service_run import add, counter

KEYS = "abcdefgh"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.topics("numbers", "tens")
    for n, key in enumerate(KEYS):
        made.put("numbers", add(n, n + 1, key))
    return made


@contextlib.contextmanager
def served(runner: Runner, *peers: str) -> Iterator[str]:
    with Server("127.0.0.1:0", Answering(runner, peers)) as server:
        yield server.url


def test_each_of_several_instances_answers_for_all(world: World) -> None:
    one, other = world.instance(counter(), 0), world.instance(counter(), 1)
    settle([one, other])
    with served(other) as theirs, served(one, theirs) as ours:
        whole = httpx.get(f"{ours}/sums").json()
        assert whole["rows"] == [{"key": key, "total": n + 1} for n, key in enumerate(KEYS)]
        assert whole["stale"] is False
        assert whole["age_seconds"] < 10
        part = httpx.get(f"{theirs}/sums").json()
        assert part["stale"] is True
        assert len(part["missing"]) == len(one.held)
    with served(one, theirs) as ours:  # the other has gone, and nobody has its partitions yet
        found = httpx.get(f"{ours}/sums").json()
        assert found["unreachable"] == [theirs]
        assert found["missing"]
        assert found["rows"]


def test_health_readiness_metrics_and_dead_letters_are_told(world: World) -> None:
    world.put("numbers", add(99, -5, "a"))
    runner = world.instance(counter())
    with served(runner) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503
        settle([runner])
        ready = httpx.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        (letter,) = httpx.get(f"{url}/dead-letters").json()["rows"]
        assert letter["code"] == "negative"
        assert "value" not in letter
        metrics = httpx.get(f"{url}/metrics").text
        assert 'cdc_lake_service_events_total{outcome="handled",type="add"} 8.0' in metrics
        assert 'cdc_lake_service_events_total{outcome="dead letter: negative",type="add"} 1.0' in metrics
        assert 'cdc_lake_service_lag_records{partition="0",topic="numbers"} 0.0' in metrics


def test_what_is_not_asked_rightly_is_said_and_no_other_host_is_served(world: World) -> None:
    runner = world.instance(counter())

    @runner.service.get("/one")
    def one(asked: object, db: object) -> list[dict[str, object]]:
        return [{"key": asked["key"]}]  # type: ignore[index]

    settle([runner])
    with served(runner) as url:
        assert httpx.get(f"{url}/nothing").status_code == 404
        assert "/sums" in httpx.get(f"{url}/nothing").json()["error"]
        assert httpx.get(f"{url}/one").status_code == 400
        assert httpx.get(f"{url}/sums", headers={"Host": "evil.example:80"}).status_code == 403
        assert httpx.post(f"{url}/sums").status_code == 501


def test_two_instances_of_one_machine_have_a_folder_each_and_the_next_goes_on_from_the_first(tmp_path: Path) -> None:
    with own_folder(tmp_path) as one, own_folder(tmp_path) as other:
        assert one.own != other.own
        assert one.shared == other.shared
    with own_folder(tmp_path) as again:
        assert again.own == one.own


def test_the_command_line_names_kafka_or_a_configuration_that_does(tmp_path: Path) -> None:
    given = ["--bootstrap", "k:9092", "--peer", "http://a", "--peer", "http://b", "--no-send"]
    settings = read_settings(counter(), given)
    assert (settings.bootstrap, settings.peers, settings.options.sends) == ("k:9092", ("http://a", "http://b"), False)
    file = tmp_path / "cdc-lake.yaml"
    file.write_text("kafka: {bootstrap: 'there:9092', client: kafka-python, options: {client_id: me}}\n")
    settings = read_settings(counter(), ["--config", str(file)])
    assert (settings.bootstrap, settings.client, settings.kafka) == ("there:9092", "kafka-python", {"client_id": "me"})
    file.write_text("lake: {uri: ./lake}\n")
    with pytest.raises(ConfigError, match="no address of Kafka"):
        read_settings(counter(), ["--config", str(file)])
