"""What an instance knows of a shard that it holds: how fresh it is, and what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cdc_lake.consume.broker import PartitionInfo
from cdc_lake.errors import OffsetsExpired, TopicRecreated
from cdc_lake.events import TopicPartition
from cdc_lake.service.service import Service
from cdc_lake.service.shard import Shard
from cdc_lake.service.state import copy, file_name, position_in, read_only, remove, topic_id_of

FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 30.0
_SNAPSHOTS_KEPT = 2


@dataclass(slots=True)
class Held:
    """A shard of this instance."""

    shard: Shard
    end: int
    caught_up: bool = False
    fresh_at: float | None = None
    marked: int = -1
    failures: int = 0
    retry_at: float = 0.0
    waits_for: str = ""
    snapshot_at: int = 0
    timers_sent: set[str] = field(default_factory=set)

    def went_on(self) -> None:
        """A batch was handled."""
        self.failures, self.waits_for = 0, ""
        self.caught_up = self.caught_up or self.shard.position >= self.end

    def failed(self, why: str, now: float) -> None:
        """An event is to be tried again, ever later."""
        self.retry_at = now + min(FIRST_BACKOFF * 2**self.failures, LONGEST_BACKOFF)
        self.failures, self.waits_for = self.failures + 1, why

    def age(self, now: float, wall: float) -> float | None:
        """Seconds since this shard was known to have handled all that there was; None when it never had.

        Counted by the clock since it was seen, or by the record handled last, whichever is less.
        """
        if self.fresh_at is None:
            return None
        by_clock = max(0.0, now - self.fresh_at)
        by_record = max(0.0, wall - self.shard.at / 1000)
        return round(min(by_clock, by_record), 3)


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the states of one instance lie, and the copies that all instances share."""

    own: Path
    shared: Path

    def open(self, service: Service, info: PartitionInfo, floor: int) -> Shard:
        """The shard of a partition, from the newest state that there is.

        Raises TopicRecreated when that state is of another topic, LakeError when it cannot be used.
        """
        file = self.own / file_name(info.tp)
        self._take_copy(file, info)
        shard = Shard(service, info.tp, file, topic_id=info.topic_id, floor=floor)
        known = topic_id_of(shard.db)
        if (known and info.topic_id and known != info.topic_id) or shard.position > info.end:
            shard.close()
            raise TopicRecreated(
                f"{info.tp} is not the topic that the state in {file} was made from.",
                why=f"It ends at {info.end}; the state is at {shard.position}, of topic {known or 'unknown'}.",
                next=f"to fill it from the new topic, remove {file.parent.parent} and start the service again",
            )
        return shard

    def _take_copy(self, file: Path, info: PartitionInfo) -> None:
        """Begin from a copy of another instance where it is further, and of this topic."""
        newest = max(self.copies(info.tp), default=None)
        if newest is None or newest[0] <= position_in(file) or newest[0] > info.end:
            return
        db = read_only(newest[1])
        try:
            if topic_id_of(db) in ("", info.topic_id):
                remove(file)
                copy(db, file)
        finally:
            db.close()

    def copies(self, tp: TopicPartition) -> Iterator[tuple[int, Path]]:
        """The shared copies of a shard, with their positions."""
        for file in (self.shared / file_name(tp)).glob("*.sqlite"):
            if file.stem.isdigit():
                yield int(file.stem), file

    def keep_copy(self, shard: Shard) -> None:
        """Leave a copy of a shard for others, and drop the oldest."""
        shard.copy(self.shared / file_name(shard.tp) / f"{shard.position:020}.sqlite")
        for _, file in sorted(self.copies(shard.tp))[:-_SNAPSHOTS_KEPT]:
            file.unlink(missing_ok=True)


def expired(info: PartitionInfo, position: int) -> OffsetsExpired:
    """The log no longer has what a shard needs next."""
    return OffsetsExpired(
        f"{info.tp} begins at {info.beginning}; the service is at {position}.",
        why="Kafka's retention took what is between.",
        next="keep the topic longer, and fill the service from the lake: --fill-from-lake",
    )
