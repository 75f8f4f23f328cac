"""Change a log and its tier as one: the tier first, which nobody reads yet, then the log, which names what was written.

Killed between the two, the log names what it named before. What the tier has beyond that counts for nothing, and the
next change begins by saying what the tier is to hold, whatever a killed one left there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow.fs as pafs
from deltalake import DeltaTable, Transaction
from deltalake.transaction import AddAction

from cdc_lake.crashpoints import reach
from cdc_lake.errors import LakeError
from cdc_lake.land.layout import open_delta
from cdc_lake.land.store import REMEMBERED
from cdc_lake.land.swap import live_actions, live_files, rows_in, swap_files
from cdc_lake.land.tables import LOG
from cdc_lake.land.tiers import PLACE, Pin, Tier, pinned_version, table_number

_CHUNK_BYTES = 4 << 20
# A version that a log names must be there for as long as the log names it.
_KEPT = REMEMBERED | {"delta.enableExpiredLogCleanup": "false"}


@dataclass(frozen=True, slots=True)
class Change:
    """Data files that come, and those that go (name to bytes)."""

    added: Sequence[AddAction] = ()
    gone: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TierTable:
    """The tier of one log: where it is, and what the log's snapshot says of it (None: it has none yet)."""

    tier: Tier
    path: str
    pin: Pin | None

    def open(self) -> DeltaTable | None:
        """Its newest version, which the log need not name."""
        return open_delta(self.path, self.tier.options)

    def make(self, log: DeltaTable) -> DeltaTable:
        """Its newest version; it is made where there is none. Raises LakeError when it is that of another log."""
        about, options = json.dumps({"log": str(log.metadata().id)}), dict(self.tier.options or {}) or None
        found = self.open()
        if found is None and self.pin is None:
            DeltaTable.create(self.path, LOG, description=about, configuration=_KEPT, storage_options=options)
            found = self.open()
        if found is None or found.metadata().description != about or not self._is_meant(found):
            raise LakeError(
                f"{self.path} is not the tier of this log.",
                why="It holds the older changes of another lake."
                if self.pin is None
                else "The older changes of this log are in another place, and a log has one tier.",
                next="name another `tier.uri` for the class, or copy the tier that the log has to where it names",
                code="tier_foreign",
            )
        return found

    def _is_meant(self, found: DeltaTable) -> bool:
        return self.pin is None or table_number(found) == self.pin.table

    def content(self) -> dict[str, AddAction]:
        """The files that the log's snapshot counts as its own."""
        if self.pin is None:
            return {}
        options = dict(self.tier.options or {}) or None
        return live_actions(DeltaTable(self.path, version=self.pin.version, storage_options=options))

    def set_content(self, log: DeltaTable, change: Change) -> Pin:
        """Let the newest version hold what the log counts as its own, with `change`: one commit or none, and the pin of
        it. What a killed change left goes. Raises LakeError."""
        found = self.make(log)
        wanted = self.content()
        wanted = {n: a for n, a in wanted.items() if n not in change.gone} | {a.path: a for a in change.added}
        there = live_files(found)
        if there.keys() != wanted.keys():
            swap_files(
                self.open,
                [a for n, a in wanted.items() if n not in there],
                {n: size for n, size in there.items() if n not in wanted},
                [],
                landed=lambda now: live_files(now).keys() == wanted.keys(),
                overtaken=_overtaken(self.path),
                fits=lambda now: now.version() == found.version(),
            )
            found = self.make(log)
            if live_files(found).keys() != wanted.keys():
                raise _overtaken(self.path)
        return self._pin_of(found)

    def now(self) -> Pin:
        """The pin of its newest version. Raises LakeError when it holds other rows than the log counts as its own."""
        found = self.open()
        pin = self._pin_of(found) if found is not None else None
        if pin is None or self.pin is None or pin.rows != self.pin.rows:
            raise _overtaken(self.path)
        return pin

    def _pin_of(self, found: DeltaTable) -> Pin:
        actions = live_actions(found).values()
        rows, size = rows_in(list(actions)), sum(a.size for a in actions)
        ends = self.pin.ends if self.pin is not None else {}
        return Pin(table_number(found), found.version(), rows, len(actions), size, ends)


def swap_tiered(
    opened: Callable[[], DeltaTable | None],
    table: TierTable,
    hot: Change,
    cold: Change,
    transactions: Sequence[Transaction],
    *,
    overtaken: LakeError,
    fits: Callable[[DeltaTable], bool] = lambda _: True,
    ends: Mapping[tuple[str, int], int] | None = None,
) -> None:
    """Change the log that `opened` gives (`hot`) and its tier (`cold`). Needs `lock.sole_rewriter`; rows may be
    appended meanwhile. `ends` are the offsets behind the rows that are moved now.

    1. Commit to the tier what it holds from now on: no reader sees it.
    2. Commit to the log its own change, and the version of the tier that belongs to it: now every reader does.
    Raises `overtaken` when the log is no longer what was read.
    """
    log = opened()
    if log is None or not fits(log) or pinned_version(log) != (table.pin.version if table.pin is not None else None):
        raise overtaken
    reach("tier:before-tier-commit")
    pin = table.set_content(log, cold)
    reach("tier:between-commits")
    if pin.ends is not None:
        both = {*pin.ends, *(ends or {})}
        pin = replace(pin, ends={p: max(pin.ends.get(p, 0), (ends or {}).get(p, 0)) for p in both})
    before = pinned_version(log)
    swap_files(
        opened,
        hot.added,
        hot.gone,
        [*transactions, *pin.transactions()],
        landed=lambda now: pinned_version(now) == pin.version and not hot.gone.keys() & live_files(now).keys(),
        overtaken=overtaken,
        fits=lambda now: fits(now) and pinned_version(now) == before,
        told={PLACE: table.tier.name or table.tier.uri},
    )
    reach("tier:after-commit")


def settle(log: DeltaTable | None, table: TierTable) -> None:
    """Let the newest version of the tier hold what `log` counts as its own, so that what else is there may go."""
    if log is not None and pinned_version(log) == (table.pin.version if table.pin is not None else None):
        table.set_content(log, Change())


def copy_file(source: pafs.FileSystem, target: pafs.FileSystem, name: str, size: int) -> None:
    """Copy a data file as it is, byte for byte, so that its statistics and Bloom filters stay what they were.

    Raises OSError: what was written is not of `size`.
    """
    # What fits into no buffer, pyarrow hands over in a form that delta-rs 1.6 refuses.
    with source.open_input_stream(name) as file, target.open_output_stream(name, buffer_size=_CHUNK_BYTES + 1) as out:
        while part := file.read(_CHUNK_BYTES):
            out.write(part)
    written = target.get_file_info([name])[0]
    if written.size != size:
        raise OSError(f"{name} has {size:,} bytes, and {written.size or 0:,} arrived")


def _overtaken(path: str) -> LakeError:
    return LakeError(
        f"The tier {path} was written by another process meanwhile, so nothing was moved.",
        why="A tier belongs to one lake, and one command at a time may change it.",
        next="see that no other lake names this `tier.uri`, then: cdc-lake retention apply",
        code="tier_foreign",
    )
