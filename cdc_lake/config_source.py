"""The sections `source` and `sources` of the configuration: databases that are captured, and topics of events."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field, model_validator

from cdc_lake.config_rules import Section
from cdc_lake.errors import ConfigError
from cdc_lake.events import TableId

# The schema of the tables that topics of events are read as.
EVENTS = "events"
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Source(Section):
    """A database that is captured, or, with `events`, topics of events. Without `dsn` it is the embedded PostgreSQL."""

    name: str = Field(
        default="pos", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="what the source is called in the lake"
    )
    connector: str | None = Field(
        default=None,
        description="the connector's JSON file; `connectors/<name>.json` when none is named, and for events none",
    )
    dsn: str | None = Field(
        default=None, description="PostgreSQL address of an administrator, for register and verify", repr=False
    )
    events: list[str] | dict[str, str] | None = Field(
        default=None,
        description="topics of CloudEvents, each read as the table `events.<last part of its name>`, or as the one "
        "that it is given: `[retail.scans]` or `{scans: retail.scans}`",
    )

    idle_seconds: float = Field(
        default=30,
        ge=0,
        description="of topics of events: when nothing has come for so long, that is written down, so that rules and "
        "streaming models know what time it is; 0: never",
    )

    @model_validator(mode="after")
    def _tables_differ(self) -> Source:
        names = self._named()
        if self.events is not None and not names:
            raise ValueError("`events` names no topic")
        for topic, _ in names:
            if not _TOPIC.fullmatch(topic):
                raise ValueError(f"{topic!r} is no name of a topic")
        for kind, listed in (("topic", [t for t, _ in names]), ("table", [n.lower() for _, n in names])):
            twice = next((one for one in listed if listed.count(one) > 1), None)
            if twice is not None:
                hint = "; name them: `events: {scans: retail.scans}`" if kind == "table" else ""
                raise ValueError(f"`events` has the {kind} {twice} twice{hint}")
        return self

    @property
    def captured(self) -> bool:
        """Whether it is a database: its topics hold changes of tables."""
        return self.events is None

    @property
    def event_tables(self) -> dict[str, TableId]:
        """The topics of events, each with the table that it is read as."""
        return {topic: TableId(EVENTS, name) for topic, name in self._named()}

    def _named(self) -> list[tuple[str, str]]:
        if isinstance(self.events, dict):
            return [(topic, name) for name, topic in self.events.items()]
        return [(topic, topic.rpartition(".")[2]) for topic in self.events or ()]


def refuse_twice(sources: Sequence[Source]) -> None:
    """Raise ConfigError when topics of two sources are read as one table."""
    names = [table.name.lower() for source in sources for table in source.event_tables.values()]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"`sources` has two topics of events that are read as events.{twice}.",
            why="Each table has one name, in whatever source its topic is.",
            next="name one of them otherwise: `events: {other_name: the.topic}`",
        )
