"""Work that took transactions, as spans: one of its own, and one in the trace of each transaction that is told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import SpanContext

from cdc_lake.trace.tracing import Attributes, Tracing


@dataclass(frozen=True, slots=True)
class Taken:
    """A fold of a table, or what a model or rules evaluated at once: when, in nanoseconds, some of the transactions
    that it took, and what it failed with."""

    name: str
    source: str
    times: tuple[int, int]
    transactions: Sequence[str]
    error: BaseException | None = None


def taken_spans(tracing: Tracing, taken: Taken, attributes: Attributes, within: SpanContext | None) -> None:
    """Tell of the work, as part of the work `within`, and in its transactions' traces."""
    contexts = [c for c in (tracing.transaction(taken.source, t) for t in taken.transactions) if c is not None]
    own = {"cdc_lake.source": taken.source, **attributes}
    start, end = taken.times
    whole = tracing.span(taken.name, start, end, parent=within, links=contexts, attributes=own, error=taken.error)
    links = [whole] if whole is not None else []
    for context in contexts:
        tracing.span(taken.name, start, end, parent=context, links=links, attributes=own, error=taken.error)
