"""What `status` shows of the lake: sources, tables with their lag behind Kafka, the cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdc_lake.checks import many
from cdc_lake.cli import output
from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError

_GROUP = "cdc-lake-status"  # only asked with, never joined


def lake(config: Config, *, broker_runs: bool) -> dict[str, Any]:
    """`{"sources", "tables", "cut"}`; lags are None where Kafka does not answer, and it is said why.

    Raises LakeError when a table of the lake cannot be read.
    """
    from cdc_lake.query.overview import overview

    ends, trouble = None, None
    if broker_runs:
        try:
            ends = kafka_ends(config)
        except CdcLakeError as error:
            trouble = error
    document = overview(config, ends)
    if trouble is not None and document["tables"]:
        output.say(f"The lag is not known: {trouble.message} {trouble.why}".rstrip())
    return document


def kafka_ends(config: Config) -> dict[tuple[str, int], int]:
    """Kafka's end offsets of all topics of all sources; CdcLakeError when they cannot be had."""
    from cdc_lake.consume import open_broker
    from cdc_lake.selection import selection_of

    kafka = config.kafka
    selections = [selection_of(config, source) for source in config.all_sources]
    broker = open_broker(
        kafka.client if kafka else "auto", config.bootstrap, group=_GROUP, options=kafka.options if kafka else {}
    )
    try:
        found = [info for selection in selections for info in broker.partitions(selection.pattern)]
        return {(info.tp.topic, info.tp.partition): info.end for info in found}
    finally:
        broker.close()


def embedded_parts(config: Config) -> list[str]:
    """The parts of the embedded stack that the configuration uses."""
    named = {
        "postgres": all(source.dsn for source in config.connected),
        "kafka": config.kafka is not None,
        "connect": config.connect is not None,
    }
    return [part for part, elsewhere in named.items() if not elsewhere]


def stack_lines(config: Config, parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line on the parts of the embedded stack that are needed and do not run, with what starts them."""
    if config.kafka is not None and config.connect is not None:  # a source is always somewhere, named or not
        return []
    away = [f"{name} is {parts[name]['state']}" for name in embedded_parts(config) if parts[name]["state"] != "running"]
    if not away:
        return []
    return [f"The embedded {', '.join(away)}: nothing new lands, and nothing is lost. Next: cdc-lake up"]


def connector_lines(config: Config) -> list[str]:
    """A line for each connector that captures nothing, with what to do; nothing where all run."""
    from cdc_lake.cli.watch_state import connectors_of

    troubles: list[str] = []
    states = connectors_of(config, troubles)
    lines = [f"The connectors are not known: {trouble} Next: cdc-lake doctor" for trouble in troubles]
    for source, (name, state) in zip(config.connected, states, strict=False):
        if state == "absent":
            file = config.connector_file(source)
            shown = file.relative_to(config.root) if file.is_relative_to(config.root) else file
            lines.append(f"No connector {name} is registered. Next: cdc-lake connector register {shown}")
        elif state == "FAILED":
            lines.append(f"The connector {name} has failed. Next: cdc-lake connector status {name}")
        elif state in ("PAUSED", "STOPPED"):
            lines.append(f"The connector {name} is {state.lower()}. Next: cdc-lake connector resume {name}")
    return lines


def show(document: dict[str, Any], troubles: Sequence[str] = ()) -> None:
    """The tables and the cut for a person, and the `troubles` of what brings changes here."""
    tables = document["tables"]
    if not tables:
        output.say("No table has landed yet." + ("" if troubles else " Next: cdc-lake sink run"))
        for line in troubles:
            output.say(line)
        return
    columns = ("table", "rows_landed", "lag_records", "lag_seconds")
    output.table(columns, [[_rounded(row[column]) for column in columns] for row in tables])
    for line in (*_cut_lines(document["cut"]), *troubles):
        output.say(line)
    for row in tables:
        if row["error"]:
            output.say(f"{row['table']}: {row['error']} Next: cdc-lake doctor")
    dead = sum(source["dead_letters"] for source in document["sources"])
    if dead:
        output.say(f"{many(dead, 'dead letter')} to decide on. Next: cdc-lake dlq list")


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value


def _cut_lines(cut: dict[str, Any]) -> list[str]:
    if "position" not in cut:  # several sources: one cut each
        return [f"{source}: {line}" for source, one in cut.items() for line in _cut_lines(one)]
    if cut["tx_id"] is None:
        lines = ["readers see: nothing of the stream yet"] if not cut["waits_for"] else []
    else:
        lines = [f"readers see: up to transaction {cut['tx_id']} ({cut['source_ts']})"]
    return lines + [
        f"the cut waits for transaction {w['tx_id']}: {w['missing']} of {w['expected']} events of {w['table']}"
        for w in cut["waits_for"]
    ]
