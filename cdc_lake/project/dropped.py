"""Dead letters that somebody dropped: the cut goes on without them, for nothing will ever come in their place.

A letter could not be read, so nothing says which transaction it belonged to. But a partition holds transactions in the
order of their commits: it is one of those between its neighbours. Letters and missing rows are matched in that order,
and a letter that still waits for a decision goes on to hold the cut.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from cdc_lake.land.layout import parquet_files
from cdc_lake.project.files import scan
from cdc_lake.project.tail import NEVER


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that is not in the log; `dropped`: by a person's decision, else it waits for one."""

    topic: str
    partition: int
    offset: int
    dropped: bool


@dataclass(frozen=True, slots=True)
class Lack:
    """Rows of a table that the transaction at `pos` has and the lake does not."""

    pos: int
    table: str
    rows: int


def read_letters(
    con: duckdb.DuckDBPyConnection, letters: DeltaTable | None, decisions: DeltaTable | None
) -> list[Letter]:
    """The letters of a source that are dropped or wait; empty when none was dropped."""
    if letters is None or decisions is None:
        return []
    files, decided = parquet_files(letters), parquet_files(decisions)
    if not files or not decided:
        return []
    rows = con.execute(
        f"""WITH latest AS (SELECT id, arg_max(decision, decided_at) AS decision FROM {scan(decided)} GROUP BY id)
        SELECT topic, "partition", "offset", coalesce(decision = 'dropped', false)
        FROM {scan(files)} LEFT JOIN latest USING (id) WHERE decision IS DISTINCT FROM 'replayed' ORDER BY ALL"""
    ).fetchall()
    found = [Letter(*row) for row in rows]
    return found if any(x.dropped for x in found) else []


def excused(
    con: duckdb.DuckDBPyConnection,
    ends: str,
    lacks: Sequence[Lack],
    letters: Sequence[Letter],
    logs: Sequence[tuple[str, frozenset[str], str | None]],
) -> list[Lack]:
    """Which rows of `lacks` are dropped letters. `logs` are (table, its topics, relation of its log).

    A table that has no log yet has None in its place: nothing says between which transactions its letters stand.
    """
    found = []
    for table, topics, relation in logs:
        mine = [x for x in letters if x.topic in topics]
        missing = sorted((x for x in lacks if x.table == table), key=lambda x: x.pos)
        if not mine or not missing:
            continue
        spans = sorted(
            (*(_between(con, ends, relation, x) if relation is not None else (0, NEVER)), x.offset, x.dropped)
            for x in mine
        )
        left = {x.pos: x.rows for x in missing}
        taken = dict.fromkeys(left, 0)
        for low, high, _, dropped in spans:
            pos = next((p for p, rows in left.items() if rows and low <= p <= high), None)
            if pos is not None:
                left[pos] -= 1
                taken[pos] += dropped
        found += [Lack(pos, table, rows) for pos, rows in taken.items() if rows]
    return found


def topics_named(table: str, topics: Collection[str]) -> frozenset[str]:
    """Those of `topics` that have the name of `table` (`schema.name`), as Debezium spells it, behind their prefix."""
    ending = "." + re.sub(r"[^A-Za-z0-9._-]", "_", table)
    return frozenset(t for t in topics if t.endswith(ending))


def _between(con: duckdb.DuckDBPyConnection, ends: str, relation: str, letter: Letter) -> tuple[int, int]:
    """The positions of the transactions before and behind the letter in its partition."""
    row = con.execute(
        f"""SELECT max(pos) FILTER (__offset < $2), min(coalesce(pos, {NEVER})) FILTER (__offset > $2)
        FROM {relation} l LEFT JOIN {ends} e ON l.__tx_id = e.tx_id
        WHERE __topic = $1 AND __partition = $3 AND __tx_id IS NOT NULL""",
        [letter.topic, letter.offset, letter.partition],
    ).fetchone() or (None, None)
    return row[0] or 0, row[1] if row[1] is not None else NEVER
