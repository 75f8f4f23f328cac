"""Spans for programs that trace themselves: what this library does for them is told where they tell of the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


@contextmanager
def session_span() -> Iterator[list[tuple[str, str | None]]]:
    """A span of the program's own tracer around the opening of a session, linked to the transactions at its cuts, which
    are put into what is given: (source, transaction).

    Nothing is imported for a program that has not done so itself.
    """
    cuts: list[tuple[str, str | None]] = []
    if "opentelemetry.trace" not in sys.modules:
        yield cuts
        return
    from opentelemetry import trace

    with trace.get_tracer("cdc_lake").start_as_current_span("connect") as span:
        yield cuts
        for context in _contexts(cuts):
            span.add_link(context)
        span.set_attributes({f"cdc_lake.cut.{source}": tx_id or "" for source, tx_id in cuts})


def _contexts(cuts: Iterable[tuple[str, str | None]]) -> Iterator[SpanContext]:
    from opentelemetry.trace import SpanContext, TraceFlags

    from cdc_lake.traceids import transaction_span, transaction_trace

    for source, tx_id in cuts:
        if tx_id is not None:
            ids = int(transaction_trace(source, tx_id), 16), int(transaction_span(source, tx_id), 16)
            yield SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
