"""What a command tells other systems of its work, when the environment asks for it: traces to a collector.

Nothing is imported, made or told otherwise; and what cannot be told never stops a command.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_lake.cli import output
from cdc_lake.errors import first_line
from cdc_lake.trace.wish import wish

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.progress import Observer
    from cdc_lake.project.fold import Folded
    from cdc_lake.project.lake import Lake
    from cdc_lake.query.session import Session
    from cdc_lake.trace.tracing import Tracing, Work

log = logging.getLogger("cdc_lake.trace")
# How long the end of a command waits for what is still to be told.
_SECONDS = 2.0
# Transactions that a fold tells of, the last ones.
_TRANSACTIONS = 32


@dataclass(slots=True)
class Witness:
    """Tells of work; of nothing where nobody asked."""

    tracing: Tracing | None = None
    _works: list[Work] = field(default_factory=list)

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Tell of what is done in it as one piece of work."""
        if self.tracing is None:
            yield
            return
        with self.tracing.work(name) as work:
            self._works.append(work)
            try:
                yield
            finally:
                self._works.pop()

    def observers(self, source: str) -> Sequence[Observer]:
        """Those who watch the sink of a source."""
        if self.tracing is None:
            return ()
        from cdc_lake.trace.sink import SinkSpans

        return (SinkSpans(self.tracing, source),)

    def reads(self, session: Session) -> None:
        """The work under way reads the lake at the cuts of a session."""
        if self.tracing is None or not self._works:
            return
        for source, cut in session.cuts.items():
            context = self.tracing.transaction(source, cut.tx_id) if cut.tx_id is not None else None
            attributes = {"db.system.name": "duckdb", f"cdc_lake.cut.{source}": cut.tx_id or ""}
            self._works[-1].tell(attributes, [context] if context is not None else [])

    def folded(self, lake: Lake, source: str, one: Folded) -> None:
        """A table of a source was folded just now, or failed to be."""
        if self.tracing is None or one.outcome == "current":
            return
        from cdc_lake.project.ended import last_ended
        from cdc_lake.trace.fold import Fold, fold_spans

        end = time.time_ns()
        attributes = {
            "cdc_lake.outcome": one.outcome,
            "cdc_lake.rows": one.rows,
            "cdc_lake.history_rows": one.history_rows,
            "cdc_lake.cut": one.cut,
            **({"error.type": one.error.code} if one.error is not None else {}),
        }
        with _quietly():
            transactions = last_ended(lake, source, one, _TRANSACTIONS)
            fold = Fold(source, str(one.table), (end - int(one.seconds * 1e9), end), transactions)
            fold_spans(self.tracing, fold, attributes, self._works[-1].context if self._works else None)


@contextmanager
def _quietly() -> Iterator[None]:
    """What is told of the work is not the work: it never ends it."""
    try:
        yield
    except Exception as error:
        log.warning("A piece of work could not be told of: %s: %s", type(error).__name__, first_line(error))


@contextmanager
def witnessed(config: Config, work: str = "") -> Iterator[Witness]:
    """A witness of this command, which is one piece of work when that has a name."""
    with ExitStack() as stack:
        witness = Witness(stack.enter_context(_tracing()))
        if work:
            stack.enter_context(witness.work(work))
        yield witness


@contextmanager
def _tracing() -> Iterator[Tracing | None]:
    asked = wish(os.environ)
    if asked is None or asked.problem:
        if asked is not None:
            output.say(f"No traces: {asked.problem}. Next: {asked.fix}")
        yield None
        return
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from cdc_lake.trace.sending import Sender, end
    from cdc_lake.trace.tracing import Tracing, make_provider

    provider = make_provider()
    provider.add_span_processor(BatchSpanProcessor(Sender(asked)))
    try:
        yield Tracing(provider)
    finally:
        end(provider, _SECONDS)
