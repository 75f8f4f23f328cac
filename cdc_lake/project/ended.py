"""Which transactions a fold took, for those who tell of it."""

from __future__ import annotations

import json

import pyarrow.dataset as ds

from cdc_lake.land.layout import transactions_path
from cdc_lake.land.reading import read_rows
from cdc_lake.project.fold import Folded
from cdc_lake.project.lake import Lake

# Positions that are looked at: a first fold takes millions of them.
_LOOKED_AT = 512


def last_ended(lake: Lake, source: str, folded: Folded, limit: int) -> list[str]:
    """The ids of the last transactions whose changes of its table a fold took, at most `limit`."""
    after, upto = folded.before, folded.cut
    handle = lake.open(transactions_path(lake.root, source))
    if handle is None or upto <= after:
        return []
    # A transaction's position is the offset of its END, plus one.
    offset = ds.field("__offset")
    within = (offset >= max(after, upto - _LOOKED_AT)) & (offset < upto) & (ds.field("status") == "END")
    rows = read_rows(handle, ["tx_id", "data_collections", "__offset"], within).to_pylist()
    rows.sort(key=lambda row: row["__offset"])
    found = [row["tx_id"] for row in rows if str(folded.table) in _tables(row["data_collections"])]
    return list(dict.fromkeys(found))[-limit:]


def _tables(collections: str | None) -> set[str]:
    return {one["data_collection"] for one in json.loads(collections or "[]") or []}
