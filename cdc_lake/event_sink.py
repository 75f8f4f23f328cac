"""The sink of a source of events: the same loop, with CloudEvents for records and batches for transactions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.consume.broker import CONNECTED, Broker, PartitionInfo
from cdc_lake.decode.cloudevents import EventDecoder
from cdc_lake.decode.fields import Fields
from cdc_lake.decode.records import Decoded
from cdc_lake.decode.repeats import REMEMBERED
from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.events import RecordBatch, TableId
from cdc_lake.land.batches import Batches
from cdc_lake.land.dead_letters import Letter
from cdc_lake.land.landing import Landing, Round
from cdc_lake.land.layout import open_delta, schemas_path
from cdc_lake.land.reading import read_rows
from cdc_lake.land.versions import version_rows
from cdc_lake.pipeline import Sink
from cdc_lake.selection import EventSelection


def build_event_sink(
    config: Config,
    source: Source,
    broker: Broker,
    *,
    tables: str | None = None,
    accept_gap: str | None = None,
    worker: Executor | None = None,
) -> Sink:
    """The sink of a source of events, which reads from `broker`."""
    options = config.lake.options or None
    batches = Batches(config.lake_uri, source.name, _beside(config), options)
    landing = Landing(
        config.lake_uri, source.name, transaction_topic=None, options=options, pool=worker, batches=batches
    )
    decoder = EventDecoder(
        source.event_tables,
        known=known_fields(config, source),
        landed=lambda topic: landing.last_keys(topic, REMEMBERED),
        joined_bytes=config.budget.joined,
    )
    sink = EventSink(
        config,
        ConnectorFile(source.name, {}),
        broker,
        landing,
        accept_gaps=accept_gap,
        worker=worker,
        decoder=decoder,
        selection=EventSelection(config, source, tables),
    )
    sink.idle_seconds = source.idle_seconds
    return sink


class EventSink(Sink):
    """Lands events, and says when none came: a source that falls silent holds up nobody who waits for its time.

    A batch without events is ended when all that Kafka has of the source has landed, whoever landed it, and then says
    so of the time `idle_seconds` before: what was sent earlier has had so long to arrive.
    """

    idle_seconds: float = 0.0
    _told: float | None = None

    def _step(self) -> None:
        super()._step()
        now, busy = time.monotonic(), self._flush is not None or self._ahead is not None or self._buffer.batches
        if not self.idle_seconds or busy or not self._landing.tables:  # nobody follows what was never there
            return
        self._told = now if self._told is None else self._told
        last = max(self._told, self.progress.last_commit or 0.0)
        if now - last < self.idle_seconds or self._broker.state != CONNECTED:
            return
        self._told, asked = now, datetime.now(UTC)
        try:
            partitions = self._broker.partitions(self.pattern)
        except UnavailableError:  # polling says so, and waits for it
            return
        if all(self._has(info) for info in partitions):
            self._landing.beat(asked - timedelta(seconds=self.idle_seconds))

    def _has(self, info: PartitionInfo) -> bool:
        mine = self._positions.get(info.tp) if info.tp in self._held else self._landing.position(info.tp)
        return info.end <= max(mine or 0, info.beginning)


@dataclass(slots=True)
class EventLetters:
    """Puts dead letters of a source of events back: each is a batch that bears the letter's name, so that it ends once
    however often it is replayed."""

    config: Config
    source: Source
    _landing: Landing | None = None
    _decoder: EventDecoder | None = None

    def decode(self, letter: Letter, batch: RecordBatch) -> Decoded:
        """Decode one letter's record: the same each time."""
        if self._decoder is None:
            self._decoder = EventDecoder(
                self.source.event_tables,
                known=known_fields(self.config, self.source),
                landed=lambda topic: self._log.last_keys(topic, REMEMBERED),
                threads=1,
            )
        return self._decoder.decode([batch], name=f"letter:{letter.id}")

    def end(self, decoded: Decoded) -> None:
        """Write down the fields of what was put back, and end its batch; a second time, nothing happens."""
        rows = version_rows(self._log.schema_log().fresh(decoded.schemas), {})
        self._log.commit(Round(spans=(), schemas=rows, transactions=decoded.transactions))

    @property
    def _log(self) -> Landing:
        if self._landing is None:
            options = self.config.lake.options or None
            batches = Batches(self.config.lake_uri, self.source.name, _beside(self.config), options)
            self._landing = Landing(
                self.config.lake_uri, self.source.name, transaction_topic=None, options=options, batches=batches
            )
        return self._landing

    def close(self) -> None:
        """Release what it holds."""
        if self._landing is not None:
            self._landing.close()


def known_fields(config: Config, source: Source) -> Mapping[TableId, Fields]:
    """The fields that were seen of each table's events. Raises LakeError when they cannot be read."""
    table = open_delta(schemas_path(config.lake_uri, source.name), config.lake.options or None)
    found: dict[TableId, Fields] = {}
    if table is None:
        return found
    rows = read_rows(table, ["schema", "table", "kind", "definition", "recorded_at"]).sort_by("recorded_at")
    for row in rows.to_pylist():
        if row["kind"] == "events":
            name = TableId(row["schema"], row["table"])
            found[name] = found.get(name, Fields()).merged(Fields.of(row["definition"]).kinds)
    return found


def _beside(config: Config) -> dict[str, str]:
    """The databases whose transactions have an order, each with the topic of its transactions."""
    found = {}
    for source in config.databases:
        try:
            topic = load_connector(config.connector_file(source)).transaction_topic
        except CdcLakeError:
            continue  # its own sink says what is wrong
        if topic is not None:
            found[source.name] = topic
    return found
