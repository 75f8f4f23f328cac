"""The sink's numbers for Prometheus: counted as flushes land, read off the running sinks when they are asked for."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from cdc_lake import __version__, undelivered
from cdc_lake.progress import Failure, Flushed, Progress
from cdc_lake.serve import catalogue
from cdc_lake.serve.ages import Ages
from cdc_lake.serve.catalogue import Metric
from cdc_lake.serve.health import Check, readiness
from cdc_lake.serve.lake_state import LakeState


@dataclass(slots=True)
class Watched:
    """A running sink as its last turn left it: an `Observer`."""

    source: str
    numbers: Numbers
    progress: Progress | None = None
    turned: float = field(default_factory=time.monotonic)
    ended: bool = False

    def looped(self, progress: Progress) -> None:
        """Take note that the loop lives."""
        self.progress, self.turned = progress, time.monotonic()

    def flushed(self, flush: Flushed) -> None:
        """Count what has landed."""
        self.numbers.count(self.source, flush)

    def failed(self, failure: Failure) -> None:
        """The sink ends, and its numbers with it."""


class Numbers:
    """All metrics of one process, in a registry of their own. A collector of Prometheus' client."""

    def __init__(self, memory_mb: float) -> None:
        self.registry = CollectorRegistry()
        self.sinks: list[Watched] = []
        self.lake = LakeState()
        self.outside: dict[str, Check] = {}
        self._ages = Ages()
        self._events = self._counter(catalogue.EVENTS)
        self._dead = self._counter(catalogue.DEAD)
        self._flush = self._histogram(catalogue.FLUSH)
        self._commit = self._histogram(catalogue.COMMIT)
        self._last = self._gauge(catalogue.LAST_COMMIT)
        self._gauge(catalogue.BUILD).labels(__version__).set(1)
        self._gauge(catalogue.MEMORY_LIMIT).set(memory_mb * 1_000_000)
        self.registry.register(self._ages)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def watch(self, source: str) -> Watched:
        """Watch the sink of a source: give the answer to its `run`."""
        watched = Watched(source, self)
        self.sinks.append(watched)
        # A counter that is there from the start shows its first step as one.
        for metric in (self._dead, self._flush, self._commit):
            metric.labels(source)
        return watched

    def count(self, source: str, flush: Flushed) -> None:
        """Add one flush."""
        for _, table, rows in flush.rows:
            if rows.num_rows:
                self._events.labels(source, str(table)).inc(rows.num_rows)
        self._dead.labels(source).inc(flush.dead)
        self._flush.labels(source).observe(flush.decode_seconds + flush.commit_seconds)
        self._commit.labels(source).observe(flush.commit_seconds)
        self._last.labels(source).set(time.time())
        self._ages.add(source, [rows for _, _, rows in flush.rows])

    def checks(self) -> list[Check]:
        """What /readyz looks at, now."""
        return readiness(self.sinks, self.outside, self.lake)

    def collect(self) -> Iterator[Family]:
        """The gauges, as they are at this moment."""
        now = time.monotonic()
        running = [(s, s.progress) for s in self.sinks if s.progress is not None]
        yield _family(catalogue.LAG, {(s.source, topic): n for s, p in running for topic, n in _by_topic(p).items()})
        yield _family(
            catalogue.FLUSHING, {(s.source,): now - since if (since := p.flushing_since) else 0.0 for s, p in running}
        )
        yield _family(catalogue.LOOP, {(s.source,): now - s.turned for s in self.sinks})
        yield _family(catalogue.BROKER, {(s.source,): float(not p.waiting) for s, p in running})
        yield _family(catalogue.REGISTRY, {(s.source,): float(not p.registry) for s, p in running})
        stopped = Counts((s.source, e.code) for s, p in running for e in list(p.stopped.values()))
        yield _family(catalogue.STOPPED, dict(stopped))
        yield _family(catalogue.CHECK, {(c.name,): float(c.ok) for c in self.checks()})
        lost = CounterMetricFamily(catalogue.UNDELIVERED.name, catalogue.UNDELIVERED.help, labels=["kind"])
        for kind, number in undelivered.counts().items():
            lost.add_metric([kind], number)
        yield lost
        yield from self._of_lake()

    def _of_lake(self) -> Iterator[Family]:
        found = self.lake.found
        # The age goes on growing between two looks at the lake.
        since = time.time() - found.at if found.at else 0.0
        ages = {(k,): c["age_seconds"] + since for k, c in found.cuts.items() if c["age_seconds"] is not None}
        yield _family(catalogue.CUT_AGE, ages)
        yield _family(catalogue.CUT_STALLED, {(k,): float(bool(c["waits_for"])) for k, c in found.cuts.items()})
        yield _family(catalogue.UNFOLDED, {(t["source"], t["table"]): t["rows_unfolded"] for t in found.tables})
        yield _family(catalogue.LETTERS, {(k,): n for k, n in found.letters.items()})
        yield _family(catalogue.LAKE_READ, {(): found.at} if found.at else {})

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self.registry)


def _by_topic(progress: Progress) -> dict[str, int]:
    found: dict[str, int] = {}
    for tp, records in progress.lags.items():
        found[tp.topic] = found.get(tp.topic, 0) + records
    return found


def _family(metric: Metric, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
