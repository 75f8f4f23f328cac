"""Wire the checks of the lake, the broker and the topics: the topics are judged beside what the lake holds of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cdc_lake.capture.columns import read_oids
from cdc_lake.checks import Check, Findings, Status, failed, ok
from cdc_lake.cli.doctor_area import Area
from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.consume import check_topics, open_broker
from cdc_lake.consume.broker import Broker
from cdc_lake.consume.topics import Topics, open_topics
from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.land import check_store
from cdc_lake.land.probe import probe, unsafe_switch
from cdc_lake.land.resume import resume_points
from cdc_lake.query.check_cut import check_cut
from cdc_lake.query.check_doubts import check_columns_told, check_source_tables
from cdc_lake.query.doubts import Doubts
from cdc_lake.query.overview import examine_sources
from cdc_lake.selection import selection_of

_GROUP = "cdc-lake-doctor"  # only asked with, never joined


@dataclass(frozen=True, slots=True)
class Kafka:
    """The sink's own client, and an administrator's."""

    broker: Broker
    topics: Topics


def check_lake_and_topics(area: Area) -> None:
    """The store, the tables of each source, the broker, the topics of each source, and the cut."""
    config = area.config
    root, options = config.lake_uri, config.lake.options or None
    findings = area.begin(f"the lake at {root}")
    tried = probe(root, config.all_sources[0].name, options)
    written = check_store.check_probe(root, tried, unsafe_switch(options, os.environ))
    findings.add([*written, check_store.check_disk(root, check_store.free_bytes(root))])
    landed = {source.name: _tables(area, source) for source in config.all_sources}
    waiting = _broker(area, landed)
    _shown(area, waiting)


def _tables(area: Area, source: Source) -> Sequence[check_store.TableFacts] | None:
    """The source's Delta tables, judged; None when they cannot be read."""
    config = area.config
    findings = area.begin(f"the tables of {source.name}", source.name)
    try:
        tables = check_store.read_tables(config.lake_uri, source.name, config.lake.options or None)
        checks = check_store.check_tables(tables)
        findings.add(checks)
        if any(c.status is Status.FAIL for c in checks):
            return None
        dead = check_store.count_dead_letters(config.lake_uri, source.name, config.lake.options or None)
        findings.add(check_store.check_dead_letters(dead))
    except CdcLakeError as error:
        findings.add(failed("lake.tables", error))
        return None
    return tables


def _broker(area: Area, landed: dict[str, Sequence[check_store.TableFacts] | None]) -> dict[str, int]:
    """The broker and each source's topics; how many records wait, by source where it is known."""
    config = area.config
    findings = area.begin("Kafka")
    if "kafka" in area.down:
        findings.skip(("broker", "topics", "sink"), "stack.kafka")
        return {}
    kafka = config.kafka
    options = kafka.options if kafka else {}
    try:
        broker = open_broker(kafka.client if kafka else "auto", config.bootstrap, group=_GROUP, options=options)
    except CdcLakeError as error:
        findings.add(failed("broker.reachable", error))
        findings.skip(("topics", "sink"), "broker.reachable")
        return {}
    findings.add(ok("broker.reachable", config.bootstrap))
    try:
        with open_topics(config.bootstrap, options) as topics:
            findings.add(check_topics.check_broker(topics.read([])))
            return _topics(area, Kafka(broker, topics), landed)
    except CdcLakeError as error:
        findings.add(failed("broker.version", error))
        findings.skip(("topics", "sink"), "broker.version")
        return {}
    finally:
        broker.close()


def _topics(area: Area, kafka: Kafka, landed: dict[str, Sequence[check_store.TableFacts] | None]) -> dict[str, int]:
    waiting: dict[str, int] = {}
    for source in area.config.all_sources:
        findings = area.begin(f"the topics of {source.name}", source.name)
        tables = landed[source.name]
        if tables is None:
            findings.skip(("topics", "sink"), "lake.tables")
            continue
        try:
            connector = load_connector(area.config.connector_file(source)) if source.captured else None
        except CdcLakeError:
            findings.skip(("topics", "sink"), "connector.file")
            continue
        checks, waiting[source.name] = _topics_of(area.config, source, connector, kafka, tables)
        findings.add(checks)
    return waiting


def _topics_of(
    config: Config,
    source: Source,
    connector: ConnectorFile | None,
    kafka: Kafka,
    tables: Sequence[check_store.TableFacts],
) -> tuple[list[Check], int]:
    """Judge the topics of one source; how many records wait."""
    infos = kafka.broker.partitions(selection_of(config, source).pattern)
    facts = kafka.topics.read({info.tp.topic for info in infos})
    positions, stopped = resume_points(
        config.lake_uri,
        source.name,
        [(info.tp, info.beginning, info.end, info.topic_id) for info in infos],
        transaction_topic=connector.transaction_topic if connector is not None else None,
        options=config.lake.options or None,
    )
    known = {topic for table in tables for topic in table.topics}
    landed = check_topics.Landed(positions, stopped, known, check_store.newest_age(tables))
    checks = [
        *(
            check_topics.check_event_topics(list(source.event_tables), infos, facts, landed)
            if connector is None
            else check_topics.check_topics(connector, infos, facts, landed)
        ),
        check_topics.check_retention(check_topics.measure(kafka.topics, infos, facts, landed), facts),
        check_topics.check_lag(infos, landed, flush_seconds=config.sink.flush_seconds),
    ]
    return checks, sum(check_topics.waiting_records(infos, landed).values())


def _shown(area: Area, waiting: dict[str, int]) -> None:
    """What readers see: the cut, and whether the tables show what the source shows."""
    findings = area.begin("what readers see")
    try:
        found = examine_sources(area.config)
    except CdcLakeError as error:
        findings.skip(["lake.cut", "lake.columns", "lake.sources"], error.message)
        return
    for name, one in found.items():
        _add_for(area, name, check_cut(one.cut, waiting_records=waiting.get(name)))
        _add_for(area, name, check_columns_told({str(t): d for t, d in one.doubts.items()}))
    for source in area.config.databases:
        if source.name in found:
            _source_tables(area, source, found[source.name].doubts)


def _source_tables(area: Area, source: Source, doubts: dict[TableId, Doubts]) -> None:
    findings = area.begin(f"the tables of {source.name} in the source", source.name)
    if "postgres" in area.down and not source.dsn:
        findings.skip(["lake.sources"], "stack.postgres")
        return
    try:
        numbers = read_oids(area.config.dsn(source), list(doubts))
    except CdcLakeError:
        findings.skip(["lake.sources"], "source.reachable")
        return
    present = {str(t): number for t, number in numbers.items()}
    captured = {str(t) for t in doubts if area.config.captures(t)}
    findings.add(check_source_tables({str(t): d for t, d in doubts.items()}, present, captured))


def _add_for(area: Area, source: str, check: Check) -> None:
    found = Findings(source)
    found.add(check)
    area.findings.append(found)
