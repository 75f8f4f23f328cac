"""Put data files of a table in place of others, in one commit, beside whoever appends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from cdc_lake.errors import LakeError

# A commit that loses a race is tried again from what is there then.
_ATTEMPTS = 10
# The app transaction that says which is the first version of a table whose files are all there.
READABLE = "maintain:readable"


def live_files(table: DeltaTable) -> dict[str, int]:
    """The names of a snapshot's data files, each with its bytes."""
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"])
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def rows_in(added: Sequence[AddAction]) -> int:
    """The rows of written files."""
    return sum(int(json.loads(a.stats)["numRecords"]) for a in added)


def swap_files(
    opened: Callable[[], DeltaTable | None],
    added: Sequence[AddAction],
    gone: Mapping[str, int],
    transactions: Sequence[Transaction],
    *,
    landed: Callable[[DeltaTable], bool],
    overtaken: LakeError,
    fits: Callable[[DeltaTable], bool] = lambda _: True,
) -> None:
    """Commit `added` and `transactions`, and remove `gone` (name to bytes); what was appended meanwhile stays.

    `opened` gives a fresh handle. Raises `overtaken` when one of `gone` is gone already or the table no longer `fits`;
    CommitFailedError when no attempt won. `landed` tells whether one that was reported as failed is there all the same.
    """
    held = CommitProperties(app_transactions=list(transactions))
    now = int(time.time() * 1000)
    removed = [RemoveAction(name, True, now, size, {}) for name, size in gone.items()]
    for attempt in range(1, _ATTEMPTS + 1):
        table = opened()
        if table is None or not fits(table) or not gone.keys() <= live_files(table).keys():
            raise overtaken
        try:
            table.create_write_transaction([*added, *removed], "append", table.schema(), commit_properties=held)
        except CommitFailedError:
            after = opened()
            if after is not None and landed(after):
                return
            if attempt == _ATTEMPTS:
                raise
        else:
            return
