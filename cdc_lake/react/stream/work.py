"""Relations that an evaluation makes on its way, and what is kept of them from one to the next."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc_lake.query.placed import stored_type
from cdc_lake.sqltext import ident, literal

WORK = "lake.internal.model"
Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where an evaluation goes: the watermark then, and the clock of the positions on the way there."""

    watermark: int
    clock: str
    lateness: int

    def closed(self, rows: str, due: str) -> str:
        """`rows` with `__closed`: the first position at which the watermark was at `due` (microseconds)."""
        clock = f"SELECT mark AS __at, min(position) AS __closed FROM {self.clock} GROUP BY mark"
        timed = f"SELECT *, {due} + {self.lateness} AS __due FROM {rows}"
        return f"""SELECT r.* EXCLUDE (__due), c.__closed FROM ({timed}) r
            ASOF JOIN ({clock}) c ON r.__due <= c.__at"""


def make(con: duckdb.DuckDBPyConnection, name: str, query: str) -> str:
    """Make a relation; its full name."""
    con.execute(f"CREATE OR REPLACE TABLE {WORK}_{name} AS {query}")
    return f"{WORK}_{name}"


def saved(relation: str, columns: Columns, where: str, *, part: str = "") -> str:
    """A query: rows to remember as `part`, in types that a file has."""
    shown = [f"CAST({ident(n)} AS {stored_type(t)}) AS c{part}_{i}" for i, (n, t) in enumerate(columns)]
    return f"SELECT {literal(part)} AS part, {', '.join(shown)} FROM {relation} WHERE {where}"


def restored(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | None, columns: Columns, part: str = "") -> str:
    """Make a relation of what was remembered as `part`; its full name."""
    if rows is None or f"c{part}_0" not in rows.column_names:
        empty = ", ".join(f"CAST(NULL AS {t}) AS {ident(n)}" for n, t in columns)
        return make(con, name, f"SELECT {empty} WHERE false")
    shown = ", ".join(f"CAST(c{part}_{i} AS {t}) AS {ident(n)}" for i, (n, t) in enumerate(columns))
    con.register("remembered", rows)
    try:
        return make(con, name, f"SELECT {shown} FROM remembered WHERE part = {literal(part)}")
    finally:
        con.unregister("remembered")
