"""A service as a process: `serve(service)` in a module's `__main__`.

SIGTERM or Ctrl-C once: the batch in hand is finished and committed, what it caused is sent and marked, then it ends. A
second one ends it now, which is safe too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from cdc_lake.consume.factory import open_broker
from cdc_lake.errors import EXIT_OK, CdcLakeError, ConfigError, lines
from cdc_lake.service.answers import Answering
from cdc_lake.service.held import Folder
from cdc_lake.service.http import Server
from cdc_lake.service.merge import Merge, Merging
from cdc_lake.service.outlet import KafkaOutlet
from cdc_lake.service.replay import Replay
from cdc_lake.service.run import History, Options, Runner
from cdc_lake.service.service import Service
from cdc_lake.trace.opened import tracing_of

log = logging.getLogger(__name__)
PARTITIONS = 6
_INSTANCES = 1_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How a process was started."""

    bootstrap: str
    kafka: dict[str, Any] = field(default_factory=dict)
    client: str = "auto"
    state: Path = Path(".services")
    listen: str = "127.0.0.1:0"
    peers: tuple[str, ...] = ()
    partitions: int = PARTITIONS
    options: Options = field(default_factory=Options)
    # Send its dead letters again, and end; `dry_run`: only count them.
    replay: bool = False
    dry_run: bool = False


