"""How far rules and streaming models have read each table: what comes behind must stay in its log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cdc_lake.config import Config
from cdc_lake.events import TableId
from cdc_lake.query.merged import merge
from cdc_lake.query.placed import open_logs
from cdc_lake.react.places import Place
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.run import open_connection
from cdc_lake.react.standing import Standing
from cdc_lake.react.stream.beside import seen_at
from cdc_lake.react.stream.modelfile import load_model, model_files
from cdc_lake.react.stream.run import table_of
from cdc_lake.react.stream.shape import check as check_model
from cdc_lake.react.watch import check as check_rule


@dataclass(frozen=True, slots=True)
class Unread:
    """A rule or a model has read a table up to `position`; `first` is the command that brings it further."""

    source: str
    table: TableId
    position: int
    reader: str
    first: str


def find_unread(config: Config) -> Iterator[Unread]:
    """For each table of a rule or a model that has begun, how far it is. One without a file any more waits for nothing.

    Raises RuleError or ModelError for one that cannot be understood: nobody knows which tables it reads.
    """
    rules = load_rules(config.rules_folder)
    models = [load_model(file) for file in model_files(config.streams_folder)]
    if not rules and not models:
        return
    con = open_connection()
    try:
        logs = open_logs(con, config)
        for rule in rules:
            target = check_rule(con, rule, logs, config)
            for source, held in Standing.of(config, target).held.items():
                yield from _of(source, set(target.tables_of(source)), held, f"rule {rule.name}", "rules")
        for model in models:
            shape = check_model(con, model, logs)
            place, order, reader = (
                table_of(config, shape).place(),
                merge(con, logs, shape.sources),
                f"model {model.name}",
            )
            for source, position in order.frontier(place.position).items() if place is not None else ():
                yield from _of(source, shape.tables_of(source), Place(position, 0), reader, "stream")
            for alias, source in shape.beside.items():
                log = next(g for g in logs if g.source == shape.source)
                met = Place(seen_at(log, source, place.position), 0) if place is not None else None
                yield from _of(source, {shape.tables[alias]}, met, reader, "stream")
    finally:
        con.close()


def _of(source: str, tables: set[TableId], place: Place | None, reader: str, command: str) -> Iterator[Unread]:
    if place is not None:
        for table in tables:
            yield Unread(source, table, place.position, reader, f"cdc-lake {command} run --until-caught-up")
