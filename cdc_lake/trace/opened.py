"""A process's traces, where the environment asks for them: opened, and closed within bounded time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cdc_lake.trace.wish import wish

if TYPE_CHECKING:
    from cdc_lake.trace.tracing import Tracing


@contextmanager
def tracing_of(say: Callable[[str], None], service: str = "cdc-lake") -> Iterator[Tracing | None]:
    """This process's traces, as those of `service`; None where nobody asked, or none can be sent, which is said."""
    asked = wish(os.environ)
    if asked is None or asked.problem:
        if asked is not None:
            say(f"No traces: {asked.problem}. Next: {asked.fix}")
        yield None
        return
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from cdc_lake.trace.sending import Sender, end
    from cdc_lake.trace.tracing import Tracing, make_provider

    provider, sender = make_provider(service), Sender(asked)
    provider.add_span_processor(BatchSpanProcessor(sender))
    try:
        yield Tracing(provider)
    finally:
        end(provider, sender)
