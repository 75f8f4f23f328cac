"""What has been read and not landed yet."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from cdc_lake.events import RecordBatch, TopicPartition


@dataclass(slots=True)
class Buffer:
    """Batches that are not landed yet, and when the first of them came (`time.monotonic`)."""

    batches: list[RecordBatch] = field(default_factory=list)
    nbytes: int = 0
    since: float = 0.0

    def add(self, batch: RecordBatch) -> None:
        """Keep a batch."""
        if not self.batches:
            self.since = time.monotonic()
        self.batches.append(batch)
        self.nbytes += batch.nbytes

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what was read of `partitions`."""
        self.batches = [b for b in self.batches if b.tp not in partitions]
        self.nbytes = sum(b.nbytes for b in self.batches)
