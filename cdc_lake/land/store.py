"""What append-only tables ask of the place they are kept in: the seam between landing and Delta Lake."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.writer.properties import BloomFilterProperties, ColumnProperties

from cdc_lake.land.layout import open_delta

# Images, keys and offsets hardly repeat: a dictionary of them costs time and is thrown away.
_PLAIN = ("__before", "__after", "__key", "__offset", "__lsn", "__headers", "value", "definition")
# Rows of a row group, and the share of files that a Bloom filter names though the key is not there: at a hundredth it
# would take half as much room again.
_GROUP_ROWS, FALSE_SHARE = 1 << 20, 0.05


def _properties(**columns: ColumnProperties) -> WriterProperties:
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
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
REMEMBERED = {"delta.deletedFileRetentionDuration": "interval 14 days", "delta.checkpointInterval": "10"}


class Store(Protocol):
    """Keeps tables as a log of versions.

    An append is one commit: its rows and its app transactions are there together, or neither is. A commit is
    put-if-absent: of two writers that start from one version and share an app transaction, the second fails. An append
    that raises may have landed all the same.
    """

    def open(self, path: str) -> DeltaTable | None:
        """A fresh snapshot; None before the first commit. Raises LakeError when it cannot be read."""

    def append(
        self, path: str, table: DeltaTable | None, rows: pa.Table, *, description: str, transactions: Mapping[str, int]
    ) -> None:
        """Commit `rows` and `transactions` (id to version) on top of the snapshot `table`; None creates the table."""

    def pause(self, seconds: float) -> None:
        """Let a store that failed for a passing reason recover."""


class DeltaStore:
    """Delta Lake, on whatever storage delta-rs takes."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._options = dict(options) if options else None

    def open(self, path: str) -> DeltaTable | None:
        """A fresh snapshot; None before the first commit."""
        return open_delta(path, self._options)

    def append(
        self, path: str, table: DeltaTable | None, rows: pa.Table, *, description: str, transactions: Mapping[str, int]
    ) -> None:
        """Commit `rows` and `transactions`; `description` is kept with a table that this creates."""
        held = [Transaction(name, version) for name, version in transactions.items()]
        write_deltalake(
            table if table is not None else path,
            rows,
            mode="append",
            description=description if table is None else None,
            configuration=REMEMBERED if table is None else None,
            storage_options=self._options,
            writer_properties=WRITER,
            commit_properties=CommitProperties(app_transactions=held),
        )

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)
