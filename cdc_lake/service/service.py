"""What a service is: its topics, its tables, its handlers, its answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cdc_lake.service.context import Context
from cdc_lake.service.event import Event

Handler = Callable[[Event, Context], None]
Rows = list[dict[str, Any]]
# Of one shard: from what was asked, and a connection that reads. Then of all shards: the rows of each, put together.
Answer = Callable[[Mapping[str, str], sqlite3.Connection], Rows]
Combine = Callable[[Mapping[str, str], Rows], Rows]


@dataclass(frozen=True, slots=True)
class Route:
    """A question that is answered over HTTP."""

    path: str
    answer: Answer
    combine: Combine | None


@dataclass(slots=True)
class Service:
    """A service, declared. Each partition of its topics is a shard, with tables and a position of its own.

    - **Order.** A shard handles the records of its partition in their order, one at a time. What must be decided
      together has to come in one partition: in one topic, under one key. Of several topics, a `Merge` makes one.
    - **Once.** An event (`source` and `id`) that a shard has handled is dropped when it comes again within `remember`;
      one that says something else under the same identity is a dead letter.
    - **Sameness.** `version` names the code of the handlers: with another version the tables are filled anew, from the
      beginning, beside those of the one before. What both answer to one event has one identity.
    """

    name: str
    topics: tuple[str, ...]
    tables: str = ""
    version: int = 1
    # How far ahead of the broker's clock an event's time may be.
    ahead: timedelta = timedelta(minutes=5)
    remember: timedelta = timedelta(days=30)
    sends_to: tuple[str, ...] = ()
    handlers: dict[str, Handler] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The consumer group. Its committed offsets are up to where the events it sends have been sent."""
        return f"{self.name}-v{self.version}"

    @property
    def letters(self) -> str:
        """The topic of its dead letters."""
        return f"{self.name}.dead-letters"

    def on(self, *types: str) -> Callable[[Handler], Handler]:
        """Handle events of these types. Those that no handler is for are passed over."""

        def take(handler: Handler) -> Handler:
            self.handlers.update(dict.fromkeys(types, handler))
            return handler

        return take

    def get(self, path: str, combine: Combine | None = None) -> Callable[[Answer], Answer]:
        """Answer `GET path`: rows of each shard, and how the rows of several make one answer."""

        def take(answer: Answer) -> Answer:
            self.routes[path] = Route(path, answer, combine)
            return answer

        return take


def predecessors(service: Service) -> Iterable[str]:
    """The groups of earlier versions."""
    return [f"{service.name}-v{n}" for n in range(1, service.version)]
