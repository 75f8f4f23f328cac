"""What a folded history costs to keep and to read: `python -m benchmarks history`.

The log of `benchmarks.fold`: a snapshot of `--rows` keys, then three updates for every two keys, all over the table. A
read goes through the view `history.<table>` with the base alone, and with tails of 100,000 and of 1,000,000 changes, of
a small table with a tenth and with as many as its rows; "log alone" is the same read without a folded history. A fold
runs in a process of its own, for its peak memory; "own" is what as many lines take in the history's files. Reads are
told in milliseconds and, as other work on the machine changes those, compared in CPU time.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.fold import SOURCE, TABLE, Feed, best, data_files, fold_apart, fold_once, tell_fold
from benchmarks.report import Report, Table, say
from cdc_lake.config import Config
from cdc_lake.land.layout import history_path
from cdc_lake.query.session import open_session

NARROW = "SELECT count(*), sum(customer), count(__valid_to) FROM {}"
WIDE = "SELECT count(*), sum(customer), max(status), sum(total), max(length(note)), max(__valid_from) FROM {}"
ONE = "SELECT count(*), max(__valid_from) FROM {} WHERE id = 4711"
_NAMES = {NARROW: "narrow", WIDE: "wide", ONE: "one key"}
_THREE_TIMES = dict.fromkeys(_NAMES, 3)
# Seconds, and seconds of all cores together, by query.
Times = dict[str, tuple[float, float]]


def run(report: Report) -> None:
    """The figures for a table of as many keys as the report has rows."""
    rows = report.rows
    folds = report.table(
        f"Folds of a table of {rows:,} keys with its history",
        **{"of": "", "s": ".1f", "lines": ",d", "MB": ".1f", "files": "d", "× own bytes": ".1f", "peak MB": ",d"},
    )
    reads = report.table(
        "Reads, ms, and times the CPU of the base alone",
        **{"of": "", **{k: f for q in _NAMES.values() for k, f in ((q, ",.0f"), (f"{q}, ×", ".1f"))}},
    )
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-bench-history-"))
    try:
        feed = Feed(folder, seed=7)
        feed.snapshot(rows)
        feed.random(rows * 3 // 2)
        say(f"{rows:,} keys and {feed.offset:,} events are in the log")
        _tell_read(reads, "log alone", _read(folder, {WIDE: 1}), None)
        first = fold_apart("benchmarks.history", folder)
        own = first["bytes"] / max(first["rows"], 1)
        tell_fold(folds, "the first", first, None)
        base = _read(folder)
        _tell_read(reads, "base alone", base, None)
        few = min(100_000, rows // 10)
        for name, count in (("recent", few), ("random", few), ("random", few), ("random", few * 10)):
            (feed.recent if name == "recent" else feed.random)(count)
            _tell_read(reads, f"base and {count:,} {name}", _read(folder), base)
            tell_fold(folds, f"{count:,} {name}", fold_apart("benchmarks.history", folder), own * count)
        _tell_read(reads, "folded in the end", _read(folder), base)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(root: str) -> dict[str, int]:
    return data_files(history_path(root, SOURCE, TABLE))


def _read(folder: Path, queries: dict[str, int] = _THREE_TIMES) -> Times:
    session = open_session(Config.model_validate({"lake": {"uri": str(folder / "lake")}, "root": folder}))
    con = session.connection
    con.execute("SET enable_progress_bar = false")
    try:
        return {q: best(con, q.format(f"history.{TABLE}"), times) for q, times in queries.items()}
    finally:
        session.close()


def _tell_read(table: Table, name: str, took: Times, base: Times | None) -> None:
    cells: list[float | None] = []
    for query in _NAMES:
        seconds, busy = took.get(query, (None, None))
        times = busy / base[query][1] if base is not None and busy is not None else None
        cells += [None if seconds is None else seconds * 1000, times]
    table.add(name, *cells)


if __name__ == "__main__":
    fold_once(sys.argv[1], _files, lambda done: done.history_rows)
