"""What the real Kafka clients share: rebalances settled in `poll`, positions kept, gaps covered.

A client's rebalance callbacks only take note (`note_assigned`, `note_revoked`, from any thread); `poll` then talks to
the pipeline. So the pipeline's slow answers never hold up a client's network thread, and an error that comes out of
them leaves the partitions noted for the next `poll`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

from cdc_lake.consume.broker import CONNECTED, Assignment, PartitionInfo
from cdc_lake.consume.columns import without_prefix
from cdc_lake.events import RecordBatch, TopicPartition


class GroupBroker(ABC):
    """The part of the `Broker` contract that does not depend on the client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._to_assign: set[TopicPartition] = set()
        self._to_revoke: set[TopicPartition] = set()
        self._assignment: Assignment | None = None
        self._held: dict[TopicPartition, str] = {}  # what the pipeline was told of, with the topic's id then
        self._positions: dict[TopicPartition, int] = {}  # of what is read: where the next batch starts
        self._paused: set[TopicPartition] = set()
        self._ready: list[RecordBatch] = []
        self._trouble = ""
        self._prefixes: dict[TopicPartition, bytes] = {}

    @property
    def state(self) -> str:
        """`connected`, or in words what is being waited for."""
        return f"waiting for the broker ({self._trouble})" if self._trouble else CONNECTED

    def poll(self, timeout: float) -> list[RecordBatch]:
        """Settle rebalances, read, settle what came up meanwhile, and return what still belongs to this member."""
        self._settle()
        self._ready.extend(self._read(timeout))
        self._settle()
        ready, self._ready = self._ready, []
        return ready

    def _without_prefix(self, tp: TopicPartition, values: list[bytes | None]) -> tuple[bytes, list[bytes | None]]:
        prefix, rest = without_prefix(values, self._prefixes.get(tp, b""))
        self._prefixes[tp] = prefix
        return prefix, rest

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return no more records of these partitions until `resume`."""
        held = self._held.keys() & partitions
        self._paused |= held
        self._pause(held & self._positions.keys())

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undo `pause`."""
        held = self._paused & set(partitions)
        self._paused -= held
        self._resume(held & self._positions.keys())

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read `tp` from `offset` next."""
        if tp in self._held:
            self._drop_ready({tp})
            self._start({tp: offset})

    # What a client does.

    @abstractmethod
    def _read(self, timeout: float) -> Iterable[RecordBatch]:
        """Drive the client, advance `_positions` and give the batches. Never fails because the broker is away."""

    @abstractmethod
    def _describe(self, partitions: Collection[TopicPartition]) -> list[PartitionInfo] | None:
        """Offsets and ids of those partitions that exist; None when the broker does not answer now."""

    @abstractmethod
    def _begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets, as far as the partitions are still held; paused ones stay paused."""

    @abstractmethod
    def _pause(self, partitions: Collection[TopicPartition]) -> None: ...

    @abstractmethod
    def _resume(self, partitions: Collection[TopicPartition]) -> None: ...

    # What a client's callbacks note, from any thread.

    def note_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """These came, or must begin anew. The client must not read them until `_begin`."""
        with self._lock:
            self._to_assign.update(partitions)

    def note_revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """These went away."""
        with self._lock:
            gone = set(partitions)
            self._to_assign -= gone
            self._to_revoke |= gone

    def _settle(self) -> None:
        with self._lock:
            revoked, self._to_revoke = self._to_revoke, set()
            assigned, self._to_assign = self._to_assign, set()
        settled = False
        try:
            self._tell_revoked(revoked)
            settled = self._tell_assigned(assigned)
        finally:
            if not settled:
                with self._lock:
                    self._to_assign |= assigned - self._to_revoke

    def _tell_revoked(self, revoked: set[TopicPartition]) -> None:
        self._forget(revoked)
        told = sorted(tp for tp in revoked if self._held.pop(tp, None) is not None)
        if told and self._assignment:
            self._assignment.revoked(told)

    def _tell_assigned(self, assigned: set[TopicPartition]) -> bool:
        """False when the broker could not be asked, so that the partitions wait for the next poll."""
        if not assigned or self._assignment is None:
            return not assigned
        self._forget(assigned)
        infos = self._describe(assigned)
        if infos is None:
            return False
        offsets = self._assignment.assigned(sorted(infos, key=lambda info: info.tp))
        self._held.update({info.tp: info.topic_id for info in infos})
        self._paused |= {info.tp for info in infos if info.tp not in offsets}
        self._start({tp: offset for tp, offset in offsets.items() if tp in self._held})
        return True

    def _start(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._positions.update(offsets)
        self._begin(offsets)

    def _forget(self, partitions: set[TopicPartition]) -> None:
        self._drop_ready(partitions)
        for tp in partitions:
            self._positions.pop(tp, None)
            self._paused.discard(tp)

    def _drop_ready(self, partitions: set[TopicPartition]) -> None:
        self._ready = [batch for batch in self._ready if batch.tp not in partitions]

    def _recreated(self, topic_ids: Mapping[str, str]) -> set[TopicPartition]:
        """Held partitions whose topic has another id than the pipeline was told."""
        return {tp for tp, told in self._held.items() if told and topic_ids.get(tp.topic, told) not in (told, "")}
