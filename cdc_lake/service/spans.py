"""What an instance handles as spans, in the traces that its events carry.

An event names a span by its extension `traceparent`: what handles it is below that, and each event that it causes is
below this, under the id that the event itself carries. So those who handle that one go on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanContext, SpanKind

from cdc_lake.service.event import Event, Outgoing, trace_of
from cdc_lake.service.shard import Handled
from cdc_lake.trace.tracing import Clock, remote
from cdc_lake.traceids import parse_traceparent

if TYPE_CHECKING:
    from cdc_lake.trace.tracing import Attributes, Tracing

log = logging.getLogger("cdc_lake.trace")


class ServiceSpans:
    """Tells of what was handled by an instance of `service`, a version's name."""

    def __init__(self, tracing: Tracing, service: str) -> None:
        self._tracing, self._service = tracing, service
        self._broken = False

    def handled(self, events: Sequence[Handled]) -> None:
        """Tell of events that were handled, and of those that they caused."""
        try:
            clock = Clock.now()
            for one in events:
                self._tell(one, clock)
        except Exception as error:  # what is told of the work is not the work
            if not self._broken:
                log.warning("An event could not be traced: %s: %s", type(error).__name__, error)
            self._broken = True

    def _tell(self, one: Handled, clock: Clock) -> None:
        begun, done = clock.at(one.begun), clock.at(one.done)
        cause = parse_traceparent(one.event.traceparent)
        name = f"handle {one.event.type}"
        told: dict[str, Any] = {
            "kind": SpanKind.CONSUMER,
            "attributes": self._attributes(one),
            "error": one.error,
        }
        if cause is not None:
            whole = self._tracing.span(name, begun, done, parent=remote(cause), **told)
        else:  # a trace of its own: the one that the events carry that it causes
            trace = int(trace_of(one.event), 16)
            whole = self._tracing.begin(name, trace, begun, done, **told)
        for record in one.sent if whole is not None else ():
            self._sent(record, done, whole)

    def _attributes(self, one: Handled) -> Attributes:
        return {
            "cdc_lake.service": self._service,
            "cdc_lake.outcome": one.outcome,
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            **_place(one.event),
            "cloudevents.event_id": one.event.id,
            "cloudevents.event_source": one.event.source,
            "cloudevents.event_type": one.event.type,
        }

    def _sent(self, record: Outgoing, when: int, below: SpanContext | None) -> None:
        said = {name: value.decode() for name, value in record.headers if name.startswith("ce_")}
        own = parse_traceparent(said.get("ce_traceparent", ""))
        if own is None:
            return
        attributes = {
            "cdc_lake.service": self._service,
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.destination.name": record.topic,
            "cloudevents.event_id": said.get("ce_id", ""),
            "cloudevents.event_type": said.get("ce_type", ""),
        }
        name = f"send {said.get('ce_type', '')}"
        self._tracing.under(remote(own), name, when, when, parent=below, kind=SpanKind.PRODUCER, attributes=attributes)


def _place(event: Event) -> Attributes:
    if event.place is None:
        return {}
    return {
        "messaging.destination.name": event.place.topic,
        "messaging.destination.partition.id": str(event.place.partition),
        "messaging.kafka.offset": event.place.offset,
    }
