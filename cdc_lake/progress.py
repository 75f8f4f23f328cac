"""What a sink tells of itself while it runs: the seam between its loop and those who watch it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from cdc_lake.errors import PartitionError
from cdc_lake.events import TableId, TopicPartition


@dataclass(slots=True)
class Progress:
    """What the sink has done so far. `waiting` says in words that Kafka is away, `registry` what must come from the
    schema registry first; each is empty when nothing is waited for.

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
    registry: str = ""
    flushing_since: float | None = None
    stopped: dict[TopicPartition, PartitionError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Times:
    """When a flush came where, by `time.monotonic`: its first record was buffered, its records were decoded (one flush
    ahead, as a rule), its turn to land came, the store was given it, all was committed."""

    buffered: float
    decoding: float
    decoded: float
    begun: float
    ready: float
    committed: float


@dataclass(frozen=True, slots=True)
class Flushed:
    """One flush that has landed. `number` counts the flushes of this run from 1; `rows` are those of each topic and
    table, `transactions` those that ended in it, in the columns of the lake's tables, `stopped` the topics of
    which nothing landed, and why."""

    number: int
    events: int
    dead: int
    rows: Sequence[tuple[str, TableId, pa.Table]]
    transactions: pa.Table | None
    times: Times
    stopped: Mapping[str, PartitionError] = field(default_factory=dict)

    @property
    def last_tx_id(self) -> str | None:
        """The last transaction that ended in it."""
        ends = self.transactions
        return ends["tx_id"][-1].as_py() if ends is not None and ends.num_rows else None

    @property
    def decode_seconds(self) -> float:
        """How long its records had to wait for the decoder."""
        return self.times.ready - self.times.begun

    @property
    def commit_seconds(self) -> float:
        """How long the store took."""
        return self.times.committed - self.times.ready


@dataclass(frozen=True, slots=True)
class Failure:
    """A flush that did not land: its number, when its first record was buffered and when it failed, by
    `time.monotonic`."""

    number: int
    buffered: float
    failed: float
    error: BaseException


class Observer(Protocol):
    """Is told what a sink does. Called on the sink's own threads: it must be quick, and must not raise."""

    def looped(self, progress: Progress) -> None:
        """The loop went round once more, which it does at least every few seconds. Called on its thread."""

    def flushed(self, flush: Flushed) -> None:
        """A flush has landed. Called on the thread that lands, one at a time and in order."""

    def failed(self, failure: Failure) -> None:
        """A flush has not landed, and what it raised ends the sink. Called on the thread that lands."""


@contextmanager
def told_of_failure(observer: Observer | None, number: int, buffered: float) -> Iterator[None]:
    """Tell an observer when the flush that is made in it fails."""
    try:
        yield
    except BaseException as error:
        if observer is not None:
            observer.failed(Failure(number, buffered, time.monotonic(), error))
        raise
