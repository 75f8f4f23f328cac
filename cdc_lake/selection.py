"""Which topics and tables a sink reads: those of its source that the configuration captures and `--tables` names."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from cdc_lake.config import Config
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.events import TableId


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a source that one sink lands. Without `glob` it is all that the configuration captures."""

    config: Config
    connector: ConnectorFile
    glob: str | None = None

    @property
    def pattern(self) -> str:
        """The topics of this source: those with its prefix, but for messages that belong to no table."""
        prefix = re.escape(self.connector.topic_prefix + self.connector.delimiter)
        return f"{prefix}(?!message$).+"

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
