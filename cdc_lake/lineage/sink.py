"""A sink as lineage: one run for it, and below it one for each table, from its topic to its change log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.lineage.names import Dataset
from cdc_lake.lineage.runs import Job, Lineage, Run
from cdc_lake.progress import Failure, Flushed, Progress

log = logging.getLogger("cdc_lake.lineage")
# How often a run that goes on tells how far it has come.
REPORT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Places:
    """What the datasets of a source are: topics, change logs, and its own tables, where they are known."""

    source: str
    topic: Callable[[str], Dataset]
    log: Callable[[TableId], Dataset]
    table: Callable[[TableId], Dataset | None]


@dataclass(slots=True)
class _Landing:
    run: Run
    topic: str
    rows: int = 0
    told: float = field(default_factory=time.monotonic)


class SinkLineage:
    """Tells of the sink of one source. An `Observer`; its `running` goes around the sink's `run`."""

    def __init__(self, lineage: Lineage, places: Places, *, every: float = REPORT_SECONDS) -> None:
        self._lineage, self._places, self._every = lineage, places, every
        self._landings: dict[tuple[str, TableId], _Landing] = {}
        self._whole: Run | None = None
        self._progress: Progress | None = None
        self._broken = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """The sink runs in it."""
        self._whole = self._lineage.begin(Job(f"sink.{self._places.source}", "SINK", streaming=True))
        try:
            yield
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)

    def looped(self, progress: Progress) -> None:
        """Know where to look for what has stopped."""
        self._progress = progress

    def flushed(self, flush: Flushed) -> None:
        """Count rows, begin the run of a table that had none yet, and tell now and then how far it has come."""
        try:
            self._count(flush)
        except Exception as error:  # what is told of the work is not the work
            if not self._broken:
                log.warning("A flush could not be told of: %s: %s", type(error).__name__, error)
            self._broken = True

    def failed(self, failure: Failure) -> None:
        """What ends the sink fails its runs."""

    def _count(self, flush: Flushed) -> None:
        for topic, table, rows in flush.rows:
            if not rows.num_rows:
                continue
            landing = self._landings.get((topic, table)) or self._begin(topic, table)
            landing.rows += rows.num_rows
            if time.monotonic() - landing.told >= self._every:
                landing.run.running([landing.rows])
                landing.told = time.monotonic()

    def _begin(self, topic: str, table: TableId) -> _Landing:
        source, records = self._places.source, self._places.topic(topic)
        captured = self._places.table(table)
        if captured is not None:
            self._lineage.standing(Job(f"capture.{source}.{table}", "CAPTURE", [captured], [records], streaming=True))
        job = Job(f"land.{source}.{table}", "LAND", [records], [self._places.log(table)], streaming=True)
        landing = _Landing(self._lineage.begin(job, parent=self._whole), topic)
        self._landings[topic, table] = landing
        return landing

    def _end(self, error: BaseException | None) -> None:
        stopped: dict[str, CdcLakeError] = {}
        if self._progress is not None:
            stopped = {tp.topic: why for tp, why in self._progress.stopped.items()}
        for landing in self._landings.values():
            why = stopped.get(landing.topic) or error
            if why is None:
                landing.run.completed([landing.rows])
            else:
                landing.run.failed(why, [landing.rows])
        if self._whole is not None:
            if error is None:
                self._whole.completed()
            else:
                self._whole.failed(error)
