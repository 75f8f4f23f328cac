"""Wire one sink per configured source to signals and a progress line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import FrameType

from cdc_lake import tuning
from cdc_lake.capture.catalogue import catalogue_entries, read_catalogue
from cdc_lake.capture.columns import read_columns
from cdc_lake.checks import Status
from cdc_lake.cli import output
from cdc_lake.cli.caretaker import Caretaker, maintain_command
from cdc_lake.config import Config, Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.consume import open_broker
from cdc_lake.errors import EXIT_INTERRUPTED, CdcLakeError, LakeError
from cdc_lake.events import TableId
from cdc_lake.land.check_store import check_probe
from cdc_lake.land.landing import Landing
from cdc_lake.land.probe import probe, unsafe_switch
from cdc_lake.pipeline import Progress, Sink

_LINE_SECONDS_TERMINAL = 0.5
_LINE_SECONDS_PIPE = 10.0


def run_sinks(
    config: Config, *, until_caught_up: bool, tables: str | None, accept_gap: str | None
) -> tuple[bool, list[Progress]]:
    """Run the sinks of all sources; whether Ctrl-C ended them, and what each did.

    Raises the first error that ended one of them; the others finish and commit first.
    """
    logging.basicConfig(level=logging.DEBUG if output.verbosity() >= 2 else logging.WARNING, stream=sys.stderr)
    for client in ("kafka", "librdkafka"):
        # A broker that is away makes them write a line for each attempt; our state and errors say it once, in words.
        logging.getLogger(client).setLevel(logging.DEBUG if output.verbosity() >= 2 else logging.CRITICAL)
    tuning.for_landing()
    require_safe_store(config)
    sinks = [build_sink(config, source, tables=tables, accept_gap=accept_gap) for source in config.all_sources]
    stopper = _Stopper(sinks)
    stopper.install()
    line = _Line()
    errors: list[Exception] = []

    def one(sink: Sink) -> None:
        try:
            sink.run(until_caught_up=until_caught_up, on_progress=line.show)
        except Exception as error:
            errors.append(error)
            stopper.stop_all()

    threads = [threading.Thread(target=one, args=(sink,), name="sink") for sink in sinks[1:]]
    # One that ends by itself is run by a timer, and so is the maintenance of its lake.
    keeps = config.sink.maintain and not until_caught_up
    with _caretaker(config, sinks) if keeps else nullcontext():
        for thread in threads:
            thread.start()
        one(sinks[0])
        for thread in threads:
            thread.join()
    line.end()
    if errors:
        raise errors[0]
    return stopper.interrupted, [sink.progress for sink in sinks]


def _caretaker(config: Config, sinks: Sequence[Sink]) -> Caretaker:
    command = maintain_command(output.config_option(), config.sink.memory_mb)
    return Caretaker(lambda: sum(sink.progress.commits for sink in sinks), command)


def require_safe_store(config: Config) -> None:
    """Refuse a store where one commit may overwrite another: landing each change once stands on that it cannot.

    A store that cannot be written at all is left to the first commit, which says so. Raises LakeError, unless the
    configuration insists with `lake.single_writer`.
    """
    if config.lake.single_writer:
        return
    options = config.lake.options or None
    found = probe(config.lake_uri, config.all_sources[0].name, options)
    if found.error:
        return
    for check in check_probe(config.lake_uri, found, unsafe_switch(options, os.environ)):
        if check.status is Status.FAIL:
            raise LakeError(
                f"The lake's store is not fit for a sink: {check.found}.",
                why=check.why,
                next=f"{check.fix}; or answer for one writer at a time: `lake: {{single_writer: true}}`",
                code="store_overwrites",
            )


def build_sink(config: Config, source: Source, *, tables: str | None = None, accept_gap: str | None = None) -> Sink:
    """The sink of one source, connected to its broker.

    Raises ConfigError for a wrong connector file, UnavailableError when the broker does not answer.
    """
    connector = load_connector(config.connector_file(source))
    kafka = config.kafka
    # A sink of some tables is a group of its own: it must not be given partitions that it will not read.
    group = f"cdc-lake-{source.name}" + (f"-{tables}" if tables else "")
    broker = open_broker(
        kafka.client if kafka else "auto", config.bootstrap, group=group, options=kafka.options if kafka else {}
    )
    landing = Landing(
        config.lake_uri, source.name, transaction_topic=connector.transaction_topic, options=config.lake.options or None
    )
    return Sink(
        config,
        connector,
        broker,
        landing,
        tables=tables,
        accept_gaps=accept_gap,
        catalogue=lambda: _catalogue(config, source, connector),
        columns=lambda tables: _columns(config, source, tables),
    )


def _catalogue(config: Config, source: Source, connector: ConnectorFile) -> Mapping[TableId, str]:
    """The source's catalogue, for topics without schemas; empty when the source cannot be asked."""
    try:
        return catalogue_entries(read_catalogue(config.dsn(source), None))
    except CdcLakeError as error:
        output.say(f"Types of {connector.name} are inferred from the data: {error.message}")
        return {}


def _columns(config: Config, source: Source, tables: Sequence[TableId]) -> Mapping[TableId, str]:
    """What the source says of the columns of tables with a new shape; empty when it cannot be asked."""
    try:
        return read_columns(config.dsn(source), tables)
    except CdcLakeError as error:
        listed = ", ".join(map(str, tables))
        output.say(f"What older rows of {listed} show in columns that are new to them is not known: {error.message}")
        return {}


class _Stopper:
    """Turns signals into an orderly end: the first one finishes and commits, the second one stops at once."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks
        self.interrupted = False
        self._asked = False

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)
            signal.signal(signal.SIGTERM, self._handle)

    def stop_all(self) -> None:
        for sink in self._sinks:
            sink.stop()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else 1)
        self._asked = True
        self.interrupted = number == signal.SIGINT
        self.stop_all()


class _Line:
    """One calm line: rewritten in place on a terminal, every ten seconds when it changed elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty() and output.verbosity() >= 0
        self._next = 0.0
        self._events = 0
        self._since = time.monotonic()
        self._shown = ""

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next or output.verbosity() < 0:
            return
        rate = (progress.events - self._events) / max(now - self._since, 1e-3)
        self._events, self._since = progress.events, now
        text = describe(progress, rate)
        self._next = now + (_LINE_SECONDS_TERMINAL if self._terminal else _LINE_SECONDS_PIPE)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        elif text != self._shown:
            output.say(text)
        self._shown = text

    def end(self) -> None:
        if self._terminal and self._shown:
            sys.stderr.write("\n")


def describe(progress: Progress, rate: float) -> str:
    """The progress line's text: tables, events, events/s, lag, last commit, what stands still."""
    parts = [f"{len(progress.tables)} tables", f"{progress.events:,} events", f"{rate:,.0f}/s"]
    if progress.lag is not None:
        parts.append(f"lag {progress.lag:,}")
    if progress.last_commit is not None:
        parts.append(f"last commit {time.monotonic() - progress.last_commit:.1f} s ago")
    if progress.dead:
        parts.append(f"{progress.dead:,} dead letters")
    if progress.stopped:
        parts.append(f"{len(progress.stopped)} partitions stopped")
    if progress.waiting:
        parts.append(progress.waiting)
    return " · ".join(parts)
