"""What stands beside a running sink for those who watch it: numbers over HTTP, and looks at the source and the lake."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.cli import output
from cdc_lake.config import Config
from cdc_lake.connector_file import load_connector
from cdc_lake.errors import CdcLakeError
from cdc_lake.progress import Failure, Flushed, Observer, Progress

if TYPE_CHECKING:
    from cdc_lake.cli.witness import Witness
    from cdc_lake.serve.metrics import Numbers

log = logging.getLogger("cdc_lake.sink")
_SOURCE_SECONDS = 15.0


class Told:
    """Tells several observers, and writes each flush down in the log."""

    def __init__(self, source: str, *others: Observer) -> None:
        self._source, self._others = source, others

    def looped(self, progress: Progress) -> None:
        """Pass it on."""
        for other in self._others:
            other.looped(progress)

    def flushed(self, flush: Flushed) -> None:
        """One line per flush, then pass it on."""
        fields = {
            "source": self._source,
            "batch_id": flush.number,
            "events": flush.events,
            "dead_letters": flush.dead,
            "tables": len(flush.rows),
            "decode_seconds": round(flush.decode_seconds, 4),
            "commit_seconds": round(flush.commit_seconds, 4),
            **({"tx_id": flush.last_tx_id} if flush.last_tx_id is not None else {}),
        }
        log.info("flushed", extra={"fields": fields})
        for other in self._others:
            other.flushed(flush)

    def failed(self, failure: Failure) -> None:
        """Pass it on; the command says why it ends."""
        for other in self._others:
            other.failed(failure)


@contextmanager
def served(config: Config, address: str | None, witness: Witness) -> Iterator[Mapping[str, Observer]]:
    """An observer for the sink of each source, by its name, who tells the witness's own too; with an address, also HTTP
    while the context lasts.

    Raises ConfigError when the address cannot be had.
    """
    if address is None:
        yield {s.name: Told(s.name, *witness.observers(s.name)) for s in config.all_sources}
        return
    from cdc_lake.serve.http import Server
    from cdc_lake.serve.lake_state import LOOK_SECONDS, Looker
    from cdc_lake.serve.metrics import Numbers

    numbers = Numbers(config.sink.memory_mb)
    with ExitStack() as stack:
        server = stack.enter_context(Server(address, numbers))
        for look, seconds in (
            (partial(numbers.lake.look, status_command(output.config_option())), LOOK_SECONDS),
            (partial(look_at_source, config, numbers), _SOURCE_SECONDS),
        ):
            looker = Looker(look, seconds)
            stack.callback(looker.stop)
            looker.start()
        output.say(f"Metrics: http://{server.address}/metrics   health: /healthz   readiness: /readyz")
        log.info("serving", extra={"fields": {"address": server.address}})
        watching = {s.name: (numbers.watch(s.name), *witness.observers(s.name)) for s in config.all_sources}
        yield {name: Told(name, *others) for name, others in watching.items()}


def status_command(config: str | None) -> list[str]:
    """The command line that tells what only the lake knows."""
    named = ["--config", config] if config is not None else []
    return [sys.executable, "-m", "cdc_lake", *named, "--json", "status", "--lake"]


def look_at_source(config: Config, numbers: Numbers) -> None:
    """Ask Kafka Connect whether the connectors run: a check of /readyz."""
    from cdc_lake.serve.health import Check

    found = []
    try:
        with ConnectClient(config.connect_url, timeout=5.0) as client:
            for source in config.connected:
                name = load_connector(config.connector_file(source)).name
                status = client.find_status(name)
                if status is None:
                    found.append(f"Connect has no connector {name}")
                elif not status.running:
                    found.append(f"connector {name} is {'FAILED' if status.failure is not None else status.state}")
    except CdcLakeError as error:
        found.append(error.message)
    numbers.outside["source"] = Check("source", not found, "; ".join(found) or "the connectors run")
