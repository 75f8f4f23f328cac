"""All versions of one row, each with what changed in it: what `cdc-lake history` shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdc_lake.project.headers import NEW_KEY, OLD_KEY, other_key
from cdc_lake.project.history_names import history_names
from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.snapshot import TableState
from cdc_lake.project.tail import Tail
from cdc_lake.query.formats import rows
from cdc_lake.query.history_views import history_view
from cdc_lake.query.keys import find_keys, find_table
from cdc_lake.query.picked import files_of_keys
from cdc_lake.query.run import run_sql
from cdc_lake.query.session import Session
from cdc_lake.sqltext import literal

# What ended a version that the next one goes on from.
_GOES_ON = ("u", "r", "c")
_Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One version. `row` are the source's columns and `own` the other ones, as JSON has them.

    `before` is the row that it changed, None where a line begins; `changed` are the columns that differ from it.
    """

    row: dict[str, Any]
    own: dict[str, Any]
    before: dict[str, Any] | None
    changed: list[str]


@dataclass(frozen=True, slots=True)
class RowHistory:
    """All versions of the row with one key, the newest last."""

    table: str
    key: dict[str, Any]
    versions: list[Version]


def row_history(session: Session, name: str, key: str) -> RowHistory:
    """The versions of the row `key` of the table `name`, both as a person types them.

    Raises UsageError: an unknown table, a key that cannot be; LakeError: there has never been such a row.
    """
    source, table = find_table(session, name)
    keys = find_keys(session, table, key, quick=True)
    renaming = source.renaming(session.connection, table)
    table, related = _narrowed(session, table, keys, renaming)
    order = "__from_position, __valid_from, __lsn"
    result = run_sql(
        session, f"SELECT * FROM ({history_view(source, table, keys=related, renaming=renaming)}) ORDER BY {order}"
    )
    if result is None or table.shapes is None:
        raise ValueError("a query has a result, and a table that is shown has shapes")
    columns = history_names(table.shapes)
    found = []
    for values in rows(result):
        named = dict(zip((*columns, *HISTORY_COLUMNS), values, strict=True))
        found.append(({c: named[c] for c in columns}, {c: named[c] for c in HISTORY_COLUMNS}))
    wanted = {_canonical(k) for k in keys}
    versions = [
        _version(row, own, _before(found[:i], own))
        for i, (row, own) in enumerate(found)
        if _canonical(own["__key"]) in wanted
    ]
    return RowHistory(str(table.table), json.loads(keys[0]), versions)


def _narrowed(
    session: Session, table: TableState, keys: Sequence[str], renaming: Renaming | None
) -> tuple[TableState, set[str]]:
    """`table` with the files that tell the life of `keys` and of those related to them, and all these keys."""
    if renaming is not None:
        return table, related_keys(session, Tail(tuple(table.log.paths), renaming=renaming).relation, keys)
    related, known = set(keys), set[str]()
    log = table.log
    while related - known:
        known = related
        log = files_of_keys(session.connection, table.log, known)
        # A row that another key went over into has headers in its own file, and that key's rows have files of theirs.
        related = known | related_keys(session, Tail(tuple(log.paths)).relation, keys)
    return replace(table, log=log), related


def related_keys(session: Session, log: str, keys: Sequence[str]) -> set[str]:
    """The keys in question, all that their rows came from, and those that their rows went to."""
    found, waiting = set(keys), set(keys)
    while waiting:
        came = _others(session, log, waiting, "c", OLD_KEY)
        waiting = came - found
        found |= waiting
    return found | _others(session, log, set(keys), "d", NEW_KEY)


def _others(session: Session, log: str, keys: set[str], op: str, header: str) -> set[str]:
    listed = ", ".join(literal(k) for k in sorted(keys))
    query = f"""SELECT DISTINCT {other_key(header)} AS other FROM {log}
        WHERE __op = {literal(op)} AND __key IN ({listed})"""
    return {k for (k,) in session.connection.execute(query).fetchall() if k is not None}


def _canonical(key: Any) -> str:
    return json.dumps(json.loads(key), sort_keys=True)


def _before(earlier: Sequence[tuple[_Values, _Values]], own: _Values) -> _Values | None:
    """The row that this version changed: the one of its key that went over into it, or the one it was before."""
    for row, other in reversed(earlier):
        if other["__to_position"] != own["__from_position"]:
            continue
        if own["__previous_key"] is None:
            same = other["__key"] == own["__key"] and other["__ended_by"] in _GOES_ON
        else:
            same = other["__key"] == own["__previous_key"] and other["__next_key"] == own["__key"]
        if same:
            return row
    return None


def _version(row: dict[str, Any], own: dict[str, Any], before: dict[str, Any] | None) -> Version:
    changed = [c for c, v in row.items() if before is None or before[c] != v]
    return Version(row, own, before, changed)
