"""Copies of events: append-only Delta tables beside the log, in which each event is once.

::

    <lake>/<source>/replay:<name>/<schema>/<table>

Delivery: a copy that was killed holds what it committed, and the next one adds what is missing. Identity: topic,
partition and offset of the event. Two writers of one copy: the second commit that starts from the same version fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import LakeError, UsageError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.layout import copy_path, open_delta, parquet_files
from cdc_lake.land.store import WRITER

IDENTITY = ("__topic", "__partition", "__offset")
_TURN = "replay"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Copy:
    """One copy, open for appending."""

    def __init__(
        self, root: str, source: str, table: TableId, name: str, options: Mapping[str, str] | None = None
    ) -> None:
        """Raises UsageError for a name that cannot be one, LakeError when the copy cannot be read."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name} cannot be a table's name.",
                why="It becomes a folder of the lake: letters, digits, dots, dashes and underscores.",
                next="--into table:NAME",
            )
        self.path = copy_path(root, source, table, name)
        self._options = dict(options) if options else None
        self._table = open_delta(self.path, options)
        self._turn = self._told(self._table)

    @property
    def files(self) -> list[str]:
        """The files that hold what was copied before."""
        return parquet_files(self._table) if self._table is not None else []

    def append(self, rows: pa.Table) -> None:
        """Commit `rows`, none of which is there yet. Raises LakeError."""
        table = open_delta(self.path, self._options)
        if self._told(table) != self._turn:
            raise self._overtaken()
        reach("replay:before-commit")
        held = [Transaction(_TURN, self._turn + 1)]
        try:
            write_deltalake(
                table if table is not None else self.path,
                rows,
                mode="append",
                schema_mode="merge" if table is not None else None,
                storage_options=self._options,
                writer_properties=WRITER,
                commit_properties=CommitProperties(app_transactions=held),
            )
        except (DeltaError, OSError) as error:
            raise self._explained(error) from error
        reach("replay:after-commit")
        self._turn += 1

    @staticmethod
    def _told(table: DeltaTable | None) -> int:
        return 0 if table is None else table.transaction_version(_TURN) or 0

    def _overtaken(self) -> LakeError:
        return LakeError(
            f"Another replay writes to {self.path}.",
            why="It committed since this one looked what is there.",
            next="wait for its end, then run the same command again: it adds what is missing",
            code="replay_overtaken",
        )

    def _explained(self, error: Exception) -> LakeError:
        if "oncurrent" in str(error):
            return self._overtaken()
        return LakeError(
            f"Events could not be committed to {self.path}.",
            why=first_line(error),
            next="mend that, then run the same command again: it adds what is missing",
            code="commit_failed",
        )
