"""Files of a log put in place of others, each where it lay: in the log itself or in its tier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Transaction
from deltalake.transaction import AddAction

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path
from cdc_lake.land.swap import rows_in, swap_files
from cdc_lake.land.tier_writing import Change, TierTable, swap_tiered
from cdc_lake.land.tiers import pinned_version
from cdc_lake.project.files import LogFiles
from cdc_lake.project.lake import Lake
from cdc_lake.project.tiered import tier_table
from cdc_lake.retain.files import LogWriter

_TARGET_BYTES = 128 << 20
_BATCH_ROWS = 1 << 15


def batches(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """What a query gives, over a connection of its own: an open result keeps DuckDB's others from being asked."""
    yield from con.cursor().sql(query).to_arrow_reader(_BATCH_ROWS)


def overtaken(table: TableId, done: str) -> LakeError:
    """Another rewriting was first; `done` is the word for what was not done."""
    return LakeError(
        f"The log of {table} was rewritten meanwhile, so nothing was {done}.",
        why="What was read is no longer what is there.",
        next="cdc-lake retention apply once more",
        code="retention_overtaken",
    )


@dataclass(slots=True)
class _Side:
    """What comes and what goes in one of the two."""

    added: list[AddAction] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=dict)

    @property
    def change(self) -> Change:
        return Change(self.added, self.gone)


@dataclass(slots=True)
class Rewriting:
    """A rewriting of the log of a table as it was read: `log`."""

    lake: Lake
    source: str
    table: TableId
    log: LogFiles
    hot: _Side = field(default_factory=_Side)
    cold: _Side = field(default_factory=_Side)

    @property
    def path(self) -> str:
        """Where the log lies."""
        return log_path(self.lake.root, self.source, self.table)

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return rows_in(self.hot.added) + rows_in(self.cold.added)

    def in_tier(self, path: str) -> bool:
        """Whether a file of the log lies in its tier."""
        return self.log.older is not None and all(f.path != path for f in self.log.own)

    def write(self, rows: Iterator[pa.RecordBatch], *, cold: bool, tier: TierTable | None = None) -> None:
        """Write rows into new files, in the tier or in the log."""
        if cold:
            there = tier or self._tier()
            writer, side = LogWriter(there.path, there.tier.options, _TARGET_BYTES), self.cold
        else:
            writer, side = LogWriter(self.path, self.lake.options, _TARGET_BYTES), self.hot
        side.added += writer.write(rows)

    def drop(self, path: str, size: int) -> None:
        """A file of the log goes, from where it lies."""
        (self.cold if self.in_tier(path) else self.hot).gone[path.rsplit("/", 1)[-1]] = size

    def commit(
        self,
        transactions: Sequence[Transaction],
        *,
        landed: Callable[[DeltaTable], bool],
        overtaken: LakeError,
        fits: Callable[[DeltaTable], bool] = lambda _: True,
        tier: TierTable | None = None,
        ends: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        """All of it at once, as `swap_files` does. `tier` is one that the log is to have, `ends` are the offsets behind
        what is moved to it."""
        if tier is not None or self.cold.added or self.cold.gone:
            there = tier or self._tier()
            swap_tiered(
                lambda: self.lake.open(self.path),
                there,
                self.hot.change,
                self.cold.change,
                transactions,
                overtaken=overtaken,
                fits=fits,
                ends=ends,
            )
            return
        pinned = self.log.older.pin.version if self.log.older is not None else None
        swap_files(
            lambda: self.lake.open(self.path),
            self.hot.added,
            self.hot.gone,
            transactions,
            landed=landed,
            overtaken=overtaken,
            fits=lambda now: fits(now) and pinned_version(now) == pinned,
        )

    def _tier(self) -> TierTable:
        found = tier_table(self.source, self.table, self.log)
        if found is None:
            raise ValueError("a log without a tier has no files in one")
        return found
