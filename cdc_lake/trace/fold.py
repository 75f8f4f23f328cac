"""A fold as spans: one of its own, and one in the trace of each transaction that is told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import SpanContext

from cdc_lake.trace.tracing import Attributes, Tracing


@dataclass(frozen=True, slots=True)
class Fold:
    """The fold of a table: when, in nanoseconds, and some of the transactions that it took."""

    source: str
    table: str
    times: tuple[int, int]
    transactions: Sequence[str]


def fold_spans(tracing: Tracing, fold: Fold, attributes: Attributes, within: SpanContext | None) -> None:
    """Tell of a fold, as part of the work `within`, and in its transactions' traces."""
    contexts = [c for c in (tracing.transaction(fold.source, t) for t in fold.transactions) if c is not None]
    own = {"cdc_lake.source": fold.source, "db.collection.name": fold.table, **attributes}
    name = f"fold {fold.table}"
    whole = tracing.span(name, *fold.times, parent=within, links=contexts, attributes=own)
    for context in contexts:
        tracing.span(name, *fold.times, parent=context, links=[whole] if whole is not None else [], attributes=own)
