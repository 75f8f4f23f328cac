"""A log with the part of it that lies in its tier, both of the moment at which the log was opened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import local_path, log_path
from cdc_lake.land.tables import repair_topic
from cdc_lake.land.tier_writing import TierTable
from cdc_lake.land.tiers import Pin, Tier, open_pinned, read_pin
from cdc_lake.project.files import LogFile, LogFiles, Older, read_files, topics_of

if TYPE_CHECKING:
    from cdc_lake.project.lake import Lake


def read_log(lake: Lake, source: str, table: TableId) -> LogFiles | None:
    """The log of a table as it is now; None when it has none. Raises LakeError when it cannot be read."""
    path = log_path(lake.root, source, table)
    handle = lake.newest(path)
    if handle is None:
        return None

    def read(known: tuple[LogFiles, Pin | None] | None) -> tuple[LogFiles, Pin | None]:
        return _read(lake, source, table, handle, known[0] if known is not None else None)

    # Whether the tier can be read is asked anew each time.
    return _with_older(lake, source, table, handle, lake.of_version("log", path, handle, read))


def log_of(lake: Lake, source: str, table: TableId, handle: DeltaTable) -> LogFiles:
    """The log of a table as its snapshot `handle` has it. The tier is not asked before somebody asks for its files."""
    return _with_older(lake, source, table, handle, _read(lake, source, table, handle, None))


def _read(
    lake: Lake, source: str, table: TableId, handle: DeltaTable, known: LogFiles | None
) -> tuple[LogFiles, Pin | None]:
    """What lies in the log itself, and what it says of its tier. `known` is an earlier version of it."""
    log = read_files(local_path(log_path(lake.root, source, table)), handle, repair_topic(source), known=known)
    return log, read_pin(handle, topics_of(handle, log.own))


def _with_older(
    lake: Lake, source: str, table: TableId, handle: DeltaTable, found: tuple[LogFiles, Pin | None]
) -> LogFiles:
    log, pin = found
    if pin is None:
        return log

    def find() -> tuple[Tier, tuple[LogFile, ...]]:
        tier, found = open_pinned(lake.tiers, source, table, pin, handle)
        return tier, read_files(local_path(tier.path(source, table)), found).own

    return replace(log, older=Older(pin, find))


def tier_table(source: str, table: TableId, log: LogFiles) -> TierTable | None:
    """The tier that a table's log has; None when it has none. Raises LakeError when it cannot be read."""
    if log.older is None:
        return None
    tier = log.older.tier
    return TierTable(tier, tier.path(source, table), log.older.pin)
