"""Rows of other tables that belong to a person, by a column that refers to the person's row."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cdc_lake.erase.lines import Lines
from cdc_lake.erase.rows import ALL, BEFORE, TableLog
from cdc_lake.errors import UsageError, suggest
from cdc_lake.land.erasures import ERASED
from cdc_lake.project.order import load_ends
from cdc_lake.project.tail import AFTER_ALL
from cdc_lake.sqltext import literal


@dataclass(frozen=True, slots=True)
class Linked:
    """What of a table refers to a person: `keys` of rows that do now, or did last; and `images`, SQL over a log row,
    which says `all` or `before` of single images of rows that belong to somebody else, or to nobody, by now.

    `fills` is a DuckDB table (file, n, after): images of such rows that leave values out which only an image that goes
    has, and what they are with these values in them.
    """

    keys: frozenset[str]
    images: str
    fills: str


def key_values(log: TableLog, lines: Lines) -> list[str]:
    """The values of a table's key in some lines, as text. Raises UsageError when the key has several columns."""
    columns = log.shapes.target.key_columns
    if len(columns) != 1:
        raise UsageError(
            f"No column can refer to {log.table.table}: its key has {len(columns)} columns.",
            why="`belongs_to` names one column and the table whose key it holds.",
            next="correct `tables.….belongs_to` in cdc-lake.yaml",
            code="bad_link",
        )
    place = log.shapes.target.columns.index(columns[0])
    keys = f"""(SELECT DISTINCT __key AS img, __schema_id AS sid FROM {log.relation} l
        WHERE __key IS NOT NULL AND {lines.condition})"""
    rows = log.con.execute(
        f"SELECT DISTINCT c{place}::VARCHAR FROM ({log.shapes.decoded(keys, 'img', 'sid', ['img'])})"
    ).fetchall()
    return sorted(v for (v,) in rows if v is not None)


def find_linked(log: TableLog, column: str, values: Collection[str], number: int) -> Linked:
    """What of a table has one of `values` in `column`, in any image of any time. Raises UsageError: no such column."""
    names = log.shapes.names
    if column not in names:
        raise UsageError(
            f"{log.table.table} has no column {column}.",
            why=suggest(column, names) or f"Its columns are {', '.join(names)}.",
            next="correct `tables.….belongs_to` in cdc-lake.yaml",
            code="bad_link",
        )
    name, fills = (f"{log.state.lake.own}.erase_{kind}_{number}" for kind in ("links", "fills"))
    _load(log, f"c{names.index(column)}", values, name)
    rows = log.con.execute(
        f"""SELECT k, coalesce(arg_max(mine, place) FILTER (shown), true) FROM {name} WHERE k IS NOT NULL
        GROUP BY k HAVING bool_or(mine)"""
    ).fetchall()
    _fill(log, name, [k for k, mine in rows if not mine], fills)
    found = {
        kind: f"SELECT 1 FROM {name} m WHERE m.file = __file AND m.n = file_row_number AND m.mine AND {kind}"
        for kind in ("shown", "NOT shown")
    }
    images = f"""CASE WHEN EXISTS ({found["shown"]}) THEN {literal(ALL)}
        WHEN EXISTS ({found["NOT shown"]}) THEN {literal(BEFORE)} END"""
    return Linked(frozenset(k for k, mine in rows if mine), images, fills)


def _load(log: TableLog, value: str, values: Collection[str], name: str) -> None:
    """The table `name` (file, n, k, shown, place, mine, left_out): each image, whether it is that of the row after the
    change, whether it refers to the person, and the numbers of the columns whose values it leaves out."""
    ends = f"{log.state.lake.own}.erase_ends"
    load_ends(log.con, ends, log.state.transactions, 0)
    images = " UNION ALL ".join(
        f"""SELECT __file AS file, file_row_number AS n, __key AS k, {shown} AS shown, __tx_id AS tx,
        __tx_order AS ord, __offset AS off, __op = 'u' AND __before IS NULL AS bare, {image} AS img,
        __schema_id AS sid FROM {log.relation} WHERE {image} IS NOT NULL AND __op <> {literal(ERASED)}"""
        for image, shown in (("__after", "true"), ("__before", "false"))
    )
    carry = ["file", "n", "k", "shown", "tx", "ord", "off", "bare"]
    listed = ", ".join(literal(v) for v in values) or "NULL"
    # What has no transaction is a snapshot's, and stands before what is streamed; a key's changes are in order.
    place = f"(CASE WHEN tx IS NULL THEN 0 ELSE coalesce(e.pos, {AFTER_ALL}) END, coalesce(ord, 0), off)"
    marks = ", ".join(f"CASE WHEN bare AND u{i} THEN {i} END" for i in log.shapes.toastable)
    log.con.execute(
        f"""CREATE OR REPLACE TABLE {name} AS SELECT file, n, k, shown, {place} AS place,
        coalesce({value}::VARCHAR IN ({listed}), false) AS mine,
        list_filter([{marks}]::INTEGER[], lambda x: x IS NOT NULL) AS left_out
        FROM ({log.shapes.decoded(f"({images})", "img", "sid", carry, marks=True)}) d
        LEFT JOIN {ends} e ON e.tx_id = d.tx"""
    )


def _fill(log: TableLog, links: str, keys: Sequence[str], name: str) -> None:
    """Make the table `name` of what `Linked` says. The text of values is kept as the connector wrote it."""
    fills: list[tuple[str, int, str]] = []
    for _, changes in groupby(_images(log, links, keys), key=lambda row: row[0]):
        known: dict[int, tuple[str | None, bool]] = {}
        for _, file, n, after, mine, left_out, texts in changes:
            filled = after
            for i, text in zip(log.shapes.toastable, texts, strict=True):
                if i not in left_out:
                    known[i] = text, mine
                elif not mine and i in known and known[i][1] and known[i][0] is not None and text is not None:
                    column = json.dumps(log.shapes.names[i], ensure_ascii=False) + ":"
                    filled = filled.replace(column + text, f"{column}{known[i][0]}", 1)
                    known[i] = known[i][0], False
            if filled != after:
                fills.append((file, n, filled))
    log.con.execute(f"CREATE OR REPLACE TABLE {name} (file VARCHAR, n BIGINT, after VARCHAR)")
    if fills:
        log.con.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", fills)


def _images(log: TableLog, links: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """Key by key, the images after its changes, in their order, with the JSON of the values that may be left out."""
    if not keys or not log.shapes.toastable:
        return []
    values = [f"json_extract(l.__after, {literal(_pointer(log.shapes.names[i]))})" for i in log.shapes.toastable]
    texts = ", ".join(f"{v}::VARCHAR" for v in values)
    return log.con.execute(
        f"""SELECT m.k, m.file, m.n, l.__after, m.mine, m.left_out, [{texts}]
        FROM {links} m JOIN {log.relation} l ON l.__file = m.file AND l.file_row_number = m.n
        WHERE m.shown AND m.k IN (SELECT unnest($1::VARCHAR[])) ORDER BY m.k, m.place""",
        [list(keys)],
    ).fetchall()


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
