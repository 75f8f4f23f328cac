"""A log with the part of it that lies in its tier, both of the moment at which the log was opened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deltalake import DeltaTable

from cdc_lake.events import TableId
from cdc_lake.land.layout import local_path, log_path
from cdc_lake.land.tables import repair_topic
from cdc_lake.land.tier_writing import TierTable
from cdc_lake.land.tiers import Tier, open_pinned, read_pin
from cdc_lake.project.files import LogFile, LogFiles, Older, read_files, topics_of

if TYPE_CHECKING:
    from cdc_lake.project.lake import Lake


def read_log(lake: Lake, source: str, table: TableId) -> LogFiles | None:
    """The log of a table as it is now; None when it has none. Raises LakeError when it cannot be read."""
    path = log_path(lake.root, source, table)
    handle = lake.open(path)
    return log_of(lake, source, table, handle) if handle is not None else None


def log_of(lake: Lake, source: str, table: TableId, handle: DeltaTable) -> LogFiles:
    """The log of a table as its snapshot `handle` has it. The tier is not asked before somebody asks for its files."""
    log = read_files(local_path(log_path(lake.root, source, table)), handle, repair_topic(source))
    pin = read_pin(handle, topics_of(handle, log.own))
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
