"""Which topics and tables a sink reads: those of its source that the configuration captures and `--tables` names."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Protocol

from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.events import TableId


class Selects(Protocol):
    """The topics and tables that one sink lands."""

    @property
    def pattern(self) -> str:
        """The topics to subscribe to, as a regular expression."""

    def topic(self, topic: str) -> bool:
        """Whether this sink reads a topic."""

    def table(self, table: TableId) -> bool:
        """Whether this sink lands rows of a table."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a source that one sink lands. Without `glob` it is all that the configuration captures."""

    config: Config
    connector: ConnectorFile
    glob: str | None = None

    @property
    def pattern(self) -> str:
        """The topics of this source: those with its prefix, but for messages that belong to no table."""
        prefix = self.connector.topic_prefix + self.connector.delimiter
        # Topics of events may begin so too.
        events = [
            t.removeprefix(prefix) for s in self.config.all_sources for t in s.event_tables if t.startswith(prefix)
        ]
        others = "|".join(re.escape(name) for name in ("message", *events))
        return f"{re.escape(prefix)}(?!(?:{others})$).+"

    def topic(self, topic: str) -> bool:
        """Whether this sink reads a topic."""
        if self.glob is None or topic == self.connector.transaction_topic:
            return True
        # A topic has the sanitised name of its table: Debezium replaces what Kafka does not allow.
        name = topic.removeprefix(self.connector.topic_prefix + self.connector.delimiter)
        return fnmatch.fnmatchcase(name, re.sub(r"[^A-Za-z0-9._*?\[\]!-]", "_", self.glob))

    def table(self, table: TableId) -> bool:
        """Whether this sink lands rows of a table."""
        if self.glob is not None and not fnmatch.fnmatchcase(str(table), self.glob):
            return False
        return table.schema == "cdc_lake" or self.config.captures(table)


@dataclass(frozen=True, slots=True)
class EventSelection:
    """The topics of a source of events that one sink lands."""

    config: Config
    source: Source
    glob: str | None = None

    @property
    def pattern(self) -> str:
        """The topics."""
        return "|".join(re.escape(topic) for topic in self.source.event_tables)

    def topic(self, topic: str) -> bool:
        """Whether this sink reads a topic."""
        table = self.source.event_tables.get(topic)
        return table is not None and (self.glob is None or fnmatch.fnmatchcase(str(table), self.glob))

    def table(self, table: TableId) -> bool:
        """Whether this sink lands events of a table."""
        return self.config.captures(table)


def selection_of(config: Config, source: Source, glob: str | None = None) -> Selects:
    """What the sink of a source lands. Raises ConfigError for a wrong connector file."""
    if not source.captured:
        return EventSelection(config, source, glob)
    return Selection(config, load_connector(config.connector_file(source)), glob)
