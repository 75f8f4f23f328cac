"""Which transactions a piece of work took, for those who tell of it."""

from __future__ import annotations

import json
from collections.abc import Collection

import pyarrow.dataset as ds

from cdc_lake.events import TableId
from cdc_lake.land.layout import transactions_path
from cdc_lake.land.reading import read_rows
from cdc_lake.project.lake import Lake

# Positions that are looked at: a first fold takes millions of them.
_LOOKED_AT = 512


def last_ended(lake: Lake, source: str, tables: Collection[TableId], within: tuple[int, int], limit: int) -> list[str]:
    """The ids of the last transactions that changed one of `tables` and ended in the positions `within` (the first of
    them excluded), at most `limit`."""
    after, upto = within
    handle = lake.open(transactions_path(lake.root, source))
    if handle is None or upto <= after:
        return []
    # A transaction's position is the offset of its END, plus one.
    offset = ds.field("__offset")
    looked_at = (offset >= max(after, upto - _LOOKED_AT)) & (offset < upto) & (ds.field("status") == "END")
    rows = read_rows(handle, ["tx_id", "data_collections", "__offset"], looked_at).to_pylist()
    rows.sort(key=lambda row: row["__offset"])
    names = {str(table) for table in tables}
    found = [row["tx_id"] for row in rows if names & _tables(row["data_collections"])]
    return list(dict.fromkeys(found))[-limit:]


def _tables(collections: str | None) -> set[str]:
    return {one["data_collection"] for one in json.loads(collections or "[]") or []}
