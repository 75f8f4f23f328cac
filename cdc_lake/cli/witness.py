"""What a command tells other systems of its work, when the environment asks for it: traces and lineage.

Nothing is imported, made or told otherwise; and what cannot be told never stops a command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdc_lake.cli import output
from cdc_lake.cli.told import lineage_of
from cdc_lake.errors import first_line
from cdc_lake.trace.opened import tracing_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cdc_lake.cli.lineage_jobs import Telling
    from cdc_lake.config import Config
    from cdc_lake.progress import Observer
    from cdc_lake.project.fold import Folded
    from cdc_lake.project.lake import Lake
    from cdc_lake.query.session import Session
    from cdc_lake.react.batches import Told
    from cdc_lake.react.stream.shape import Shape
    from cdc_lake.react.watch import Target
    from cdc_lake.trace.tracing import Tracing, Work

log = logging.getLogger("cdc_lake.told")
# Transactions that a fold tells of, the last ones.
_TRANSACTIONS = 32

Outcomes = Callable[[], Mapping[str, tuple[int, BaseException | None]]]
"""By name: how many rows a model or a rule made, and the error that stopped it."""


@dataclass(slots=True)
class Witness:
    """Tells of work; of nothing where nobody asked."""

    tracing: Tracing | None = None
    lineage: Telling | None = None
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
        found: list[Observer] = []
        if self.tracing is not None:
            from cdc_lake.trace.sink import SinkSpans

            found.append(SinkSpans(self.tracing, source))
        if self.lineage is not None:
            found.append(self.lineage.sink(source))
        return found

    def sink(self, source: str) -> AbstractContextManager[None]:
        """The sink of a source runs in it."""
        return self.lineage.sink(source).running() if self.lineage is not None else nullcontext()

    def models(self, shapes: Sequence[Shape], outcomes: Outcomes) -> AbstractContextManager[None]:
        """Streaming models are kept up in it."""
        return self.lineage.models(shapes, outcomes) if self.lineage is not None else nullcontext()

    def rules(self, targets: Sequence[Target], outcomes: Outcomes) -> AbstractContextManager[None]:
        """Rules are evaluated in it."""
        return self.lineage.rules(targets, outcomes) if self.lineage is not None else nullcontext()

    def batches(self, config: Config, kind: str) -> Told | None:
        """Who is told of what models (`stream`) or rules (`rules`) evaluate at once; None where nobody asked."""
        if self.tracing is None:
            return None
        from cdc_lake.cli.told import batch_told

        return batch_told(config, self.tracing, kind, _TRANSACTIONS)

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
        if one.outcome not in ("folded", "failed"):
            return
        if self.lineage is not None:
            with _quietly():
                self.lineage.folded(lake, source, one)
        if self.tracing is not None:
            with _quietly():
                self._trace(self.tracing, lake, source, one)

    def _trace(self, tracing: Tracing, lake: Lake, source: str, one: Folded) -> None:
        from cdc_lake.project.ended import last_ended
        from cdc_lake.trace.taken import Taken, taken_spans

        end = time.time_ns()
        attributes: dict[str, Any] = {
            "cdc_lake.outcome": one.outcome,
            "cdc_lake.rows": one.rows,
            "cdc_lake.history_rows": one.history_rows,
            "cdc_lake.cut": one.cut,
            "db.collection.name": str(one.table),
        }
        transactions = last_ended(lake, source, [one.table], (one.before, one.cut), _TRANSACTIONS)
        times = (end - int(one.seconds * 1e9), end)
        taken = Taken(f"fold {one.table}", source, times, transactions, one.error)
        taken_spans(tracing, taken, attributes, self._works[-1].context if self._works else None)


@contextmanager
def witnessed(config: Config, work: str = "") -> Iterator[Witness]:
    """A witness of this command, which is one piece of work when that has a name."""
    with ExitStack() as stack:
        witness = Witness(stack.enter_context(tracing_of(output.say)), stack.enter_context(lineage_of(config)))
        if work:
            stack.enter_context(witness.work(work))
        yield witness


@contextmanager
def _quietly() -> Iterator[None]:
    """What is told of the work is not the work: it never ends it."""
    try:
        yield
    except Exception as error:
        log.warning("A piece of work could not be told of: %s: %s", type(error).__name__, first_line(error))
