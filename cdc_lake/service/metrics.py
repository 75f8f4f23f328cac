"""The numbers of an instance, in Prometheus' form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from cdc_lake.service.run import Runner

_PREFIX = "cdc_lake_service"


class Numbers:
    """Counted as it runs; `show` sets what is read off it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            f"{_PREFIX}_events", "Records, by type and outcome", ["type", "outcome"], registry=self.registry
        )
        self.sent = Counter(f"{_PREFIX}_sent", "Events sent", ["topic"], registry=self.registry)
        self.retries = Counter(
            f"{_PREFIX}_retries", "Events put off because something was away", registry=self.registry
        )
        self.seconds = Histogram(f"{_PREFIX}_batch_seconds", "Handling and committing a batch", registry=self.registry)
        self._lag = self._gauge("lag_records", "Records not handled yet")
        self._age = self._gauge("age_seconds", "Since all was handled that there was")
        self._unsent = self._gauge("unsent_records", "Between the mark and the position")
        self._letters = self._gauge("stopped", "1 where the partition stands still")

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", what, ["topic", "partition"], registry=self.registry)

    def show(self, runner: Runner) -> None:
        """Set the numbers of the partitions that are held now."""
        for gauge in (self._lag, self._age, self._unsent, self._letters):
            gauge.clear()
        for tp, held in runner.held.items():
            labels = (tp.topic, str(tp.partition))
            self._lag.labels(*labels).set(max(0, held.end - held.shard.position))
            age = runner.age(held)
            self._age.labels(*labels).set(float("nan") if age is None else age)
            self._unsent.labels(*labels).set(held.shard.position - min(held.shard.position, held.shard.mark))
            self._letters.labels(*labels).set(0)
        for tp in runner.problems:
            self._letters.labels(tp.topic, str(tp.partition)).set(1)
