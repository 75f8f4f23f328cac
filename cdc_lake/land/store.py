"""What append-only tables ask of the place they are kept in: the seam between landing and Delta Lake."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError
from deltalake.writer.properties import BloomFilterProperties, ColumnProperties

from cdc_lake.land.layout import open_delta, open_store
from cdc_lake.land.store_errors import store_error

# Images, keys and offsets hardly repeat: a dictionary of them costs time and is thrown away.
_PLAIN = ("__before", "__after", "__key", "__offset", "__lsn", "__headers", "value", "definition")
# Rows of a row group, and the share of files that a Bloom filter names though the key is not there: at a hundredth it
# would take half as much room again.
_GROUP_ROWS, FALSE_SHARE = 1 << 20, 0.05
# The least and the greatest text of a column go into every commit and checkpoint, and each reader holds them all: of
# rows of a megabyte that is megabytes a commit. Whole enough for the name of a topic and for almost any key.
_BOUND_BYTES = 128


def _properties(**columns: ColumnProperties) -> WriterProperties:
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        statistics_truncate_length=_BOUND_BYTES,
        default_column_properties=ColumnProperties(dictionary_enabled=True),
        column_properties={name: ColumnProperties(dictionary_enabled=False) for name in _PLAIN} | columns,
    )


WRITER = _properties()


def log_writer(rows: int) -> WriterProperties:
    """How files of about so many rows are written that readers look for keys in."""
    bloom = BloomFilterProperties(set_bloom_filter_enabled=True, fpp=FALSE_SHARE, ndv=max(1, min(rows, _GROUP_ROWS)))
    return _properties(__key=ColumnProperties(dictionary_enabled=False, bloom_filter_properties=bloom))


# How long files that a commit removed stay written down: vacuum finds them by that alone, so it must be longer than
# readers may hold them, and it makes checkpoints longer, so not by much. A checkpoint every ten commits, as Delta
# writers do: a reader opens each commit behind the last one.
_CHECKPOINT_EVERY = 10
REMEMBERED = {
    "delta.deletedFileRetentionDuration": "interval 14 days",
    "delta.checkpointInterval": str(_CHECKPOINT_EVERY),
}
# How long commits that a checkpoint sums up are kept. In a folder each look at a table lists them all, at some
# hundredths of a millisecond each, and a commit looks several times: kept for Delta's 30 days they cost more than all
# else it does. A reader needs them no longer than it takes to open the table; who rewrites a log does so under the lock
# under which they are taken away. A fold may take hours, has no such lock, and commits seldom. An object store lists
# only what comes behind a name.
COMMITS_KEPT = "delta.logRetentionDuration"
_LANDED, _FOLDED = "interval 5 minutes", "interval 6 hours"
# What a commit says of itself is its first line, and shorter than this.
_INFO_BYTES = 4096


def remembered(path: str, *, folded: bool = False) -> dict[str, str]:
    """The properties of a table at `path`: one of a fold, or one that rows are appended to."""
    if "://" in path:
        return dict(REMEMBERED)
    return REMEMBERED | {COMMITS_KEPT: _FOLDED if folded else _LANDED}


class Snapshot:
    """One version of a table, for who commits to it again and again.

    What was asked of its app transactions is kept, for each question reads all commits since the checkpoint. It holds
    as long as every commit since was made by the owner of this snapshot.
    """

    def __init__(self, table: DeltaTable) -> None:
        self.table, self.version = table, table.version()
        # What the owner wrote into the commit that made this version; None when the owner did not make it.
        self.mark: str | None = None
        self._known: dict[str, int | None] = {}

    def transaction_version(self, name: str) -> int | None:
        """The version of an app transaction; None when no commit has it. Raises LakeError or UnavailableError."""
        if name not in self._known:
            try:
                self._known[name] = self.table.transaction_version(name)
            except (DeltaError, OSError) as error:  # it reads commits again
                raise store_error(self.table.table_uri, error) from error
        return self._known[name]

    def update(self) -> bool:
        """Go on to the newest version; whether that could be told."""
        try:
            self.table.update_incremental()
        except (DeltaError, OSError):  # deleted meanwhile, or away: opening tells which
            return False
        if self.table.version() != self.version:
            self.version, self.mark, self._known = self.table.version(), None, {}
        return True

    def committed(self, transactions: Mapping[str, int], mark: str) -> None:
        """The owner committed on top of this: what is known stays so unless others' commits came in between."""
        alone = self.table.version() == self.version + 1
        self._known = {**self._known, **transactions} if alone else {}
        self.version, self.mark = self.table.version(), mark


class Store(Protocol):
    """Keeps tables as a log of versions.

    An append is one commit: its rows and its app transactions are there together, or neither is. A commit is
    put-if-absent: of two writers that start from one version and share an app transaction, the second fails. An append
    that raises may have landed all the same.
    """

    def open(self, path: str) -> DeltaTable | None:
        """A fresh snapshot; None before the first commit. Raises LakeError when it cannot be read."""

    def refresh(self, path: str, held: Snapshot | None) -> Snapshot | None:
        """The newest version; None before the first commit. `held`, which nobody else uses, may be what it answers."""

    def append(
        self, path: str, snapshot: Snapshot | None, rows: pa.Table, *, description: str, transactions: Mapping[str, int]
    ) -> None:
        """Commit `rows` and `transactions` (id to version) on top of `snapshot`; None creates the table."""

    def pause(self, seconds: float) -> None:
        """Let a store that failed for a passing reason recover."""


class DeltaStore:
    """Delta Lake, on whatever storage delta-rs takes."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._options = dict(options) if options else None

    def open(self, path: str) -> DeltaTable | None:
        """A fresh snapshot; None before the first commit."""
        return open_delta(path, self._options)

    def refresh(self, path: str, held: Snapshot | None) -> Snapshot | None:
        """The newest version. A held one asks only for what came after it.

        One that stands on a checkpoint is opened anew: it would read the commits since the checkpoint before on each
        update.
        """
        if held is not None and held.version % _CHECKPOINT_EVERY and self._goes_on(path, held):
            return held
        table = self.open(path)
        return Snapshot(table) if table is not None else None

    def _goes_on(self, path: str, held: Snapshot) -> bool:
        """Bring `held` up to date; False when that cannot be told, or when this is not the table that it was.

        A table that was deleted and made anew has versions of the same numbers: the commit at the held one tells.
        """
        mark, name = held.mark, f"_delta_log/{held.version:020}.json"
        if mark is None or not held.update():
            return False
        try:
            with open_store(path, self._options, {name: _INFO_BYTES}).open_input_file(name) as commit:
                return mark.encode() in commit.read(_INFO_BYTES)
        except OSError:  # cleared away behind a checkpoint, or away: opening tells which
            return False

    def append(
        self, path: str, snapshot: Snapshot | None, rows: pa.Table, *, description: str, transactions: Mapping[str, int]
    ) -> None:
        """Commit `rows` and `transactions`; `description` is kept with a table that this creates."""
        held, mark = [Transaction(name, version) for name, version in transactions.items()], uuid.uuid4().hex
        write_deltalake(
            snapshot.table if snapshot is not None else path,
            rows,
            mode="append",
            description=description if snapshot is None else None,
            configuration=remembered(path) if snapshot is None else None,
            storage_options=self._options,
            writer_properties=WRITER,
            commit_properties=CommitProperties(custom_metadata={"commit": mark}, app_transactions=held),
            # Maintenance does that: one that merges files needs the commits that were made meanwhile.
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )
        if snapshot is not None:
            snapshot.committed(transactions, mark)

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)
