"""A base for services: processes that read events, keep a read model of their own, and answer with events.

A `Service` is declared (its topics, its tables, a function for each type of event, its answers over HTTP) and run by
`serve` as a process, or by a `Runner` step by step. What a handler changes, the position in the log and the events that
it sends are one local transaction; docs/how-to/services.md says what follows from that.
"""

from cdc_lake.service.changes import changes_of
from cdc_lake.service.context import Context, Rejected, Temporary
from cdc_lake.service.event import Event, Place
from cdc_lake.service.merge import Merge
from cdc_lake.service.past import evaluated
from cdc_lake.service.process import serve
from cdc_lake.service.service import Service
from cdc_lake.service.trial import Trial

__all__ = [
    "Context",
    "Event",
    "Merge",
    "Place",
    "Rejected",
    "Service",
    "Temporary",
    "Trial",
    "changes_of",
    "evaluated",
    "serve",
]
