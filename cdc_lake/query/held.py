"""Rows under a legal hold, found in the log by what a person wrote of their keys."""

from __future__ import annotations

import json
from collections.abc import Sequence

import duckdb

from cdc_lake.errors import LakeError
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.tail import Tail
from cdc_lake.query.keys import find_keys
from cdc_lake.query.session import Session
from cdc_lake.query.versions import related_keys

# A key as the configuration has it: a value, `column=value,…`, or values by their columns.
HeldKey = str | int | dict[str, str | int]


def held_keys(
    con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState, held: Sequence[HeldKey]
) -> dict[str, str]:
    """The log's texts of the keys in `held`, and of those that their rows had before or after, each with what was
    written of it. A row that was never there has none.

    Raises UsageError for a table without a key and a key that cannot be.
    """
    session, found = Session(con, (source,)), dict[str, str]()
    log = Tail(tuple(table.log.paths), renaming=source.renaming(con, table)).relation if held else ""
    for key in held:
        written = json.dumps(key) if isinstance(key, dict) else str(key)
        try:
            texts = find_keys(session, table, written)
        except LakeError as error:
            if error.code != "no_row":
                raise
            continue
        found |= dict.fromkeys([*texts, *related_keys(session, log, texts)], written)
    return found
