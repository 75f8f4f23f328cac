"""Cut a table's changes by key into shares, each so small that a fold has memory for it.

A fold keeps the last image of each key, and DuckDB cannot put aside what an aggregate holds. So where a tail does not
fit, its rows are read once, each gets its place, and they go into files of their own on the local disk, cut by ranges
of the key. One share after the other is then folded as if it were all; their results follow each other in the order of
the key.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import duckdb

from cdc_lake.land.tables import LOG
from cdc_lake.project.keys import KeyOrder
from cdc_lake.project.tail import Tail
from cdc_lake.sqltext import ident, literal

_SAMPLE = 50_000
# Of each file that is being written, this many rows wait in memory for the rest of their group.
_LEAST_ROWS, _GROUP_ROWS, _WAITING_ROWS = 2_048, 8_192, 50_000
# So that they take an eighth of the memory, if a row takes 800 bytes.
_WAITING_BYTES = 6_400
# More files than this are not written at once.
_MOST = 400
_SHARE = "__share"
_Bound = int | str
T = TypeVar("T")

Tell = Callable[[str, float], None]
"""Hears what a fold does, and which part of that is done, from 0 to 1."""

COLUMNS = tuple(ident(name) for name in LOG.names)
"""What a query of placed rows must have for `cut_up`, before the three columns of the place."""


def untold(_what: str, _done: float) -> None:
    """For folds that nobody watches."""


def memory_limit(con: duckdb.DuckDBPyConnection) -> int:
    """The memory that DuckDB may take, in bytes."""
    (text,) = con.execute("SELECT current_setting('memory_limit')").fetchone() or ("1 GiB",)
    number, unit = str(text).split()
    return int(float(number) * 1024 ** ["bytes", "KiB", "MiB", "GiB", "TiB"].index(unit))


def image_bytes(con: duckdb.DuckDBPyConnection, relation: str) -> int:
    """What the key and the last image of a log row take on the average, in bytes, by some of them."""
    text = "strlen(coalesce(__after, '')) + strlen(coalesce(__key, ''))"
    (mean,) = con.execute(f"SELECT avg({text}) FROM (FROM {relation} LIMIT {_SAMPLE})").fetchone() or (None,)
    return max(1, round(mean or 0))


def in_shares(con: duckdb.DuckDBPyConnection, nbytes: int, rows: int, work: Callable[[int], T]) -> T:
    """Do `work` on so many rows, which take `nbytes` in memory, in as many shares as it is told; in more where memory
    is not enough after all."""
    count = shares_for(con, nbytes)
    while True:
        try:
            return work(count)
        except duckdb.OutOfMemoryException:
            # How much a change takes is not known before: of long rows, or of keys whose life is odd, far more.
            if count >= min(rows, _MOST):
                raise
            count *= 4


def shares_for(con: duckdb.DuckDBPyConnection, nbytes: int) -> int:
    """How many shares rows are cut into that take so many bytes; 1 when they fit as they are."""
    return max(1, -(-nbytes // memory_limit(con)))


@dataclass(frozen=True, slots=True)
class Share:
    """`files` hold the placed rows of its keys, and every truncate. Its keys are those from `low` to below `high`, None
    being no bound, or, when it is `apart`, those that had to stay together."""

    files: tuple[str, ...]
    order: KeyOrder
    low: _Bound | None = None
    high: _Bound | None = None
    apart: bool = False

    def of(self, tail: Tail) -> Tail:
        """`tail` with the rows of this share alone."""
        return replace(tail, files=self.files, lows=None, renaming=None, set_out=True)

    def holds(self, key: str) -> str:
        """The SQL condition that a key that is not apart belongs to it; `key` is SQL of its place in `order`."""
        parts = [f"{key} >= {_sql(self.low)}"] if self.low is not None else []
        parts += [f"{key} < {_sql(self.high)}"] if self.high is not None else []
        return f"({' AND '.join(parts)})" if parts else "true"


@contextmanager
def cut_up(
    con: duckdb.DuckDBPyConnection, rows: str, keys: str, order: KeyOrder, count: int, *, apart: str | None = None
) -> Iterator[list[Share]]:
    """About `count` shares of `rows` (a query of `COLUMNS`, pos_tx, pos_order, off), until the context ends.

    `keys` is a query of their keys as `__key`, each as often as it has rows; their texts are cut in `order`. `apart` is
    a query of keys that must stay together: they are a share of their own, the last.
    Raises the errors of DuckDB.
    """
    folder = Path(tempfile.mkdtemp(prefix="shares-", dir=_spill(con)))
    try:
        bounds = _bounds(con, keys, order, min(count, _MOST))
        _write(con, rows, folder, _number(order.of_text("__key"), bounds, apart), len(bounds) + 1)
        yield _shares(folder, order, bounds, apart is not None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _spill(con: duckdb.DuckDBPyConnection) -> str | None:
    (folder,) = con.execute("SELECT current_setting('temp_directory')").fetchone() or (None,)
    return str(folder) if folder and Path(folder).is_dir() else None


def _bounds(con: duckdb.DuckDBPyConnection, keys: str, order: KeyOrder, count: int) -> list[_Bound]:
    """The first keys of all shares but the first, from a sample."""
    sample = f"SELECT __key FROM ({keys}) WHERE __key IS NOT NULL"
    rows = con.execute(
        f"""SELECT {order.of_text("__key")} AS key
        FROM (FROM ({sample}) USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (1)) ORDER BY key"""
    ).fetchall()
    found: list[_Bound] = [key for (key,) in rows if key is not None]
    places = [found[len(found) * i // count] for i in range(1, count)] if found else []
    return sorted({p for p in places if p != found[0]})


def _number(key: str, bounds: Sequence[_Bound], apart: str | None) -> str:
    """SQL of the number of the share that a row belongs to; of a row without a key it is -1."""
    own = _search(key, bounds, 0)
    if apart is not None:
        own = f"CASE WHEN __key IN ({apart}) THEN {len(bounds) + 1} ELSE {own} END"
    return f"CASE WHEN __key IS NULL THEN -1 ELSE {own} END"


def _search(key: str, bounds: Sequence[_Bound], first: int) -> str:
    """A tree of comparisons: a key meets few of them."""
    if not bounds:
        return str(first)
    middle = len(bounds) // 2
    less, more = _search(key, bounds[:middle], first), _search(key, bounds[middle + 1 :], first + middle + 1)
    return f"CASE WHEN {key} < {_sql(bounds[middle])} THEN {less} ELSE {more} END"


def _sql(bound: _Bound | None) -> str:
    return literal(bound) if isinstance(bound, str) else str(bound)


def _write(con: duckdb.DuckDBPyConnection, rows: str, folder: Path, number: str, count: int) -> None:
    room = memory_limit(con) // _WAITING_BYTES
    con.execute(f"SET partitioned_write_flush_threshold = {max(_LEAST_ROWS, min(_WAITING_ROWS, room))}")
    group = max(_LEAST_ROWS, min(_GROUP_ROWS, 2 * room // count))
    con.execute(
        f"""COPY (SELECT {", ".join(COLUMNS)}, pos_tx::BIGINT AS pos_tx, pos_order::BIGINT AS pos_order,
        off::BIGINT AS off, ({number})::INTEGER AS {_SHARE} FROM ({rows})) TO {literal(str(folder))}
        (FORMAT parquet, PARTITION_BY ({_SHARE}), ROW_GROUP_SIZE {group}, COMPRESSION lz4, OVERWRITE_OR_IGNORE)"""
    )


def _shares(folder: Path, order: KeyOrder, bounds: Sequence[_Bound], apart: bool) -> list[Share]:
    def files(number: int) -> tuple[str, ...]:
        return tuple(str(p) for p in sorted((folder / f"{_SHARE}={number}").glob("*.parquet")))

    lows, highs, clears = [None, *bounds], [*bounds, None], files(-1)
    shares = [
        Share((*files(i), *clears), order, low, high) for i, (low, high) in enumerate(zip(lows, highs, strict=True))
    ]
    if apart and (together := files(len(bounds) + 1)):
        shares.append(Share((*together, *clears), order, apart=True))
    return shares
