"""What `status --watch` shows at one moment, and the reading of it: lake, Kafka, Connect, and sinks on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc_lake.config import DEFAULT_FILE, Config
from cdc_lake.errors import CdcLakeError

if TYPE_CHECKING:
    from cdc_lake.project.cache import Cache

_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class SinkProcess:
    """A `sink run` of this project on this machine."""

    pid: int
    memory_bytes: int
    since: float


@dataclass(frozen=True, slots=True)
class Moment:
    """All that the screen shows; what could not be had is in `troubles`, in words."""

    at: float
    tables: Sequence[dict[str, Any]] = ()
    rates: dict[str, float] = field(default_factory=dict)
    cuts: dict[str, dict[str, Any]] = field(default_factory=dict)
    connectors: Sequence[tuple[str, str]] = ()
    sinks: Sequence[SinkProcess] = ()
    troubles: Sequence[str] = ()


class Reader:
    """Reads moment after moment. It keeps the counts of the last one, for rates."""

    def __init__(self, config: Config, config_option: str | None) -> None:
        self._config = config
        self._file = Path(config_option or DEFAULT_FILE).absolute()
        self._counts: dict[str, int] = {}
        self._at = 0.0
        self._cache: Cache | None = None

    def read(self) -> Moment:
        """How it stands now. Never raises for a part that is away."""
        troubles: list[str] = []
        document = self._lake(troubles)
        connectors = connectors_of(self._config, troubles)
        now = time.time()
        tables = document.get("tables", [])
        cut = document.get("cut", {})
        cuts = {self._config.all_sources[0].name: cut} if "position" in cut else cut
        return Moment(
            now,
            tables,
            self._rates(tables, now),
            cuts,
            connectors,
            list(sinks_of(self._file)),
            tuple(dict.fromkeys(troubles)),
        )

    def _lake(self, troubles: list[str]) -> dict[str, Any]:
        from cdc_lake.cli.stack_status import kafka_ends
        from cdc_lake.project.cache import Cache
        from cdc_lake.query.overview import overview

        self._cache, ends = self._cache or Cache(), None
        try:
            ends = kafka_ends(self._config)
        except CdcLakeError as error:
            troubles.append(f"The lag is not known: {error.message}")
        try:
            return overview(self._config, ends, self._cache)
        except CdcLakeError as error:
            troubles.append(error.message)
            return {}

    def _rates(self, tables: Sequence[dict[str, Any]], now: float) -> dict[str, float]:
        counts = {row["table"]: row["rows_landed"] for row in tables}
        seconds = now - self._at
        rates = {t: max(0, n - self._counts[t]) / seconds for t, n in counts.items() if t in self._counts}
        if counts:
            self._counts, self._at = counts, now
        return rates


def connectors_of(config: Config, troubles: list[str]) -> list[tuple[str, str]]:
    """The connector of each source and its state; what could not be had is added to `troubles`."""
    from cdc_lake.capture.connect import ConnectClient
    from cdc_lake.connector_file import load_connector

    found = []
    try:
        with ConnectClient(config.connect_url, timeout=_PATIENCE_SECONDS) as client:
            for source in config.connected:
                name = load_connector(config.connector_file(source)).name
                status = client.find_status(name)
                state = "absent" if status is None else "FAILED" if status.failure is not None else status.state
                found.append((name, state))
    except CdcLakeError as error:
        troubles.append(error.message)
    return found


def sinks_of(file: Path) -> Iterator[SinkProcess]:
    """The running sinks of the project whose configuration is `file`."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline()
            if _runs_sink(words) and _config_of(words, Path(process.cwd())) == file:
                yield SinkProcess(process.pid, process.memory_info().rss, process.create_time())


def _runs_sink(words: Sequence[str]) -> bool:
    ours = any(Path(w).name in ("cdc-lake", "cdc_lake") for w in words[:5])
    return ours and "run" in words and words[words.index("run") - 1] == "sink"


def _config_of(words: Sequence[str], folder: Path) -> Path:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--config":
            return folder / following
        if word.startswith("--config="):
            return folder / word.partition("=")[2]
    return folder / DEFAULT_FILE
