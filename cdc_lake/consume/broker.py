"""The seam to Kafka: what the pipeline may count on, whichever client or fake is behind it.

Every implementation passes tests/integration/test_broker_contract.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cdc_lake.events import RecordBatch, TopicPartition

CONNECTED = "connected"


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """What the broker knows of one partition at one moment.

    `beginning` is the first offset still kept, `end` the offset after the last record that may be read (with
    transactions in flight: the last stable offset). `topic_id` names the topic's incarnation and changes when a
    topic of the same name is created again; it is empty when the broker has none (Kafka before 2.8).
    """

    tp: TopicPartition
    beginning: int
    end: int
    topic_id: str


class Assignment(Protocol):
    """What the pipeline does when partitions come and go. Called inside `Broker.poll` only, on its thread."""

    def assigned(self, partitions: Sequence[PartitionInfo]) -> Mapping[TopicPartition, int]:
        """Say where to read each partition from.

        Called when a rebalance brought partitions, and again for a partition that is already held when its position
        fell out of the log (retention passed it) or its topic was created again: reading begins anew at the offset
        that is returned now, so land or drop what is buffered of it.

        A partition that is left out is not read: it stays paused until it is sought and resumed. An error raised
        here comes out of `poll`, and the next `poll` asks again: nothing is read meanwhile, nothing is lost.
        """
        ...

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop what is buffered of these partitions: another member reads them from now on."""
        ...


class Broker(Protocol):
    """A member of a consumer group that reads committed records as columns.

    - **Order and completeness.** Per partition, the batches of all polls follow each other without hole or overlap:
      the first one starts at the offset that `assigned` returned (or `seek` set), each next one at the `end` of the
      one before. `[start, end)` covers offsets without a record (control records, aborted transactions, compaction)
      too, so an `end` equal to `PartitionInfo.end` means that all of it was read. A batch may hold no record.
    - **Delivery.** At least once: what was returned and not landed is read again after a seek, a rebalance or a
      restart. The broker stores no position; the group's committed offsets are for lag monitors and never read back.
    - **Isolation.** Records of aborted or open transactions are not returned.
    - **Failure.** A broker that goes away is not an error: `poll` returns nothing, `state` says what it waits for,
      and reading goes on by itself. Refused credentials or rights are raised as UnavailableError, by any method.
    - **Threads.** One thread uses a broker, except that any thread may read `state`.
    """

    @property
    def state(self) -> str:
        """`connected`, or in words what is being waited for."""
        ...

    def subscribe(self, pattern: str, assignment: Assignment) -> None:
        """Join the group for all topics whose whole name matches the regular expression. Call it once.

        New topics that match and new partitions are found by themselves, about two seconds after they are there.
        """
        ...

    def poll(self, timeout: float) -> list[RecordBatch]:
        """Read what is there; wait up to `timeout` seconds for the first record. Empty when nothing came.

        Rebalances happen in here and may take longer than `timeout`. Call it at least every few minutes, even when
        everything is paused: the group gives the partitions of a member that does not poll to others.
        """
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return no more records of these partitions until `resume`. Partitions not held are ignored."""
        ...

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undo `pause`, at the position where it stopped. Partitions not held are ignored."""
        ...

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read `tp` from `offset` next. A partition that is not held is ignored: its next owner seeks itself."""
        ...

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Tell lag monitors what has landed: the next offset of each partition. Failures are logged, not raised."""
        ...

    def partitions(self, pattern: str) -> list[PartitionInfo]:
        """All partitions of all topics that match, whoever holds them, sorted. Raises UnavailableError."""
        ...

    def close(self) -> None:
        """Leave the group, so that others take over at once. No callback is made. Closing twice is harmless."""
        ...
