"""A sink's flushes as spans, each linked to the transactions that ended in it, and each of these as a trace of its own.

Nothing here is done for each record: of a flush a bounded number of transactions is told of, and of records that name
a span of their application. Off, there is no such observer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.trace import SpanContext, SpanKind

from cdc_lake.logs import RUN_ID
from cdc_lake.progress import Failure, Flushed, Progress
from cdc_lake.trace.tracing import Clock, Tracing, remote
from cdc_lake.traceids import HEADER, parent_of

log = logging.getLogger("cdc_lake.trace")
# Of one flush: transactions that are looked at, and that are told of; the same of records with a span of their own.
LOOKED_AT = 256
TOLD = 32


@dataclass(frozen=True, slots=True)
class _Ended:
    """A transaction that ended in a flush. `committed` is when, in the source, in nanoseconds."""

    context: SpanContext
    committed: int | None
    attributes: dict[str, Any]


class SinkSpans:
    """Tells of the flushes of one source's sink. An `Observer`."""

    def __init__(self, tracing: Tracing, source: str) -> None:
        self._tracing, self._source = tracing, source
        self._broken = False

    def looped(self, progress: Progress) -> None:
        """Nothing to tell."""

    def flushed(self, flush: Flushed) -> None:
        """Tell of a flush, of its transactions, and of records that name a span."""
        try:
            self._tell(flush)
        except Exception as error:  # what is told of the work is not the work
            if not self._broken:
                log.warning("A flush could not be traced: %s: %s", type(error).__name__, error)
            self._broken = True

    def failed(self, failure: Failure) -> None:
        """Tell of a flush that did not land, and of the class of what it raised."""
        clock = Clock.now()
        attributes = {
            "cdc_lake.source": self._source,
            "cdc_lake.run_id": RUN_ID,
            "cdc_lake.batch_id": failure.number,
            "messaging.system": "kafka",
        }
        self._tracing.span(
            f"flush {self._source}",
            clock.at(failure.buffered),
            clock.at(failure.failed),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            error=failure.error,
        )

    def _tell(self, flush: Flushed) -> None:
        clock, times = Clock.now(), flush.times
        ended = list(self._ended(flush))
        attributes = {
            "cdc_lake.source": self._source,
            "cdc_lake.run_id": RUN_ID,
            "cdc_lake.batch_id": flush.number,
            "cdc_lake.dead_letters": flush.dead,
            "cdc_lake.tables": sorted({str(table) for _, table, _ in flush.rows}),
            "cdc_lake.transactions": flush.transactions.num_rows if flush.transactions is not None else 0,
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.batch.message_count": flush.events,
        }
        start, landed = clock.at(times.buffered), clock.at(times.committed)
        whole = self._tracing.span(
            f"flush {self._source}",
            start,
            landed,
            links=[e.context for e in ended],
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            error=next(iter(flush.stopped.values()), None),
        )
        parts = {
            "consume": (times.buffered, times.decoding),
            "decode": (times.decoding, times.decoded),
            "commit": (times.ready, times.committed),
        }
        if whole is not None:
            for name, (begun, done) in parts.items():
                self._tracing.span(name, clock.at(begun), clock.at(done), parent=whole)
        links = [whole] if whole is not None else []
        for one in ended:
            self._transaction(one, clock, flush, links)
        for table, row in _named(flush):
            self._record(table, row, landed, links)

    def _ended(self, flush: Flushed) -> Iterator[_Ended]:
        """The transactions that are told of: those that the sampler takes, a bounded number."""
        ends = flush.transactions
        if ends is None or not ends.num_rows:
            return
        found = 0
        # From all over the flush, not the first ones.
        for row in ends.take(list(range(0, ends.num_rows, max(1, ends.num_rows // LOOKED_AT)))).to_pylist():
            context = self._tracing.transaction(self._source, row["tx_id"]) if row["status"] == "END" else None
            if context is None:
                continue
            attributes = {
                "cdc_lake.source": self._source,
                "cdc_lake.tx_id": row["tx_id"],
                "cdc_lake.lsn": row["lsn"] or 0,
                "cdc_lake.events": row["event_count"] or 0,
                "db.system.name": "postgresql",
            }
            yield _Ended(context, _nanos(row["source_ts"]), attributes)
            found += 1
            if found == TOLD:
                return

    def _transaction(self, one: _Ended, clock: Clock, flush: Flushed, links: list[SpanContext]) -> None:
        times, landed = flush.times, clock.at(flush.times.committed)
        decoding = clock.at(times.decoding)
        # Two clocks: what came before it was sent came at once.
        committed = min(one.committed or decoding, decoding)
        self._tracing.begin_transaction(one.context, committed, landed, links, one.attributes)
        for name, begun, done in (
            ("deliver", committed, decoding),
            ("decode", decoding, clock.at(times.decoded)),
            ("commit", clock.at(times.ready), landed),
        ):
            self._tracing.span(name, begun, done, parent=one.context)

    def _record(self, table: str, row: dict[str, Any], landed: int, links: list[SpanContext]) -> None:
        """A span below the one that a record names: from the commit in the source until it has landed."""
        parent = parent_of(row["__headers"])
        if parent is None:
            return
        own = self._tracing.transaction(self._source, row["__tx_id"]) if row["__tx_id"] else None
        attributes = {
            "cdc_lake.source": self._source,
            "cdc_lake.tx_id": row["__tx_id"] or "",
            "db.collection.name": table,
            "messaging.system": "kafka",
            "messaging.destination.name": row["__topic"],
            "messaging.destination.partition.id": str(row["__partition"]),
            "messaging.kafka.offset": row["__offset"],
        }
        self._tracing.span(
            f"land {table}",
            min(_nanos(row["__source_ts"]) or landed, landed),
            landed,
            parent=remote(parent),
            links=[*links, *([own] if own is not None else [])],
            kind=SpanKind.CONSUMER,
            attributes=attributes,
        )


def _named(flush: Flushed) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records whose headers name a recorded span, one of each trace and table, a bounded number."""
    columns = ["__headers", "__tx_id", "__source_ts", "__topic", "__partition", "__offset"]
    seen: set[tuple[str, str]] = set()
    for _, table, rows in flush.rows:
        headers = rows["__headers"]
        if headers.null_count == rows.num_rows:
            continue
        named = pc.fill_null(pc.match_substring(headers, f'"{HEADER}"'), False)
        for row in rows.select(columns).filter(named).slice(0, LOOKED_AT).to_pylist():
            parent = parent_of(row["__headers"])
            key = (str(table), parent.trace_id if parent is not None else "")
            if parent is None or not parent.sampled or key in seen:
                continue
            seen.add(key)
            yield str(table), row
            if len(seen) == TOLD:
                return


def _nanos(when: Any) -> int | None:
    return int(pa.scalar(when, pa.timestamp("us", tz="UTC")).value) * 1000 if when is not None else None
