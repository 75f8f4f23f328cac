"""A broker that wants TLS and a login: records land through it, and what is wrong is named without the password."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka.admin import KafkaAdminClient, UserScramCredentialUpsertion
from typing_extensions import override

from cdc_lake.cache import cache_folder
from cdc_lake.local import ports, process
from cdc_lake.local.jars import Jars
from cdc_lake.local.kafka import Kafka
from cdc_lake.local.state import State
from cdc_lake.service import Event
from cdc_lake.service.event import encode
from cdc_lake.service.outlet import KafkaOutlet
from tests.integration.conftest import wait_for
from tests.projects import Project

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not there"),
]

USER, PASSWORD = "lake", "canary-login-7"
SCANS = 40
LOGIN = f'org.apache.kafka.common.security.{{}} required username="admin" password="{PASSWORD}-admin"'


class SecureKafka(Kafka):
    """The embedded broker with one listener more, which encrypts and asks who is there."""

    port_names = ("kafka", "controller", "secure")

    @override
    def _server(self) -> dict[str, object]:
        plain = LOGIN.format("plain.PlainLoginModule") + f' user_{USER}="{PASSWORD}";'
        given = super()._server()
        secure = f"SECURE://{ports.HOST}:{self.ports['secure']}"
        own = "listener.name.secure"
        return {
            **given,
            "listeners": f"{given['listeners']},{secure}",
            "advertised.listeners": f"{given['advertised.listeners']},{secure}",
            "listener.security.protocol.map": f"{given['listener.security.protocol.map']},SECURE:SASL_SSL",
            f"{own}.ssl.keystore.type": "PEM",
            f"{own}.ssl.keystore.location": self.state.folder / "server.pem",
            f"{own}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            f"{own}.plain.sasl.jaas.config": plain,
            f"{own}.scram-sha-512.sasl.jaas.config": LOGIN.format("scram.ScramLoginModule") + ";",
        }


def openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def certify(folder: Path) -> None:
    """A certificate for 127.0.0.1 alone, signed by an authority of our own; and another authority that signed none."""
    for name in ("authority", "stranger"):
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
        openssl(folder, *new, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    asked = ("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", "broker.key", "-out", "asked")
    openssl(folder, *asked)
    (folder / "names").write_text(f"subjectAltName=IP:{ports.HOST}\n")
    signed = ("x509", "-req", "-in", "asked", "-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial")
    openssl(folder, *signed, "-days", "2", "-extfile", "names", "-out", "broker.pem")
    parts = [(folder / name).read_text() for name in ("broker.key", "broker.pem", "authority.pem")]
    (folder / "server.pem").write_text("".join(parts))


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it listens, openly and securely, and the folder of its certificates."""

    bootstrap: str
    port: int
    folder: Path


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("secure")
    state = State(folder)
    state.create()
    certify(folder)
    jars = Jars(cache_folder())
    jars.ensure()
    kafka = SecureKafka(state, jars)
    taken: set[int] = set()
    chosen = {}
    for name in kafka.port_names:
        chosen[name] = ports.choose(None, taken)
        taken.add(chosen[name])
    kafka.ports = chosen
    kafka.prepare()
    child = process.launch(kafka.command(), state.log("kafka"), cwd=Path("/"), env=kafka.environment)
    try:
        wait_for(kafka.ready, "the broker to answer", seconds=kafka.start_seconds)
        bootstrap = f"{ports.HOST}:{kafka.port}"
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, "SCRAM-SHA-512", PASSWORD)])
        admin.close()
        outlet = KafkaOutlet(bootstrap)
        outlet.ensure(["scans"], 3)
        at = datetime.now(UTC)
        scans = (Event(str(n), "/gate", "shop.scan", {"n": n}, subject=str(n), time=at) for n in range(SCANS))
        outlet.send([encode("scans", scan) for scan in scans])
        outlet.close()
        yield Broker(bootstrap, chosen["secure"], folder)
    finally:
        child.terminate()
        child.wait(30)


def project(broker: Broker, folder: Path, client: str, bootstrap: str = "", **options: Any) -> Project:
    """A lake of the scans, through the secure listener; the password comes from the environment."""
    options = {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.folder / "authority.pem"),
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": USER,
        "sasl_plain_password": "${KAFKA_PASSWORD}",
        **options,
    }
    address = bootstrap or f"{ports.HOST}:{broker.port}"
    settings = {
        "sources": [{"name": "gate", "events": {"scans": "scans"}}],
        "kafka": {"bootstrap": address, "client": client, "options": options},
        "lake": {"uri": "./lake"},
    }
    (folder / "cdc-lake.yaml").write_text(yaml.safe_dump(settings))
    return Project(folder, "gate", "", address)


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_events_land_through_tls_and_a_login(client: str, mechanism: str, broker: Broker, tmp_path: Path) -> None:
    made = project(broker, tmp_path, client, sasl_mechanism=mechanism)
    password = {"KAFKA_PASSWORD": PASSWORD}
    told = json.loads(made.ok("--json", "sink", "run", "--until-caught-up", env=password))
    assert told["events"] == SCANS
    counted = "SELECT count(DISTINCT id) AS n FROM events.scans"
    found = json.loads(made.ok("query", counted, "--format", "json", env=password))
    assert found == [{"n": SCANS}]
    assert PASSWORD not in (tmp_path / "cdc-lake.yaml").read_text()


def refused(made: Project, password: str = PASSWORD) -> dict[str, str]:
    """The error of a sink that cannot connect; the password is in no word of it."""
    done = made.run("--json", "-v", "sink", "run", "--until-caught-up", env={"KAFKA_PASSWORD": password})
    assert done.returncode == 1, done.stdout
    assert password not in done.stdout + done.stderr
    error: dict[str, str] = json.loads(done.stdout)["error"]
    assert error["next"]
    return error


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_named(client: str, mechanism: str, broker: Broker, tmp_path: Path) -> None:
    error = refused(project(broker, tmp_path, client, sasl_mechanism=mechanism), "canary-wrong-9")
    assert error["code"] == "kafka_credentials"


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_broker_that_another_authority_vouches_for_is_not_spoken_to(
    client: str, broker: Broker, tmp_path: Path
) -> None:
    error = refused(project(broker, tmp_path, client, ssl_cafile=str(broker.folder / "stranger.pem")))
    assert error["code"] == "kafka_security"


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_broker_under_a_name_that_its_certificate_has_not_is_not_spoken_to(
    client: str, broker: Broker, tmp_path: Path
) -> None:
    error = refused(project(broker, tmp_path, client, bootstrap=f"localhost:{broker.port}"))
    assert error["code"] == "kafka_security"


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_client_that_speaks_plainly_to_it_is_told_that_it_wants_tls(
    client: str, broker: Broker, tmp_path: Path
) -> None:
    error = refused(project(broker, tmp_path, client, security_protocol="PLAINTEXT"))
    assert "TLS" in error["why"]
