"""What this lake's jobs are to OpenLineage: which datasets each reads and writes, by the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.tables import ALERTS, LOG
from cdc_lake.lineage.names import Dataset, columns_of, delta_table, source_table, topic
from cdc_lake.lineage.runs import Job, Lineage, Run
from cdc_lake.lineage.sink import Places, SinkLineage

if TYPE_CHECKING:
    from cdc_lake.cli.witness import Outcomes
    from cdc_lake.config import Config
    from cdc_lake.project.fold import Folded
    from cdc_lake.project.lake import Lake
    from cdc_lake.react.stream.shape import Shape
    from cdc_lake.react.watch import Target

_LOG = columns_of(LOG)


class Telling:
    """Tells of the runs of one lake's jobs."""

    def __init__(self, config: Config, lineage: Lineage) -> None:
        self._config, self._lineage = config, lineage
        self._sinks: dict[str, SinkLineage] = {}

    def sink(self, source: str) -> SinkLineage:
        """Who watches the sink of a source; the same each time."""
        if source not in self._sinks:
            places = Places(source, self._topic, lambda table: self._log(source, table), self._captured(source))
            self._sinks[source] = SinkLineage(self._lineage, places)
        return self._sinks[source]

    def folded(self, lake: Lake, source: str, one: Folded) -> None:
        """A fold that has just ended."""
        paths = [layout.current_path, layout.history_path]
        outputs = [_as_it_is(lake, path(lake.root, source, one.table)) for path in paths]
        job = Job(f"fold.{source}.{one.table}", "FOLD", [self._log(source, one.table)], outputs)
        run = self._lineage.begin(job, at=datetime.now(UTC) - timedelta(seconds=one.seconds))
        if one.error is not None:
            run.failed(one.error)
        else:
            run.completed([one.rows, one.history_rows])

    def models(self, shapes: Sequence[Shape], outcomes: Outcomes) -> AbstractContextManager[None]:
        """Models are kept up in it."""
        return self._running({shape.name: self._model(shape) for shape in shapes}, outcomes)

    def rules(self, targets: Sequence[Target], outcomes: Outcomes) -> AbstractContextManager[None]:
        """Rules are evaluated in it."""
        return self._running({target.rule.name: self._rule(target) for target in targets}, outcomes)

    @contextmanager
    def _running(self, jobs: Mapping[str, Job], outcomes: Outcomes) -> Iterator[None]:
        runs = {name: self._lineage.begin(job) for name, job in jobs.items()}
        try:
            yield
        except BaseException as error:
            self._end(runs, outcomes(), error)
            raise
        self._end(runs, outcomes(), None)

    def _end(
        self,
        runs: Mapping[str, Run],
        outcomes: Mapping[str, tuple[int, BaseException | None]],
        error: BaseException | None,
    ) -> None:
        for name, run in runs.items():
            rows, own = outcomes.get(name, (0, None))
            why = own or error
            counts = [rows] * len(run.job.outputs)
            if why is None:
                run.completed(counts)
            else:
                run.failed(why, counts)

    def _model(self, shape: Shape) -> Job:
        root, source = self._config.lake_uri, shape.source
        rows = replace(delta_table(layout.stream_path(root, source, shape.name)), columns=shape.columns)
        sent = [self._topic(shape.model.topic)] if shape.model.topic is not None else []
        named = [(shape.beside.get(alias, shape.owners[alias]), table) for alias, table in shape.tables.items()]
        read = [self._log(*one) for one in dict.fromkeys(named)]
        sql = shape.model.sql
        return Job(f"stream.{source}.{shape.name}", "MODEL", read, [rows, *sent], streaming=True, sql=sql)

    def _rule(self, target: Target) -> Job:
        from cdc_lake.react.standing import Standing

        home = Standing.of(self._config, target).home
        found = replace(delta_table(layout.alerts_path(self._config.lake_uri, home)), columns=columns_of(ALERTS))
        named = [(target.owners[stream], table) for stream, table in target.tables.items()]
        read = [self._log(*one) for one in dict.fromkeys(named)]
        return Job(f"rule.{home}.{target.rule.name}", "RULE", read, [found], streaming=True)

    def _topic(self, name: str) -> Dataset:
        return topic(self._config.bootstrap, name)

    def _log(self, source: str, table: TableId) -> Dataset:
        return replace(delta_table(layout.log_path(self._config.lake_uri, source, table)), columns=_LOG)

    def _captured(self, source: str) -> Callable[[TableId], Dataset | None]:
        configured = next((s for s in self._config.databases if s.name == source), None)
        try:
            dsn = self._config.dsn(configured) if configured is not None else ""
        except CdcLakeError:
            dsn = ""
        return lambda table: source_table(dsn, table) if dsn else None


def _as_it_is(lake: Lake, place: str) -> Dataset:
    """A Delta table with the columns that it has now."""
    handle = lake.open(place)
    found = delta_table(place)
    return found if handle is None else found.with_columns(pa.schema(handle.schema().to_arrow()))
