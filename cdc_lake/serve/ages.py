"""How old changes are when they land, as a histogram that counts every change and costs a few array operations."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client.metrics_core import HistogramMetricFamily

from cdc_lake.serve.catalogue import FRESHNESS


def ages_of(rows: pa.Table, now: float) -> np.ndarray:
    """Seconds from each change's commit in the source to `now` (Unix time), without rows that a snapshot read."""
    read = rows["__op"].combine_chunks()
    changes = pc.and_(pc.is_in(read, pa.array(["c", "u", "d", "t"])), pc.is_valid(rows["__source_ts"]))
    micros = rows["__source_ts"].cast(pa.int64()).filter(changes).to_numpy()
    ages: np.ndarray = np.maximum(0.0, now - micros / 1_000_000)
    return ages


class Ages:
    """Counts ages per source. Thread-safe; a collector of Prometheus' client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, source: str, rows: Sequence[pa.Table]) -> None:
        """Count the changes of a flush that has just landed."""
        now = time.time()
        ages = np.concatenate([ages_of(part, now) for part in rows]) if rows else np.empty(0)
        # A bucket counts what is not above its bound.
        places = np.searchsorted(np.array(FRESHNESS.buckets), ages, side="left")
        counts = np.bincount(places, minlength=len(FRESHNESS.buckets) + 1).tolist()
        with self._lock:
            before = self._counts.get(source, [0] * len(counts))
            self._counts[source] = [a + b for a, b in zip(before, counts, strict=True)]
            self._sums[source] = self._sums.get(source, 0.0) + float(ages.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family as it is now."""
        family = HistogramMetricFamily(FRESHNESS.name, FRESHNESS.help, labels=FRESHNESS.labels)
        with self._lock:
            for source, counts in self._counts.items():
                bounds = [*(str(b) for b in FRESHNESS.buckets), "+Inf"]
                family.add_metric(
                    [source], list(zip(bounds, accumulate(counts), strict=True)), sum_value=self._sums[source]
                )
        yield family
