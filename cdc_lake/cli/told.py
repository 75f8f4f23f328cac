"""Those who are told of a command's work, where the environment asks for it: opened, and closed within bounded time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdc_lake.cli import output
from cdc_lake.errors import first_line
from cdc_lake.lineage import wish as of_lineage
from cdc_lake.trace import wish as of_traces

if TYPE_CHECKING:
    from cdc_lake.cli.lineage_jobs import Telling
    from cdc_lake.config import Config
    from cdc_lake.trace.tracing import Tracing

log = logging.getLogger("cdc_lake.told")


@contextmanager
def tracing_of() -> Iterator[Tracing | None]:
    """This process's traces; None where nobody asked, or none can be sent, which is said."""
    asked = of_traces.wish(os.environ)
    if asked is None or asked.problem:
        if asked is not None:
            output.say(f"No traces: {asked.problem}. Next: {asked.fix}")
        yield None
        return
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from cdc_lake.trace.sending import Sender, end
    from cdc_lake.trace.tracing import Tracing, make_provider

    provider, sender = make_provider(), Sender(asked)
    provider.add_span_processor(BatchSpanProcessor(sender))
    try:
        yield Tracing(provider)
    finally:
        end(provider, sender)


@contextmanager
def lineage_of(config: Config) -> Iterator[Telling | None]:
    """What this process tells of lineage; None where nobody asked, or none can be sent, which is said."""
    asked = of_lineage.wish(os.environ, Path(), of_lineage.home_folder())
    if asked is None or asked.problem:
        if asked is not None:
            output.say(f"No lineage: {asked.problem}. Next: {asked.fix}")
        yield None
        return
    from cdc_lake.cli.lineage_jobs import Telling
    from cdc_lake.lineage.runs import NAMESPACE, Lineage
    from cdc_lake.lineage.sending import Sender
    from cdc_lake.logs import Redactor, secrets_of

    secrets = [*secrets_of(config), *of_lineage.secrets(os.environ)]
    try:
        sender = Sender(secrets)
    except Exception as error:  # what its client finds wrong with what it was given
        why = Redactor(secrets)(first_line(error))
        output.say(f"No lineage: {why}. Next: correct {asked.by}")
        yield None
        return
    try:
        yield Telling(config, Lineage(sender.send, os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE, sender.redact))
    finally:
        sender.close()
