"""The topics that models send their rows to: opened when first needed, and again when Kafka was away."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_lake.cli import output
from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError
from cdc_lake.react.stream.run import Running, Streams, table_of
from cdc_lake.react.stream.topic import deliver, sender_name

if TYPE_CHECKING:  # a Kafka client costs time that models without a topic do not need
    from cdc_lake.consume.transactional import TransactionalTopic

_PAUSE = 5.0


@dataclass(slots=True)
class Topics:
    """Sends rows of models that have a topic. `errors` are those of models whose rows wait."""

    config: Config
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: dict[str, CdcLakeError] = field(default_factory=dict)
    _open: dict[str, TransactionalTopic] = field(default_factory=dict)
    _tried: float = 0.0

    def due(self) -> bool:
        """Whether it is time to try again."""
        return time.monotonic() - self._tried > _PAUSE

    def deliver(self, streams: Streams) -> None:
        """Send what is not sent yet. What cannot be sent waits in the model's table."""
        self._tried = time.monotonic()
        for name, one in streams.running.items():
            if one.shape.model.topic is None:
                continue
            try:
                self.sent[name] += self._deliver(name, one)
                self.errors.pop(name, None)
            except CdcLakeError as error:
                self._forget(name)
                if name not in self.errors:
                    output.say(f"Rows of {name} wait: {error.message} {error.why}")
                self.errors[name] = error

    def _deliver(self, name: str, one: Running) -> int:
        from cdc_lake.consume.transactional import TransactionalTopic

        held = self._open.get(name)
        if held is None:
            options = self.config.kafka.options if self.config.kafka else {}
            sender = sender_name(one.shape.source, name)
            held = TransactionalTopic(self.config.bootstrap, one.shape.model.topic or "", sender, options)
            self._open[name] = held
        return deliver(one.shape, table_of(self.config, one.shape), held)

    def _forget(self, name: str) -> None:
        held = self._open.pop(name, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Let go of all connections."""
        for name in list(self._open):
            self._forget(name)
