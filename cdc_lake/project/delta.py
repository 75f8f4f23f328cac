"""What a fold changes: the new rows of all keys that changed, and which of the table's files hold rows of those keys.

The changes are made once, as a table of our own; what is written then is either that table, as a patch, or the files it
touches with the changes in them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import duckdb

from cdc_lake.project.bag import bag_sql, taken_sql
from cdc_lake.project.base import Base
from cdc_lake.project.current import View, base_select, changed_sql, touched_sql
from cdc_lake.project.files import scan
from cdc_lake.project.rules import small_files
from cdc_lake.project.segments import Segment
from cdc_lake.sqltext import ident, literal


@dataclass(frozen=True, slots=True)
class Delta:
    """`relation` holds (c0, c1, …, k, unknown, gone), one row for each of `rows` keys, `keys` of them new in this fold.

    `alive` is how many are not gone.
    """

    relation: str
    keys: int
    rows: int
    alive: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Files that are written anew: `query` is what comes in their place, of so many `rows` at most."""

    segments: tuple[Segment, ...]
    query: str
    rows: int


def find_delta(con: duckdb.DuckDBPyConnection, view: View, base: Base, own: str) -> Delta:
    """The changes of a table with a key, those in its patch included; makes tables in the schema `own`."""
    keys, relation = f"{own}.fold_keys", f"{own}.fold_delta"
    columns = view.shapes.target.columns
    con.execute(f"CREATE OR REPLACE TABLE {keys} AS {touched_sql(view)}")
    con.execute(f"CREATE OR REPLACE TABLE {relation} AS SELECT *, false AS gone FROM ({changed_sql(view)})")
    # Of a key that is gone, its numbers are kept: by them it is found.
    places = {name: f"n{i}" for i, name in enumerate(base.numbers)}
    values = [f"CAST({places.get(c.name, 'NULL')} AS {c.lake_type})" for c in columns]
    con.execute(
        f"""INSERT INTO {relation} SELECT {", ".join(values)}, k, []::VARCHAR[], true FROM {keys} t
        WHERE NOT EXISTS (SELECT 1 FROM {relation} d WHERE d.k = t.k)"""
    )
    if base.patch is not None and base.patch.files:
        over = replace(base, patch=None, files=base.patch.files)
        values = [*(over.value(c) for c in columns), over.key, over.unknown, f"b.{ident(base.patch.gone)}"]
        same = " AND ".join(f"t.n{i} = b.{ident(c)}" for i, c in enumerate(base.numbers)) or f"t.k = {over.key}"
        con.execute(
            f"""INSERT INTO {relation} SELECT {", ".join(values)} FROM {scan(over.files)} b
            WHERE NOT EXISTS (SELECT 1 FROM {keys} t WHERE {same})"""
        )
    counts = f"SELECT (SELECT count(*) FROM {keys}), count(*), count(*) FILTER (NOT gone) FROM {relation}"
    return Delta(relation, *_numbers(con, counts))


def forget_delta(con: duckdb.DuckDBPyConnection, own: str) -> None:
    """Drop the tables of `find_delta`."""
    con.execute(f"DROP TABLE IF EXISTS {own}.fold_keys; DROP TABLE IF EXISTS {own}.fold_delta")


def keyed_rewrite(
    con: duckdb.DuckDBPyConnection, view: View, base: Base, delta: Delta, *, segments: Sequence[Segment], limit: int
) -> Rewrite:
    """The files that hold a key of `delta`, and too many small ones, with the changes in them."""
    wanted = f"SELECT 1 FROM {delta.relation} d WHERE {_same(view, base)}"
    touched = holding(con, segments, wanted)
    chosen = to_rewrite(segments, touched, limit)
    kept = base_select(_over(view, base, chosen), f"NOT EXISTS ({wanted})")
    values = ", ".join(f"c{i}" for i in range(len(view.shapes.names)))
    query = f"SELECT {values}, k, unknown FROM {delta.relation} WHERE NOT gone UNION ALL {kept}"
    return Rewrite(chosen, query, sum(s.rows for s in chosen) - sum(touched.values()) + delta.alive)


def bag_rewrite(
    con: duckdb.DuckDBPyConnection, view: View, base: Base, *, segments: Sequence[Segment], limit: int
) -> Rewrite:
    """The files that hold a row that goes, of a table without a key, and too many small ones."""
    same = [f"{base.value(c)} IS NOT DISTINCT FROM t.c{i}" for i, c in enumerate(view.shapes.target.columns)]
    touched = holding(con, segments, f"SELECT 1 FROM ({taken_sql(view)}) t WHERE {' AND '.join(same)}")
    chosen = to_rewrite(segments, touched, limit)
    added = view.tail.facts.placed + view.tail.facts.free
    return Rewrite(chosen, bag_sql(_over(view, base, chosen)), sum(s.rows for s in chosen) + added)


def _over(view: View, base: Base, segments: Sequence[Segment]) -> View:
    return replace(view, base=replace(base, patch=None, files=tuple(s.file for s in segments)))


def _same(view: View, base: Base) -> str:
    places = {c.name: i for i, c in enumerate(view.shapes.target.columns)}
    return " AND ".join(f"d.c{places[n]} = b.{ident(n)}" for n in base.numbers) or f"d.k = {base.key}"


def holding(con: duckdb.DuckDBPyConnection, segments: Sequence[Segment], wanted: str) -> dict[str, int]:
    """The files with rows `b` for which `wanted` has one, and how many."""
    if not segments:
        return {}
    files = ", ".join(literal(s.file) for s in segments)
    relation = f"read_parquet([{files}], hive_partitioning=false, filename='__segment')"
    query = f"SELECT b.__segment, count(*) FROM {relation} b WHERE EXISTS ({wanted}) GROUP BY ALL"
    return dict(con.execute(query).fetchall())


def to_rewrite(segments: Sequence[Segment], touched: Collection[str], limit: int) -> tuple[Segment, ...]:
    """The `touched` files, and those that are too small for `limit` rows a file, if they are too many."""
    places = {i for i, s in enumerate(segments) if s.file in touched}
    places.update(small_files([s.rows for s in segments], limit, places))
    return tuple(segments[i] for i in sorted(places))


def _numbers(con: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int, int]:
    row = con.execute(query).fetchone()
    if row is None:
        raise ValueError("an aggregate has one row")
    return int(row[0]), int(row[1]), int(row[2])
