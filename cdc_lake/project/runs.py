"""Snapshots that read a table whole: which of the rows they sent count, and which keys they ended.

The rows of one run share an LSN, that of the moment it shows; its first and last row are marked. So a run has a place
in the order: behind the last transaction that had committed by then. What a complete run does not have was gone: it
clears the table of all that stands before it. A run that was killed and begun again sends the same rows twice; of a
table without a key those of the unfinished one do not count. Rows of incremental snapshots belong to no run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb

from cdc_lake.project.tail import AFTER_ALL, ENDS_RUN, OPENS_RUN, RUN, Tail
from cdc_lake.sqltext import literal

# A partition of a log: its topic and its number.
_Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """The rows of one snapshot: where they begin, per (topic, partition), and behind which transaction they stand.

    `complete` says that all have landed, `over` that they have or never will, `opened` and `ended` that the marked
    first and last one are here.
    """

    lsn: int
    pos: int
    begins: dict[_Place, int]
    complete: bool
    over: bool
    opened: bool
    ended: bool


def with_runs(con: duckdb.DuckDBPyConnection, tail: Tail, ends: str, cut: int, *, keyed: bool, folded: bool) -> Tail:
    """`tail` with what its runs mean at `cut`; `folded` says that there is a base below it."""
    if not tail.facts.runs:
        return tail
    runs = find_runs(con, tail, ends)
    firsts = _by_place(con, f"min(__offset) FROM {tail.relation} WHERE {tail.unfolded}")
    complete = [r for r in runs if r.complete and r.pos <= cut]
    last = complete[-1] if complete else None
    unfinished = [r for r in runs if not r.complete and (last is None or r.lsn > last.lsn)]
    newest = unfinished[-1] if unfinished else None
    hidden: list[int] = []
    if not keyed:
        alone = newest is not None and last is None and not folded and not _has_before(firsts, runs[0])
        hidden = [r.lsn for r in runs if not r.complete and not (alone and r is newest)]
    return replace(
        tail,
        runs=relation_of(runs),
        late_runs=tuple(r.lsn for r in runs if r.pos > cut),
        # What a fold took of a run itself, as earlier versions did in the middle of a first one, the run did not end.
        clear=_clear(last) if last is not None and last.opened and (folded or _has_before(firsts, last)) else None,
        superseded=_superseded(last, hidden, firsts),
        # Of a first run whose last row is here, at most another partition lacks some, and nothing is there to end.
        held=newest is not None
        and not newest.over
        and (not newest.ended or not keyed or folded or _has_before(firsts, newest)),
    )


def find_runs(con: duckdb.DuckDBPyConnection, tail: Tail, ends: str) -> list[Run]:
    """The marked runs in the tail, oldest first."""
    rows = con.execute(
        f"""SELECT __lsn, __topic, __partition, min(__offset), max(__offset) FILTER ({OPENS_RUN}),
            max(__offset) FILTER ({ENDS_RUN})
        FROM {tail.relation} WHERE {tail.unfolded} AND {RUN} GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    streamed = _by_place(
        con, f"max(pos) FROM {tail.relation} l JOIN {ends} e ON l.__tx_id = e.tx_id WHERE {tail.unfolded}"
    )
    places = {p for p in tail.lows or {} if p[0] in {topic for _, topic, *_ in rows}} or {
        (t, p) for _, t, p, *_ in rows
    }
    found = []
    for lsn in dict.fromkeys(row[0] for row in rows):
        mine = [row[1:] for row in rows if row[0] == lsn]
        opened, ended = (max((m[i] for m in mine if m[i] is not None), default=None) for i in (3, 4))
        if opened is None and ended is None:
            continue
        (known,) = con.execute(f"SELECT max(pos) FROM {ends} WHERE lsn <= {lsn}").fetchone() or (None,)
        pos = max(known or 0, tail.cut)
        # Changes are streamed again only after a run: a partition that has one lacks nothing of it.
        behind = {p for p, newest in streamed.items() if newest > pos}
        last = {(topic, partition) for topic, partition, _, _, end in mine if end is not None and end == ended}
        complete = ended is not None and ended >= (opened or 0) and not places - behind - last
        # Begun again at the same LSN: the rows before the second first one are of the first attempt.
        begins = {(topic, partition): max(low, first or 0) for topic, partition, low, first, _ in mine}
        over = complete or not {(m[0], m[1]) for m in mine} - behind
        found.append(Run(lsn, pos, begins, complete, over, opened is not None, ended is not None))
    return found


def _by_place(con: duckdb.DuckDBPyConnection, query: str) -> dict[_Place, int]:
    rows = con.execute(f"SELECT __topic, __partition, {query} GROUP BY ALL").fetchall()
    return {(topic, partition): value for topic, partition, value in rows if value is not None}


def _has_before(firsts: dict[_Place, int], run: Run) -> bool:
    """Whether the tail may hold anything that stands before the run."""
    return any(offset < run.begins.get(place, 1 << 62) for place, offset in firsts.items())


def _clear(run: Run) -> str:
    return f"SELECT {run.pos} AS pos_tx, {AFTER_ALL - 1} AS pos_order, 0 AS off"


def _superseded(last: Run | None, hidden: list[int], firsts: dict[_Place, int]) -> str | None:
    """The condition for rows without a transaction that a complete run has made void, or that do not count."""
    parts = []
    if hidden:
        parts.append(f"({RUN} AND __lsn IN ({', '.join(map(str, hidden))}))")
    if last is not None:
        parts.append(f"({RUN} AND __lsn < {last.lsn})")
        parts += [
            f"(__topic = {literal(topic)} AND __partition = {partition} AND __offset < {begin})"
            for (topic, partition), begin in last.begins.items()
            if firsts.get((topic, partition), begin) < begin
        ]
    return " OR ".join(parts) or None


def relation_of(runs: Sequence[Run]) -> str | None:
    """The relation (lsn, pos) of `runs`, for `Tail.runs`."""
    return f"(VALUES {', '.join(f'({r.lsn}, {r.pos})' for r in runs)})" if runs else None
