"""The embedded Kafka broker: one node, KRaft, everything on 127.0.0.1."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from cdc_lake.errors import CdcLakeError
from cdc_lake.local import java, ports, versions
from cdc_lake.local.jars import Jars
from cdc_lake.local.part import Part
from cdc_lake.local.state import State

MESSAGE_BYTES = 128 * 1024 * 1024
HEAP_MB = 768


class Kafka(Part):
    """Broker and controller in one JVM."""

    name: ClassVar[str] = "kafka"
    title: ClassVar[str] = f"Kafka {versions.KAFKA}"
    port_names: ClassVar[tuple[str, ...]] = ("kafka", "controller")

    def __init__(self, state: State, jars: Jars) -> None:
        super().__init__(state)
        self._jars = jars

    @property
    @override
    def mark(self) -> str:
        return f"-Dcdc.lake.kafka={self.state.folder}"

    @property
    def _settings(self) -> str:
        return str(self.folder / "server.properties")

    @override
    def prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        java.write_logging(self.folder)
        (self.folder / "server.properties").write_text(java.properties(self._server()), encoding="utf-8")
        if not (data / "meta.properties").exists():
            self._format()

    def _server(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{ports.HOST}:{self.ports['controller']}",
            "listeners": f"PLAINTEXT://{ports.HOST}:{self.port},CONTROLLER://{ports.HOST}:{self.ports['controller']}",
            "advertised.listeners": f"PLAINTEXT://{ports.HOST}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dir": self.folder / "data",
            # One node: every internal topic has one replica, and few partitions to open at start.
            "default.replication.factor": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "auto.create.topics.enable": True,
            "num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            # A row image may be large; a broker that refuses it would stop the connector.
            "message.max.bytes": MESSAGE_BYTES,
            "replica.fetch.max.bytes": MESSAGE_BYTES,
            "socket.request.max.bytes": MESSAGE_BYTES + 1024 * 1024,
            "log.segment.bytes": 256 * 1024 * 1024,
            # Nothing that was not landed yet may expire while a laptop is closed.
            "log.retention.hours": 24 * 14,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
            # A broker that was killed is registered until its session ends, and a new one waits for that.
            "broker.session.timeout.ms": 4000,
            "broker.heartbeat.interval.ms": 1000,
        }

    def _format(self) -> None:
        # Random bytes in the form that Kafka prints ids in.
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
        command = self._java("kafka.tools.StorageTool", ["format", "-t", cluster, "-c", self._settings])
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, timeout=self.start_seconds
        )
        with self.state.log(self.name).open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise CdcLakeError(
                "Kafka's data folder could not be set up.",
                why=(done.stderr or done.stdout).strip()[-600:],
                next=f"read {self.state.log(self.name)}; to begin anew: cdc-lake down --wipe",
                code="stack_failed",
            )

    def _java(self, main: str, arguments: list[str]) -> list[str]:
        return java.command(
            self._jars,
            mark=self.mark,
            heap_mb=HEAP_MB,
            logging=self.folder / "log4j2.properties",
            main=main,
            arguments=arguments,
        )

    @override
    def command(self) -> Sequence[str]:
        return self._java("kafka.Kafka", [self._settings])

    @property
    @override
    def environment(self) -> dict[str, str]:
        return java.environment()

    @override
    def ready(self) -> bool:
        return ports.accepts(self.port) and _unfenced(self.port)

    @override
    def entry(self) -> dict[str, Any]:
        return {"bootstrap": f"{ports.HOST}:{self.port}", "port": self.port}


def _unfenced(port: int) -> bool:
    """Whether the broker lists itself: it accepts connections a little before it takes part."""
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError

    client = None
    try:
        client = KafkaAdminClient(
            bootstrap_servers=f"{ports.HOST}:{port}", request_timeout_ms=3000, bootstrap_timeout_ms=3000
        )
        return bool(client.describe_cluster()["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        if client is not None:
            client.close()
