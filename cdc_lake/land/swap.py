"""Put data files of a table in place of others, in one commit, beside whoever appends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

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


def live_actions(table: DeltaTable) -> dict[str, AddAction]:
    """The names of a snapshot's data files, each with the action that adds it as it is, its statistics included."""
    actions = pa.table(table.get_add_actions(flatten=False)).to_pylist()
    now = int(time.time() * 1000)
    return {a["path"]: AddAction(a["path"], a["size_bytes"], {}, now, True, _statistics(a)) for a in actions}


def _statistics(action: Mapping[str, Any]) -> str:
    bounds = {
        name: {c: plain(v) for c, v in (action.get(kind) or {}).items() if v is not None}
        for name, kind in (("minValues", "min"), ("maxValues", "max"), ("nullCount", "null_count"))
    }
    return json.dumps({"numRecords": action["num_records"], **bounds})


def plain(value: Any) -> Any:
    """A bound as Delta writes it."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


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
    told: Mapping[str, str] | None = None,
) -> None:
    """Commit `added` and `transactions`, and remove `gone` (name to bytes); what was appended meanwhile stays.

    `opened` gives a fresh handle; `told` is what the commit says of itself beside that. Raises `overtaken` when one of
    `gone` is gone already or the table no longer `fits`; CommitFailedError when no attempt won. `landed` tells whether
    one that was reported as failed is there all the same.
    """
    held = CommitProperties(app_transactions=list(transactions), custom_metadata=dict(told or {}))
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
