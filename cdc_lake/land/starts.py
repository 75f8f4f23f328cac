"""Where a log begins when retention took its older rows away.

In their place stand starting rows: for each row that the source's table had at that position, the image that made it,
as an `r`. They bear the topic `start_topic(source)` and offsets below zero, which no record of Kafka has: a fold, which
has read beyond them, passes them by, and whoever reads the log from its start meets them first.

The position and, per partition, the first offset that was kept are app transactions of the log, in the commit that took
the rows away.
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalake import DeltaTable, Transaction

from cdc_lake.events import TopicPartition

_POSITION = "retention:start"

# What `__snapshot` says of a starting row.
START = "start"


def start_topic(source: str) -> str:
    """The topic that starting rows bear. Kafka's own names hold no colon."""
    return f"{source}:start"


def start_of(log: DeltaTable) -> int:
    """The position that the log begins at; 0 when it is whole."""
    return log.transaction_version(_POSITION) or 0


def kept_from(log: DeltaTable, tp: TopicPartition) -> int:
    """The first offset of `tp` that retention has kept; 0 when the log is whole."""
    return log.transaction_version(_kept_id(tp)) or 0


def start_transactions(position: int, kept: Mapping[TopicPartition, int]) -> list[Transaction]:
    """The app transactions that say so."""
    found = [Transaction(_POSITION, position)]
    return found + [Transaction(_kept_id(tp), offset) for tp, offset in sorted(kept.items())]


def _kept_id(tp: TopicPartition) -> str:
    return f"retention:p:{tp.partition}:{tp.topic}"
