"""A process's traces: spans with times of their own, and the trace of each transaction of a source.

A transaction's trace and its first span have ids that follow from the source and the transaction (see `traceids`), so
that the sink, a fold and a query write into it and link to it without knowing of each other. Whether it is recorded
follows from its id too, by the sampler of the environment: with `parentbased_traceidratio` all of them decide alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from cdc_lake import __version__
from cdc_lake.errors import CdcLakeError
from cdc_lake.logs import RUN_ID
from cdc_lake.traceids import Parent, transaction_span, transaction_trace

Attributes = Mapping[str, Any]
TRANSACTION = "transaction"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(frozen=True, slots=True)
class Clock:
    """What `time.monotonic` said, as a time of the day in nanoseconds."""

    offset: int

    @classmethod
    def now(cls) -> Clock:
        """As it is now."""
        return cls(time.time_ns() - time.monotonic_ns())

    def at(self, monotonic: float) -> int:
        """The time of the day."""
        return self.offset + int(monotonic * 1e9)


class _Ids(RandomIdGenerator):
    """Ids at random, except while a transaction's first span is made."""

    given: ContextVar[tuple[int, int] | None] = ContextVar("given", default=None)

    def generate_trace_id(self) -> int:
        """The next trace's."""
        given = self.given.get()
        return given[0] if given is not None else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The next span's."""
        given = self.given.get()
        return given[1] if given is not None else super().generate_span_id()


class Tracing:
    """The spans of one process. `provider` says where they go; whoever made it ends it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("cdc_lake", __version__)

    def span(
        self,
        name: str,
        start: int | None = None,
        end: int | None = None,
        *,
        parent: SpanContext | None = None,
        links: Sequence[SpanContext] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        error: BaseException | None = None,
    ) -> SpanContext | None:
        """Tell of what happened between two times (nanoseconds), and of what it failed with; its context, None when it
        is not recorded."""
        within = set_span_in_context(NonRecordingSpan(parent)) if parent is not None else Context()
        span = self._tracer.start_span(
            name, within, kind, attributes=attributes, links=[Link(c) for c in links], start_time=start
        )
        if error is not None:
            _failed(span, error, end)
        span.end(end)
        return span.get_span_context() if span.get_span_context().trace_flags.sampled else None

    def transaction(self, source: str, tx_id: str) -> SpanContext | None:
        """The first span of a transaction's trace, whoever tells of it; None when that trace is not recorded."""
        trace_id = int(transaction_trace(source, tx_id), 16)
        found = self._provider.sampler.should_sample(None, trace_id, TRANSACTION)
        if found.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return SpanContext(trace_id, int(transaction_span(source, tx_id), 16), is_remote=True, trace_flags=_SAMPLED)

    def begin_transaction(
        self, context: SpanContext, start: int, end: int, links: Sequence[SpanContext], attributes: Attributes
    ) -> None:
        """Tell of the first span of a transaction's trace itself."""
        self.under(context, TRANSACTION, start, end, links=links, attributes=attributes)

    def under(self, context: SpanContext, name: str, start: int, end: int, **others: Any) -> SpanContext | None:
        """As `span`, under ids that are given."""
        token = _Ids.given.set((context.trace_id, context.span_id))
        try:
            return self.span(name, start, end, **others)
        finally:
            _Ids.given.reset(token)

    def begin(self, name: str, trace_id: int, start: int, end: int, **others: Any) -> SpanContext | None:
        """As `span`, the first one of a trace whose id is given."""
        context = SpanContext(trace_id, self._provider.id_generator.generate_span_id(), is_remote=False)
        return self.under(context, name, start, end, **others)

    @contextmanager
    def work(self, name: str, attributes: Attributes | None = None) -> Iterator[Work]:
        """Tell of what is done in it, as part of the trace that `TRACEPARENT` in the environment names, if any."""
        carrier = {k.lower(): v for k, v in os.environ.items() if k in ("TRACEPARENT", "TRACESTATE")}
        span = self._tracer.start_span(name, extract(carrier, Context()), attributes=attributes)
        try:
            yield Work(span)
        except BaseException as error:
            _failed(span, error)
            raise
        finally:
            span.end()


@dataclass(frozen=True, slots=True)
class Work:
    """A span that goes on."""

    span: Span

    @property
    def context(self) -> SpanContext:
        """What others link to, and put below it."""
        return self.span.get_span_context()

    def tell(self, attributes: Attributes, links: Sequence[SpanContext] = ()) -> None:
        """Add what has turned out."""
        self.span.set_attributes(attributes)
        for context in links:
            self.span.add_link(context)


def _failed(span: Span, error: BaseException, when: int | None = None) -> None:
    """The words of an error may hold what is not for everybody; its class and its code do not."""
    kind = type(error)
    span.set_attribute("error.type", error.code if isinstance(error, CdcLakeError) else kind.__name__)
    span.set_status(Status(StatusCode.ERROR))
    span.add_event("exception", {"exception.type": f"{kind.__module__}.{kind.__qualname__}"}, when)


def make_provider(service: str = "cdc-lake") -> TracerProvider:
    """A provider of a service that sends nowhere yet, with the sampler and the resource of the environment."""
    named = OTELResourceDetector().detect().attributes
    own = {"service.name": service, "service.version": __version__, "service.instance.id": RUN_ID}
    resource = Resource.create({k: v for k, v in own.items() if k not in named})
    return TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)


def remote(parent: Parent) -> SpanContext:
    """The span that a record names."""
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
