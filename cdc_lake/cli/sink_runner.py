"""Wire one sink per configured source to signals, a progress line and those who watch."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import FrameType

from cdc_lake import logs, tuning
from cdc_lake.budget import PROCESS_BYTES, least_mb
from cdc_lake.capture.catalogue import catalogue_entries, read_catalogue
from cdc_lake.capture.columns import read_columns
from cdc_lake.checks import Status
from cdc_lake.cli import output
from cdc_lake.cli.caretaker import Caretaker, maintain_command
from cdc_lake.cli.sink_line import Line
from cdc_lake.cli.sink_watch import served
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.consume import open_broker
from cdc_lake.consume.broker import Broker
from cdc_lake.errors import EXIT_INTERRUPTED, CdcLakeError, LakeError
from cdc_lake.event_sink import build_event_sink
from cdc_lake.events import TableId
from cdc_lake.land.check_store import check_probe
from cdc_lake.land.landing import Landing
from cdc_lake.land.probe import probe, unsafe_switch
from cdc_lake.pipeline import Sink
from cdc_lake.progress import Progress


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line and the configuration ask of one run."""

    tables: str | None = None
    accept_gap: str | None = None
    metrics: str | None = None
    log_json: bool = False


def run_sinks(config: Config, *, until_caught_up: bool, choice: Choice) -> tuple[bool, list[Progress]]:
    """Run the sinks of all sources; whether Ctrl-C ended them, and what each did.

    Raises the first error that ended one of them; the others finish and commit first.
    """
    logs.configure(config, as_json=choice.log_json, debug=output.verbosity() >= 2)
    if choice.log_json:
        output.log_words()
    tuning.for_landing(config.budget.kept * len(config.all_sources))
    _tell_least_memory(config)
    require_safe_store(config)
    sinks = [
        build_sink(config, source, tables=choice.tables, accept_gap=choice.accept_gap) for source in config.all_sources
    ]
    stopper = _Stopper(sinks)
    stopper.install()
    # One that ends by itself is run by a timer, and so is the maintenance of its lake.
    keeps = config.sink.maintain and not until_caught_up
    with (
        witnessed(config) as witness,
        served(config, choice.metrics, witness) as observers,
        _caretaker(config, sinks) if keeps else nullcontext(),
    ):
        line = Line([sink.progress for sink in sinks], as_json=choice.log_json)

        def run(sink: Sink, source: Source) -> None:
            with witness.sink(source.name):
                sink.run(until_caught_up=until_caught_up, on_progress=line.look, observer=observers[source.name])

        errors = _side_by_side([partial(run, *pair) for pair in zip(sinks, config.all_sources, strict=True)], stopper)
    if errors:
        raise errors[0]
    return stopper.interrupted, [sink.progress for sink in sinks]


def _tell_least_memory(config: Config) -> None:
    least = least_mb(len(config.all_sources))
    if config.sink.memory_mb < least:
        output.say(
            f"sink.memory_mb: {config.sink.memory_mb:g} cannot be kept to: without any record the libraries take "
            f"{PROCESS_BYTES // 1_000_000} MB. The least that can is {least}."
        )


def _side_by_side(runs: Sequence[Callable[[], None]], stopper: _Stopper) -> list[Exception]:
    """Run all, the first on this thread, until each has ended; the errors, of which the first one ends the others."""
    errors: list[Exception] = []

    def one(run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            errors.append(error)
            stopper.stop_all()

    threads = [threading.Thread(target=one, args=(run,), name="sink") for run in runs[1:]]
    for thread in threads:
        thread.start()
    one(runs[0])
    for thread in threads:
        thread.join()
    return errors


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
    if not source.captured:
        return build_event_sink(config, source, _open(config, source, tables), tables=tables, accept_gap=accept_gap)
    connector = load_connector(config.connector_file(source))
    landing = Landing(
        config.lake_uri, source.name, transaction_topic=connector.transaction_topic, options=config.lake.options or None
    )
    return Sink(
        config,
        connector,
        _open(config, source, tables),
        landing,
        tables=tables,
        accept_gaps=accept_gap,
        catalogue=lambda: _catalogue(config, source, connector),
        columns=lambda tables: _columns(config, source, tables),
    )


def _open(config: Config, source: Source, tables: str | None) -> Broker:
    kafka = config.kafka
    # A sink of some tables is a group of its own: it must not be given partitions that it will not read.
    group = f"cdc-lake-{source.name}" + (f"-{tables}" if tables else "")
    return open_broker(
        kafka.client if kafka else "auto",
        config.bootstrap,
        group=group,
        options=kafka.options if kafka else {},
        budget=config.budget,
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
