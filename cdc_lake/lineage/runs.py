"""Runs of jobs as OpenLineage's events: what each reads, what it writes, how it went.

A job makes one table, topic or model out of those that are really read for it, so that a graph of lineage has no edge
that is not there. Jobs that belong together have a common parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from openlineage.client import event_v2 as events
from openlineage.client.facet_v2 import (
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    sql_job,
    storage_dataset,
)
from openlineage.client.uuid import generate_new_uuid

from cdc_lake import __version__
from cdc_lake.errors import CdcLakeError, first_line
from cdc_lake.lineage.names import Dataset

PRODUCER = f"urn:cdc-lake:{__version__}"
NAMESPACE = "cdc-lake"


@dataclass(frozen=True, slots=True)
class Job:
    """A job. `kind` is CAPTURE, SINK, LAND, FOLD, MODEL or RULE; `sql` is the text of a model."""

    name: str
    kind: str
    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    streaming: bool = False
    sql: str = ""


@dataclass(slots=True)
class Lineage:
    """Tells of runs in one namespace. `redact` takes secrets out of the words of errors."""

    send: Callable[[Any], None]
    namespace: str = NAMESPACE
    redact: Callable[[str], str] = str

    def begin(self, job: Job, *, parent: Run | None = None, at: datetime | None = None) -> Run:
        """A run of a job, which begins now or began before."""
        run = Run(self, job, parent)
        run.tell(events.RunState.START, at=at)
        return run

    def standing(self, job: Job) -> None:
        """A job that others run: that it is there, and what it reads and writes."""
        self.send(
            events.JobEvent(
                eventTime=_time(None),
                producer=PRODUCER,
                job=self.job(job),
                inputs=[_input(d) for d in job.inputs],
                outputs=[_output(d, None) for d in job.outputs],
            )
        )

    def job(self, job: Job) -> events.Job:
        """The job as events name it."""
        facets: dict[str, Any] = {
            "jobType": job_type_job.JobTypeJobFacet(
                processingType="STREAMING" if job.streaming else "BATCH",
                integration="CDC_LAKE",
                jobType=job.kind,
                producer=PRODUCER,
            )
        }
        if job.sql:
            facets["sql"] = sql_job.SQLJobFacet(query=job.sql, dialect="duckdb", producer=PRODUCER)
        return events.Job(self.namespace, job.name, facets)


@dataclass(slots=True)
class Run:
    """One run: begun by `Lineage.begin`, ended by `completed` or `failed`."""

    lineage: Lineage
    job: Job
    parent: Run | None = None
    id: str = field(default_factory=lambda: str(generate_new_uuid()))

    def running(self, rows: Sequence[int] = ()) -> None:
        """How far it has come: rows written so far, for each output."""
        self.tell(events.RunState.RUNNING, rows)

    def completed(self, rows: Sequence[int] = ()) -> None:
        """It ended well."""
        self.tell(events.RunState.COMPLETE, rows)

    def failed(self, error: BaseException, rows: Sequence[int] = ()) -> None:
        """It ended with an error."""
        told = f": {first_line(error)}" if isinstance(error, Exception) else ""
        words = error.message if isinstance(error, CdcLakeError) else f"{type(error).__name__}{told}"
        message = error_message_run.ErrorMessageRunFacet(self.lineage.redact(words), "PYTHON", producer=PRODUCER)
        self.tell(events.RunState.FAIL, rows, facets={"errorMessage": message})

    def tell(
        self,
        state: events.RunState,
        rows: Sequence[int] = (),
        *,
        at: datetime | None = None,
        facets: Mapping[str, Any] | None = None,
    ) -> None:
        """Send one event of the run."""
        counts = [*rows, *[None] * (len(self.job.outputs) - len(rows))]
        engine = processing_engine_run.ProcessingEngineRunFacet(__version__, "cdc-lake", producer=PRODUCER)
        known: dict[str, Any] = {"processing_engine": engine, **(facets or {})}
        if self.parent is not None:
            known["parent"] = parent_run.ParentRunFacet(
                parent_run.Run(self.parent.id),
                parent_run.Job(self.lineage.namespace, self.parent.job.name),
                producer=PRODUCER,
            )
        self.lineage.send(
            events.RunEvent(
                eventTime=_time(at),
                eventType=state,
                producer=PRODUCER,
                run=events.Run(self.id, known),
                job=self.lineage.job(self.job),
                inputs=[_input(d) for d in self.job.inputs],
                outputs=[_output(d, n) for d, n in zip(self.job.outputs, counts, strict=True)],
            )
        )


def _time(at: datetime | None) -> str:
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds")


def _facets(dataset: Dataset) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if dataset.is_delta:
        facets["storage"] = storage_dataset.StorageDatasetFacet("delta", "parquet", producer=PRODUCER)
    if dataset.columns:
        fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in dataset.columns]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER)
    return facets


def _input(dataset: Dataset) -> events.InputDataset:
    return events.InputDataset(dataset.namespace, dataset.name, facets=_facets(dataset))


def _output(dataset: Dataset, rows: int | None) -> events.OutputDataset:
    written: dict[str, Any] = {}
    if rows is not None:
        facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows, producer=PRODUCER)
        written["outputStatistics"] = facet
    return events.OutputDataset(dataset.namespace, dataset.name, facets=_facets(dataset), outputFacets=written)
