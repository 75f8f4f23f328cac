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

if TYPE_CHECKING:
    from cdc_lake.cli.lineage_jobs import Telling
    from cdc_lake.config import Config
    from cdc_lake.react.batches import Batch, Told
    from cdc_lake.trace.tracing import Tracing

log = logging.getLogger("cdc_lake.told")


def batch_told(config: Config, tracing: Tracing, kind: str, most: int) -> Told:
    """Tells of what models or rules evaluated at once as spans, in the traces of at most `most` of its transactions."""
    from cdc_lake.project.ended import last_ended
    from cdc_lake.query.session import open_lake
    from cdc_lake.trace.taken import Taken, taken_spans
    from cdc_lake.trace.tracing import Clock

    def tell(batch: Batch) -> None:
        try:
            lake, clock = open_lake(config), Clock.now()
            transactions = last_ended(lake, batch.source, batch.tables, (batch.after, batch.upto), most)
            attributes = {
                f"cdc_lake.{kind}": batch.names,
                "cdc_lake.rows": batch.rows,
                "cdc_lake.late": batch.late,
                "cdc_lake.cut": batch.upto,
            }
            name = f"{kind} {batch.names[0] if len(batch.names) == 1 else batch.source}"
            begun, done = batch.times
            taken = Taken(name, batch.source, (clock.at(begun), clock.at(done)), transactions, batch.error)
            taken_spans(tracing, taken, attributes, None)
        except Exception as error:  # what is told of the work is not the work
            log.warning("A piece of work could not be told of: %s: %s", type(error).__name__, first_line(error))

    return tell


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
