"""Tables whose key was put on other columns: rows that were sent under an older key are found under today's.

The rows sent under one key, in the order of changes, are an era. ALTER TABLE waits until every transaction that writes
the table has ended, so eras do not overlap. Row by row, the last image in an era says by which key the next era calls
the row, when it is there at all; a row that is gone keeps its name. So, era after era, all of a row's events come
under one key, and readers never see that there was another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import duckdb

from cdc_lake.project.base import Base
from cdc_lake.project.current import View, last_images_sql
from cdc_lake.project.keyings import Keying
from cdc_lake.project.moves import settle
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.tail import Tail, placed
from cdc_lake.sqltext import literal

_KEYED = "__op <> 't' AND __key IS NOT NULL"
# More eras than these are no tables of people: each costs a look at all rows before it.
_MOST = 32
_number = count()


@dataclass(frozen=True, slots=True)
class _Era:
    """Rows sent under one key: they begin at `lows`, per (topic, partition)."""

    keying: Keying
    lows: dict[tuple[str, int], int]


def _sent_otherwise(con: duckdb.DuckDBPyConnection, shapes: Shapes, tail: Tail) -> bool:
    """Whether the tail has rows that were sent under another key than the table has now."""
    others = [literal(i) for k in shapes.keyings[:-1] for i in k.ids]
    if not others or not tail.files or tail.facts.empty:
        return False
    found = con.execute(
        f"""SELECT 1 FROM {replace(tail, renaming=None).relation}
        WHERE {tail.unfolded} AND {_KEYED} AND __schema_id IN ({", ".join(others)}) LIMIT 1"""
    ).fetchone()
    return found is not None


def keyed_otherwise(con: duckdb.DuckDBPyConnection, shapes: Shapes, base: Base | None, tail: Tail) -> bool:
    """Whether a fold, or rows behind it, have another key than the table: no row of theirs can be found in the other.

    Such a table is read from the start of its log, and the next fold makes it anew.
    """
    if base is None or not shapes.keyings:
        return False
    folded = shapes.folds.get(base.layout) if base.layout is not None else None
    key = tuple(c.name for c in folded.schema.key_columns) if folded is not None else ()
    return (bool(key) and key != shapes.keyings[-1].columns) or _sent_otherwise(con, shapes, tail)


def with_own_key(con: duckdb.DuckDBPyConnection, shapes: Shapes, tail: Tail, ends: str, cut: int, *, own: str) -> Tail:
    """`tail` with every row that is visible at `cut` under the key of `shapes`; it begins where the log does.

    What is found out is kept in a table in the DuckDB schema `own`, for as long as the connection lasts.
    """
    tail = replace(tail, renaming=None)
    if not _sent_otherwise(con, shapes, tail):
        return tail
    eras = _find_eras(con, shapes, tail, ends, cut)
    keyings = [e.keying for e in eras]
    if keyings[-1:] != [shapes.keyings[-1]]:
        keyings.append(shapes.keyings[-1])
    if len(keyings) < 2 or len(keyings) > _MOST:
        return tail
    name = f"{own}.known_{next(_number)}"
    renaming = Renaming(name, _era_sql(eras))
    # At first every row of an older key is called as it was sent.
    rows = placed(tail, ends, cut, ["__key AS k", f"{renaming.era} AS era"], where=_KEYED)
    last = len(keyings) - 1
    con.execute(f"CREATE TABLE {name} AS SELECT DISTINCT era, k, k AS name FROM ({rows}) WHERE era < {last}")
    for number, keying in enumerate(keyings[1:]):
        until = replace(tail, renaming=replace(renaming, upto=number))
        _rename(con, View(shapes, until, None, ends, cut), renaming, keying)
    con.execute(f"DELETE FROM {name} WHERE name = k")
    return replace(tail, renaming=renaming)


def _find_eras(con: duckdb.DuckDBPyConnection, shapes: Shapes, tail: Tail, ends: str, cut: int) -> list[_Era]:
    listed = ", ".join(f"({literal(i)}, {n})" for n, k in enumerate(shapes.keyings) for i in k.ids)
    columns = ["__schema_id AS sid", "__topic AS top", "__partition AS part", "__tx_id AS tx"]
    rows = con.execute(
        f"""WITH rows AS (SELECT * FROM ({placed(tail, ends, cut, columns, where=_KEYED)})
            QUALIFY tx IS NULL OR row_number() OVER (PARTITION BY pos_tx, pos_order ORDER BY off) = 1),
        marked AS (SELECT r.*, n, n IS DISTINCT FROM lag(n) OVER (ORDER BY pos_tx, pos_order, off) AS changes
            FROM rows r JOIN (VALUES {listed}) v(id, n) ON v.id = r.sid),
        numbered AS (SELECT *, sum(changes::INT) OVER (ORDER BY pos_tx, pos_order, off) AS era FROM marked)
        SELECT era, n, top, part, min(off) FROM numbered GROUP BY ALL ORDER BY era"""
    ).fetchall()
    found: dict[int, _Era] = {}
    for era, n, topic, partition, low in rows:
        found.setdefault(era, _Era(shapes.keyings[n], {})).lows[topic, partition] = low
    return list(found.values())


def _era_sql(eras: Sequence[_Era]) -> str:
    """The number of a row's era, by where it stands in its partition."""
    cases = []
    for topic, partition in dict.fromkeys(place for era in eras for place in era.lows):
        place = (topic, partition)
        lows = [f"WHEN __offset >= {e.lows[place]} THEN {n}" for n, e in enumerate(eras) if place in e.lows]
        inside = f"CASE {' '.join(reversed(lows))} ELSE 0 END"
        cases.append(f"WHEN __topic = {literal(topic)} AND __partition = {partition} THEN {inside}")
    return f"CASE {' '.join(cases)} ELSE 0 END"


def _rename(con: duckdb.DuckDBPyConnection, view: View, renaming: Renaming, keying: Keying) -> None:
    """Give the rows that are there at the end of the view's last era their names under the next key."""
    settled = f"{renaming.known}_settled"
    view = replace(view, settled=settle(con, view, settled))
    cases = " ".join(f"WHEN {literal(i)} THEN {text}" for i, text in keying.texts.items())
    if cases:
        con.execute(
            f"""UPDATE {renaming.known} AS known SET name = next FROM (
                SELECT k, CASE sid {cases} END AS next FROM ({last_images_sql(view)})) AS found
            WHERE known.name = found.k AND era <= {view.tail.renaming.upto if view.tail.renaming else 0}
            AND next IS NOT NULL"""
        )
    con.execute(f"DROP TABLE IF EXISTS {settled}")
