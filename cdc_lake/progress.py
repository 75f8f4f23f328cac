"""What a sink tells of itself while it runs: the seam between its loop and those who watch it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from cdc_lake.errors import PartitionError
from cdc_lake.events import TableId, TopicPartition


@dataclass(slots=True)
class Progress:
    """What the sink has done so far. `waiting` says in words what part is away; empty when none is.

    `flushing_since` is when the flush under way began, by `time.monotonic`; None when nothing is being landed.
    """

    events: int = 0
    dead: int = 0
    commits: int = 0
    tables: set[TableId] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)
    last_commit: float | None = None
    lag: int | None = None
    lags: dict[TopicPartition, int] = field(default_factory=dict)
    waiting: str = ""
    flushing_since: float | None = None
    stopped: dict[TopicPartition, PartitionError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flushed:
    """One flush that has landed. `number` counts the flushes of this run from 1.

    `decode_seconds` is how long its records had to wait for the decoder, `commit_seconds` how long the store took.
    """

    number: int
    events: int
    dead: int
    rows: Sequence[tuple[TableId, pa.Table]]
    last_tx_id: str | None
    decode_seconds: float
    commit_seconds: float


class Observer(Protocol):
    """Is told what a sink does. Called on the sink's own threads: it must be quick, and must not raise."""

    def looped(self, progress: Progress) -> None:
        """The loop went round once more, which it does at least every few seconds. Called on its thread."""

    def flushed(self, flush: Flushed) -> None:
        """A flush has landed. Called on the thread that lands, one at a time and in order."""
