"""The older part of a log in another place, its tier: a Delta table of its own, of which the log names one version.

The commit of the log that moves rows says in its app transactions which version of the tier belongs to it (the pin).
Whoever has opened a version of the log reads the tier at exactly the version that it names: so each row is in one of
the two at any moment, and at no moment in both. What no commit of the log names of the tier is read by nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deltalake import DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError

from cdc_lake.errors import CdcLakeError, LakeError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.layout import TIERED, log_path, open_delta, written_by
from cdc_lake.land.store_errors import is_named, store_answer

_VERSION, _TABLE, _ROWS, _FILES, _BYTES, _ENDS, _PARTITIONS = (
    f"tier:{name}" for name in ("version", "table", "rows", "files", "bytes", "ends", "partitions")
)
# What the commit says of the place, for a person who looks for it: an app transaction holds no text.
PLACE = "cdc_lake.tier"


@dataclass(frozen=True, slots=True)
class Tier:
    """A place for older parts of logs. `uri` is a folder or a URI, `name` what the configuration calls it."""

    uri: str
    options: Mapping[str, str] | None = field(default=None, repr=False)
    name: str = ""

    def path(self, source: str, table: TableId) -> str:
        """Where the part of a table's log lies: the layout is that of the lake."""
        return log_path(self.uri, source, table)

    def holds(self, path: str) -> bool:
        """Whether `path` lies in it."""
        return path.startswith(f"{self.uri.rstrip('/')}/")


@dataclass(frozen=True, slots=True)
class Pin:
    """What one version of a log says of its tier: which `table` (a number of its id), at which `version`, and what that
    holds. `ends` are, per (topic, partition), the offset behind the last row that was ever moved; None when it is not
    known of all."""

    table: int
    version: int
    rows: int
    files: int
    bytes: int
    ends: Mapping[tuple[str, int], int] | None = None

    def needed(self, lows: Mapping[tuple[str, int], int]) -> bool:
        """Whether the tier may hold a row at or above `lows`; of partitions that are absent everything is wanted."""
        return self.ends is None or any(end > lows.get(place, 0) for place, end in self.ends.items())

    def transactions(self) -> list[Transaction]:
        """The app transactions that say so."""
        numbers = {_VERSION: self.version, _TABLE: self.table}
        numbers |= {_ROWS: self.rows, _FILES: self.files, _BYTES: self.bytes}
        if self.ends is not None:
            numbers[_ENDS] = len(self.ends)
            numbers[_PARTITIONS] = max((partition + 1 for _, partition in self.ends), default=0)
            numbers |= {_end_id(topic, partition): end for (topic, partition), end in sorted(self.ends.items())}
        return [*(Transaction(name, number) for name, number in numbers.items()), written_by(TIERED)]


def _end_id(topic: str, partition: int) -> str:
    return f"tier:p:{partition}:{topic}"


def read_pin(log: DeltaTable, topics: Collection[str]) -> Pin | None:
    """What the snapshot `log`, which `topics` feed, says of its tier; None when it has none."""
    version = log.transaction_version(_VERSION)
    if version is None:
        return None
    table, rows, files, size, count, partitions = (
        log.transaction_version(name) or 0 for name in (_TABLE, _ROWS, _FILES, _BYTES, _ENDS, _PARTITIONS)
    )
    ends = {
        (topic, partition): end
        for topic in topics
        for partition in range(partitions)
        if (end := log.transaction_version(_end_id(topic, partition))) is not None
    }
    return Pin(table, version, rows, files, size, ends if len(ends) == count else None)


def pinned_version(log: DeltaTable) -> int | None:
    """The version of the tier that the snapshot `log` names."""
    return log.transaction_version(_VERSION)


def table_number(table: DeltaTable) -> int:
    """A number for the id of a table: an app transaction holds no text."""
    return int(hashlib.sha256(str(table.metadata().id).encode()).hexdigest()[:15], 16)


def open_pinned(
    tiers: Sequence[Tier], source: str, table: TableId, pin: Pin, log: DeltaTable
) -> tuple[Tier, DeltaTable]:
    """The tier of a table's log at the version that its snapshot `log` names, and which of `tiers` has it.

    It is known by its id, so it may have been copied to another place. Raises LakeError when none of them has it.
    """
    failed = dict[str, CdcLakeError]()
    for tier in tiers:
        try:
            found = _open_at(tier, tier.path(source, table), pin)
        except CdcLakeError as error:
            failed.setdefault(tier.name or tier.uri, error)
            continue
        if found is not None:
            return tier, found
    for name, why in failed.items():
        raise LakeError(
            f"The older changes of {table} cannot be read: they are in {name}.",
            why=" ".join(t for t in (why.message, why.why) if t),
            next="see that the place is there and can be reached, then run the command again",
            code="tier_away",
        )
    raise _missing(tiers, table, log)


def _open_at(tier: Tier, path: str, pin: Pin) -> DeltaTable | None:
    """The table that is meant, at the version that is; None when there is none, or another one."""
    newest = open_delta(path, tier.options)
    if newest is None or table_number(newest) != pin.table:
        return None
    if newest.version() == pin.version:
        return newest
    try:
        return DeltaTable(path, version=pin.version, storage_options=dict(tier.options) if tier.options else None)
    except (DeltaError, OSError, TableNotFoundError) as error:
        why = store_answer(path, error) if is_named(path, error) else first_line(error)
        raise LakeError(f"{path} has no version {pin.version}.", why=why, next="", code="tier_away") from error


def _missing(tiers: Sequence[Tier], table: TableId, log: DeltaTable) -> LakeError:
    was, named = next(_places(log), ""), ", ".join(t.name or t.uri for t in tiers)
    return LakeError(
        f"The older changes of {table} cannot be read: no tier that the configuration names has them.",
        why=(f"They were moved to {was}. " if was else "")
        + (f"The configuration names {named}." if named else "No class of `retention` names a tier."),
        next="put the tier back, or name the place where it is now as `tier.uri` of the table's class",
        code="tier_away",
    )


def _places(log: DeltaTable) -> Iterator[str]:
    """Where the commits that are still there say that rows went, the last one first."""
    try:
        for commit in log.history():
            if PLACE in commit:
                yield str(commit[PLACE])
    except (DeltaError, OSError):
        return
