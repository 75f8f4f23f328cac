"""Does the collector take traces? Asked with a batch of no spans."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_lake.checks import Check, ok, warn
from cdc_lake.trace.wish import wish

_SECONDS = 3.0


def check_traces(environ: Mapping[str, str]) -> list[Check]:
    """The finding; none when nobody asked for traces."""
    asked = wish(environ)
    if asked is None:
        return []
    why, fix = asked.problem, asked.fix
    if not why:
        from cdc_lake.trace.sending import Sender

        sender = Sender(asked, seconds=_SECONDS)
        why = sender.attempt([])
        sender.shutdown()
        fix = "correct OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS, or start the collector"
    if not why:
        return [ok("traces.delivered", asked.shown)]
    return [warn("traces.delivered", f"no traces to {asked.shown}", why=f"{why}. Everything else works.", fix=fix)]
