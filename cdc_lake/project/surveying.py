"""What tails hold, and how far their transactions are complete; with a cache, only new files are looked into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb

from cdc_lake.land.tables import REPAIR_OFFSETS
from cdc_lake.project.cache import Kept
from cdc_lake.project.files import LogFile, LogFiles, Lows, scan
from cdc_lake.project.tail import HAS_FACTS, NEVER, Facts, Tail, facts_sql, survey


def survey_new(
    con: duckdb.DuckDBPyConnection, known: dict[str, Facts], logs: Sequence[LogFiles], tails: Sequence[Tail]
) -> list[Facts]:
    """As `survey`, of the tails of `logs`. `known` has the facts of files that lie whole in a tail, and gets those of
    new ones."""
    rest, whole = [], list[list[str]]()
    for log, tail in zip(logs, tails, strict=True):
        files = {f.path: f for f in log.own}
        mine = {p for p in tail.files if p in files and _is_whole(files[p], tail.lows or {})}
        whole.append([p for p in tail.files if p in mine])
        rest.append(replace(tail, files=tuple(p for p in tail.files if p not in mine)))
    new = [paths for mine in whole if (paths := [p for p in mine if p not in known])]
    found = {p: Facts() for paths in new for p in paths}
    selects = [
        f"SELECT filename, {facts_sql(0)} FROM {scan(paths, named=True)} WHERE {HAS_FACTS} GROUP BY filename"
        for paths in new
    ]
    if selects:
        found |= {name: Facts(*n) for name, *n in con.execute(" UNION ALL ".join(selects)).fetchall()}
    known.update(found)
    return [sum((known[p] for p in mine), facts) for mine, facts in zip(whole, survey(con, rest), strict=True)]


def _is_whole(file: LogFile, lows: Lows) -> bool:
    """Whether every row of a file is in a tail that begins at `lows`, and none is a repair's or one of its start."""
    if file.topic is None or file.partitions is None or file.offsets[0] < 0 or file.offsets[1] >= REPAIR_OFFSETS:
        return False
    first, last = file.partitions
    return all(file.offsets[0] >= lows.get((file.topic, p), 0) for p in range(first, last + 1))


def still_open(kept: Kept | None, landed: Mapping[str, Tail]) -> list[tuple[str, Tail]]:
    """The tails with the files that may hold rows of transactions beyond those that were counted."""
    if kept is None:
        return list(landed.items())
    return [
        (name, replace(tail, files=tuple(f for f in tail.files if f not in kept.closed.get(name, ()))))
        for name, tail in landed.items()
    ]


def note_complete(con: duckdb.DuckDBPyConnection, ends: str, kept: Kept, landed: Mapping[str, Tail], cut: int) -> None:
    """Remember that all transactions up to `cut` are complete, and which files hold nothing of later ones."""
    selects = [
        f"""SELECT filename FROM {scan(tail.files, named=True)} l LEFT JOIN {ends} e ON l.__tx_id = e.tx_id
        WHERE {tail.unfolded} AND l.__tx_id IS NOT NULL AND coalesce(e.pos, {NEVER}) > {cut} GROUP BY filename"""
        for _, tail in still_open(kept, landed)
        if tail.files
    ]
    later = {file for (file,) in con.execute(" UNION ALL ".join(selects)).fetchall()} if selects else set()
    kept.closed = {name: set(tail.files) - later for name, tail in landed.items()}
    kept.cut = max(kept.cut, cut)


def partitions_of(con: duckdb.DuckDBPyConnection, log: LogFiles) -> set[tuple[str, int]]:
    """Every (topic, partition) that may have rows in the log."""
    older = log.partitions
    found, files = older or set[tuple[str, int]](), log.files if older is None else log.own
    for file in files:
        if file.topic is not None and file.partitions is not None:
            found.update((file.topic, p) for p in range(file.partitions[0], file.partitions[1] + 1))
    unsaid = [f.path for f in files if f.topic is None or f.partitions is None]
    if unsaid:
        rows = con.cursor().execute(f"SELECT DISTINCT __topic, __partition FROM {scan(unsaid)}").fetchall()
        found.update((topic, partition) for topic, partition in rows)
    return found
