"""A whole project for a test against real parts: its own database, connector and lake, driven by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.config import load_config

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a `cdc-lake.yaml` and a connector of its own on the shared stack."""

    folder: Path
    name: str
    dsn: str
    bootstrap: str

    def run(
        self, *arguments: str, env: dict[str, str] | None = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; after `timeout` seconds it is killed, and what its threads were at is shown."""
        with subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "cdc_lake", *arguments],
            cwd=self.folder,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, words = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                out, words = process.communicate(timeout=30)
                raise AssertionError(f"{arguments} did not end within {timeout:.0f} s:\n{out}\n{words}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, words)

    def ok(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run one command that must succeed; its stdout."""
        done = self.run(*arguments, env=env)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(
        self, *arguments: str, env: dict[str, str] | None = None, log_file: str = "commands.log"
    ) -> subprocess.Popen[bytes]:
        """Start a command in the background; its words go to a log file beside the config."""
        with (self.folder / log_file).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cdc_lake", *arguments],
                cwd=self.folder,
                env={**os.environ, **(env or {})},
                stdout=log,
                stderr=log,
            )

    def log(self, log_file: str = "commands.log") -> str:
        """What the background commands said."""
        return (self.folder / log_file).read_text()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query on the lake."""
        found: list[dict[str, Any]] = json.loads(self.ok("query", sql, "--format", "json"))
        return found

    def verify(self) -> dict[str, Any]:
        """The report of `verify`."""
        report: dict[str, Any] = json.loads(self.run("--json", "verify").stdout)
        return report

    def register(self) -> None:
        """Register the project's connector."""
        self.ok("connector", "register", f"connectors/{self.name}.json")

    def lake(self) -> tuple[str, dict[str, str] | None]:
        """Where its lake is, and the options to open it."""
        config = load_config(self.folder / "cdc-lake.yaml")
        return config.lake_uri, config.lake.options or None

    def coordinates_in_kafka(self) -> set[tuple[str, int, int]]:
        """Topic, partition and offset of every record of the project's topics."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, enable_auto_commit=False, isolation_level="read_committed"
        )
        try:
            topics = [t for t in consumer.topics() if t.startswith(f"{self.name}.")]
            partitions = [TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            found: set[tuple[str, int, int]] = set()
            while any(consumer.position(tp) < ends[tp] for tp in partitions):
                for tp, records in consumer.poll(timeout_ms=1000, max_records=10_000).items():
                    found.update((tp.topic, tp.partition, r.offset) for r in records if r.offset < ends[tp])
            return found
        finally:
            consumer.close()


@contextmanager
def make_project(
    folder: Path, dsn: str, bootstrap: str, connect_url: str, settings: dict[str, str] | None = None
) -> Iterator[Project]:
    """A project on an empty database; its connector and topics are removed at the end."""
    name = f"p{uuid.uuid4().hex[:10]}"
    connector = json.loads((ROOT / "connectors" / "pos.json").read_text())
    connector["name"] = name
    connector["config"] |= {"topic.prefix": name, "slot.name": name, "publication.name": name, **(settings or {})}
    (folder / "connectors").mkdir(parents=True)
    (folder / "connectors" / f"{name}.json").write_text(json.dumps(connector))
    (folder / "cdc-lake.yaml").write_text(
        f"""source: {{name: {name}, connector: connectors/{name}.json, dsn: "{dsn}"}}
kafka: {{bootstrap: "{bootstrap}"}}
connect: {{url: "{connect_url}"}}
sink: {{flush_seconds: 0.5}}
"""
    )
    project = Project(folder, name, dsn, bootstrap)
    try:
        yield project
    finally:
        with ConnectClient(connect_url) as client:
            if client.find_status(name) is not None:
                client.delete(name)
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        topics = [t for t in admin.list_topics() if name in t]
        if topics:
            admin.delete_topics(topics)
        admin.close()
