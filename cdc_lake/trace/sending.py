"""Spans to a collector: in batches, on a thread of their own, and never in the way of what they tell about."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cdc_lake import undelivered
from cdc_lake.logs import Redactor
from cdc_lake.trace.wish import Wish, secrets

log = logging.getLogger("cdc_lake.trace")
_THEIRS = "opentelemetry"
_LONGEST = 200


class Sender(SpanExporter):
    """Sends by OTLP over HTTP, says once when that fails and once when it goes again, and counts what was lost."""

    def __init__(self, asked: Wish, *, seconds: float | None = None) -> None:
        """Where spans go, and with what headers, the exporter itself reads from the environment; and how long it tries,
        unless that is given."""
        self.endpoint, self._failing = asked.shown, False
        self._redact = Redactor(secrets(os.environ))
        self._words = _LastWords()
        theirs = logging.getLogger(_THEIRS)
        theirs.handlers[:] = [self._words]
        theirs.propagate = False  # it would write a line for each attempt
        self._inner: SpanExporter = OTLPSpanExporter(timeout=seconds)

    @property
    def troubled(self) -> bool:
        """Whether the last attempt has failed, or has to be made again."""
        return self._failing or bool(self._words.text)

    def attempt(self, spans: Sequence[ReadableSpan]) -> str:
        """Send a batch; why that failed, or nothing."""
        self._words.text = ""
        try:
            if self._inner.export(spans) is SpanExportResult.SUCCESS:
                return ""
        except Exception as error:
            self._words.text = f"{type(error).__name__}: {error}"
        return self._redact(self._words.text)[:_LONGEST] or "no answer"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; a failure is told, not raised."""
        why = self.attempt(spans)
        if why:
            undelivered.count("traces", len(spans))
        if why and not self._failing:
            log.warning("Traces do not reach %s and have gaps from now on: %s", self.endpoint, why)
        if self._failing and not why:
            log.warning("Traces reach %s again.", self.endpoint)
        self._failing = bool(why)
        return SpanExportResult.FAILURE if why else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Give up what is being tried."""
        self._inner.shutdown()


class _LastWords(logging.Handler):
    """Keeps the last thing that OpenTelemetry's own loggers said."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def end(provider: TracerProvider, sender: Sender) -> None:
    """Deliver what is left, and wait a bounded time for it: a short one where the collector makes trouble."""
    closing = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
    closing.start()
    if not undelivered.wait_for_last(closing, lambda: sender.troubled):
        log.warning("The last traces were not delivered to %s in time.", sender.endpoint)
