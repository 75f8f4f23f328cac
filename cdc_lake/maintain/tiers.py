"""The tier of a log kept in shape: what a log counts as its own is all that a step goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cdc_lake.errors import LakeError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.land.swap import swap_files
from cdc_lake.land.tier_writing import TierTable, settle
from cdc_lake.land.tiers import pinned_version
from cdc_lake.maintain.plan import CHECKPOINT, COMPACT, VACUUM, Step
from cdc_lake.maintain.work import do
from cdc_lake.project.lake import Lake
from cdc_lake.project.tiered import read_log, tier_table

# Its commits stay: the log names them. What a killed command left there goes with the first step that needs the lock.
STEPS = (COMPACT, CHECKPOINT, VACUUM)


@dataclass(frozen=True, slots=True)
class Kept:
    """The tier of one log, for a run that may rewrite it."""

    lake: Lake
    source: str
    table: TableId
    tier: TierTable

    @classmethod
    def of(cls, lake: Lake, source: str, table: TableId) -> Kept | None:
        """None when the log has no tier. Raises LakeError when it cannot be read."""
        log = read_log(lake, source, table)
        tier = tier_table(source, table, log) if log is not None else None
        return cls(lake, source, table, tier) if tier is not None else None

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.tier.path

    @property
    def options(self) -> Mapping[str, str] | None:
        """How its store is reached."""
        return self.tier.tier.options

    def settle(self) -> None:
        """Make its newest version hold what the log counts as its own. Needs `lock.sole_rewriter`. Raises LakeError."""
        try:
            settle(self._log(), self.tier)
        except (DeltaError, OSError) as error:
            raise self._failed(error) from error

    def do(self, step: Step, keep: timedelta) -> None:
        """One step. Compaction and vacuum need `lock.sole_rewriter`, and come behind `settle`. Raises LakeError."""
        do(self.path, self.options, step, keep)
        if step.action != COMPACT:
            return
        # The same rows in other files: until the log names them, readers go on with those that were there.
        try:
            self._name_newest()
        except (DeltaError, OSError) as error:
            raise self._failed(error) from error

    def _name_newest(self) -> None:
        pin = self.tier.now()
        before = self.tier.pin.version if self.tier.pin is not None else None
        swap_files(
            self._log,
            [],
            {},
            pin.transactions(),
            landed=lambda log: pinned_version(log) == pin.version,
            fits=lambda log: pinned_version(log) == before,
            overtaken=self._failed(None),
        )

    def _log(self) -> DeltaTable | None:
        return self.lake.open(log_path(self.lake.root, self.source, self.table))

    def _failed(self, error: Exception | None) -> LakeError:
        return LakeError(
            f"The tier of {self.table} could not be kept in shape; what is read is what was read before.",
            why=first_line(error) if error is not None else "Its log was rewritten meanwhile.",
            next="cdc-lake maintain once more",
            code="maintain_failed",
        )
