"""The embedded Kafka Connect worker with Debezium."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx
from typing_extensions import override

from cdc_lake.local import java, kafka, ports, versions
from cdc_lake.local.jars import Jars
from cdc_lake.local.part import Part
from cdc_lake.local.state import State

HEAP_MB = 768
GROUP = "cdc-lake-connect"


class Connect(Part):
    """One distributed worker: its connectors, offsets and states are in Kafka and outlive it."""

    name: ClassVar[str] = "connect"
    title: ClassVar[str] = f"Connect with Debezium {versions.DEBEZIUM}"
    port_names: ClassVar[tuple[str, ...]] = ("connect",)

    def __init__(self, state: State, jars: Jars) -> None:
        super().__init__(state)
        self._jars = jars

    @property
    def plugins(self) -> Path:
        """Where more plugins may be, such as converters: a folder with the jars of each. Looked at on the start."""
        return self.state.folder / "plugins"

    @property
    @override
    def mark(self) -> str:
        return f"-Dcdc.lake.connect={self.state.folder}"

    @property
    def url(self) -> str:
        """The REST interface."""
        return f"http://{ports.HOST}:{self.port}"

    @override
    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        java.write_logging(self.folder)
        (self.folder / "worker.properties").write_text(java.properties(self._worker()), encoding="utf-8")

    def _worker(self) -> dict[str, object]:
        settings: dict[str, object] = {
            "bootstrap.servers": f"{ports.HOST}:{self.ports['kafka']}",
            "group.id": GROUP,
            "listeners": self.url,
            "rest.advertised.host.name": ports.HOST,
            "rest.advertised.port": self.port,
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            # Every jar names its plugins. A scan of all classes finds no more, and is half of the start and the memory.
            "plugin.discovery": "service_load",
            "offset.flush.interval.ms": 1000,
            "connector.client.config.override.policy": "All",
            "producer.max.request.size": kafka.MESSAGE_BYTES,
            "producer.buffer.memory": kafka.MESSAGE_BYTES,
            "config.providers": "file,env",
            "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
            "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
            # A worker that died is gone at once: the next one is alone and must not wait for it.
            "scheduled.rebalance.max.delay.ms": 0,
            "session.timeout.ms": 10_000,
            "task.shutdown.graceful.timeout.ms": 3000,
            # Both are started at once: where the processors are taken, Kafka may need longer than a client's minute.
            "default.api.timeout.ms": int(self.start_seconds * 1000),
        }
        if self.plugins.is_dir():
            settings["plugin.path"] = self.plugins
        for kind, topic, partitions in (("config", "configs", 1), ("offset", "offsets", 4), ("status", "statuses", 2)):
            settings[f"{kind}.storage.topic"] = f"{GROUP}-{topic}"
            settings[f"{kind}.storage.replication.factor"] = 1
            if kind != "config":  # Connect makes it with one partition, always
                settings[f"{kind}.storage.partitions"] = partitions
        return settings

    @override
    def command(self) -> Sequence[str]:
        return java.command(
            self._jars,
            mark=self.mark,
            heap_mb=HEAP_MB,
            logging=self.folder / "log4j2.properties",
            main="org.apache.kafka.connect.cli.ConnectDistributed",
            arguments=[str(self.folder / "worker.properties")],
        )

    @property
    @override
    def environment(self) -> dict[str, str]:
        return java.environment()

    @override
    def ready(self) -> bool:
        try:
            # The health page answers 200 only when the worker has joined its group and read its topics.
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    @override
    def entry(self) -> dict[str, Any]:
        return {"url": self.url, "port": self.port}