def serve(service: Service, *, merges: Sequence[Merge] = (), arguments: Sequence[str] | None = None) -> int:
    """Run an instance until a signal stops it; the exit code. It takes part in the merges, too.

    With `--replay` in its arguments the process sends the service's dead letters again instead, and ends.
    """
    try:
        settings = read_settings(service, arguments)
        if settings.replay:
            replay(service, settings, told=_tell)
        else:
            run(service, merges, settings, told=_tell)
    except CdcLakeError as error:
        print(lines(error), file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def run(
    service: Service,
    merges: Sequence[Merge],
    settings: Settings,
    *,
    told: Callable[[dict[str, Any]], None],
    stop: threading.Event | None = None,
) -> None:
    """Run an instance until `stop`. `told` gets one document: where it answers."""
    stopping = stop or threading.Event()
    if stop is None:
        _heed_signals(stopping)
    outlet = KafkaOutlet(settings.bootstrap, settings.kafka)
    with (
        own_folder(settings.state / service.group) as folder,
        contextlib.closing(outlet),
        _traced(service, settings.options) as options,
    ):
        inputs = [topic for merge in merges for topic in (*merge.inputs, merge.into)]
        outlet.ensure({*service.topics, *inputs, *service.sends_to, service.letters}, settings.partitions)
        runner = Runner(service, _broker(settings, service.group), outlet, folder, options)
        with _merging(merges, settings, stopping), Server(settings.listen, Answering(runner, settings.peers)) as server:
            runner.start()
            told(
                {"service": service.group, "url": server.url, "state": str(folder.own), "sends": settings.options.sends}
            )
            try:
                while not stopping.is_set():
                    runner.step()
            finally:
                runner.close()


def replay(service: Service, settings: Settings, *, told: Callable[[dict[str, Any]], None]) -> None:
    """Send the dead letters again that are there now. `told` gets one document: how many, by topic."""
    with contextlib.closing(KafkaOutlet(settings.bootstrap, settings.kafka)) as outlet:
        outlet.ensure({service.letters}, settings.partitions)
        broker = _broker(settings, Replay.group(service.letters))
        with contextlib.closing(broker):
            work = Replay(service.letters, broker, outlet, settings.dry_run)
            work.run()
    told({"service": service.group, "replayed": dict(work.sent), "dry_run": settings.dry_run})


@contextlib.contextmanager
def own_folder(base: Path) -> Iterator[Folder]:
    """A folder for this instance alone: the first that no other holds, so that a new one goes on from an old state."""
    for number in range(_INSTANCES):
        own = base / str(number)
        own.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (own / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        with lock:
            yield Folder(own, base / "copies")
        return
    raise ConfigError(f"Every folder below {base} is held.", why=f"{_INSTANCES} instances run.", next="--state FOLDER")


@contextlib.contextmanager
def _traced(service: Service, options: Options) -> Iterator[Options]:
    """`options` with somebody who is told of what is handled, where the environment asks for traces."""
    with tracing_of(log.warning, service.group) as tracing:
        if tracing is None:
            yield options
            return
        from cdc_lake.service.spans import ServiceSpans

        yield replace(options, told=ServiceSpans(tracing, service.group).handled)


@contextlib.contextmanager
def _merging(merges: Sequence[Merge], settings: Settings, stopping: threading.Event) -> Iterator[None]:
    """A member of each merge on a thread of its own; when one fails, the process ends."""
    failed: list[CdcLakeError] = []

    def work(merge: Merge) -> None:
        try:
            with contextlib.closing(KafkaOutlet(settings.bootstrap, settings.kafka)) as outlet:
                member = Merging(merge, _broker(settings, merge.group), outlet)
                member.start()
                try:
                    while not stopping.is_set():
                        member.step()
                finally:
                    member.close()
        except CdcLakeError as error:
            failed.append(error)
            stopping.set()

    threads = [threading.Thread(target=work, args=(merge,), name=merge.group) for merge in merges]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


def _broker(settings: Settings, group: str) -> Any:
    return open_broker(settings.client, settings.bootstrap, group=group, options=settings.kafka)


def read_settings(service: Service, arguments: Sequence[str] | None = None) -> Settings:
    """The command line of a service. Raises ConfigError; `--help` and slips end in argparse's own words."""
    parser = argparse.ArgumentParser(description=f"The service {service.name}, version {service.version}.")
    parser.add_argument("--config", type=Path, help="take `kafka` from this cdc-lake.yaml")
    parser.add_argument("--bootstrap", help="Kafka, in place of the configuration's")
    parser.add_argument("--state", type=Path, default=Path(".services"), help="where states and copies of them lie")
    parser.add_argument("--listen", default="127.0.0.1:0", help="where it answers; port 0: any (default: %(default)s)")
    parser.add_argument("--peer", action="append", default=[], metavar="URL", help="another instance; may be repeated")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of topics that it makes (%(default)s)")
    parser.add_argument("--no-send", action="store_true", help="follow only: an earlier version sends")
    parser.add_argument("--send-from-now", action="store_true", help="at its first start: send nothing for the past")
    parser.add_argument(
        "--fill-from-lake", action="store_true", help="what Kafka has no more, from the lake of --config"
    )
    parser.add_argument("--replay", action="store_true", help="send its dead letters again, and end")
    parser.add_argument("--dry-run", action="store_true", help="with --replay: only count them")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(arguments)
    if given.dry_run and not given.replay:
        parser.error("--dry-run goes with --replay")
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING)
    bootstrap, client, kafka = _kafka(given)
    options = Options(sends=not given.no_send, sends_from_now=given.send_from_now, history=_history(given))
    return Settings(
        bootstrap,
        kafka,
        client,
        given.state,
        given.listen,
        tuple(given.peer),
        given.partitions,
        options,
        given.replay,
        given.dry_run,
    )


def _history(given: argparse.Namespace) -> History | None:
    if not given.fill_from_lake:
        return None
    from cdc_lake.config import load_config
    from cdc_lake.service.lake import LakeHistory

    return LakeHistory(load_config(given.config or Path("cdc-lake.yaml")))


def _kafka(given: argparse.Namespace) -> tuple[str, str, dict[str, Any]]:
    if given.config is None and given.bootstrap:
        return given.bootstrap, "auto", {}
    from cdc_lake.config import load_config

    config = load_config(given.config or Path("cdc-lake.yaml"))
    if config.kafka is None and not given.bootstrap:
        raise ConfigError(
            "There is no address of Kafka.", why="The configuration has no `kafka`.", next="--bootstrap HOST:PORT"
        )
    if config.kafka is None:
        return given.bootstrap, "auto", {}
    return given.bootstrap or config.kafka.bootstrap, config.kafka.client, dict(config.kafka.options)


def _heed_signals(stopping: threading.Event) -> None:
    def heed(number: int, _frame: object) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)  # a second one ends it now

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heed)


def _tell(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)
