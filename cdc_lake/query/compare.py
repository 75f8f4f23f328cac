"""Compare one table of the lake with the same table of the source, row by row, in bounded memory.

Both sides print every value as PostgreSQL does and hash it: a row becomes two MD5 texts, of its key and of its values.
Only those travel; the few rows that are shown as examples are fetched afterwards, in the same source snapshot.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from cdc_lake.events import TableId
from cdc_lake.project.types import Column
from cdc_lake.sqltext import ident, literal

EXAMPLES = 5
_SEPARATOR = "chr(31)"
# Types whose cast to text is what their output function prints; the others are printed with format().
_CAST_PRINTS = (
    "smallint",
    "integer",
    "bigint",
    "oid",
    "numeric",
    "text",
    "character varying",
    "real",
    "double precision",
    "date",
    "time",
    "timestamp",
    "uuid",
    "json",
    "jsonb",
    "bytea",
    "interval",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A column on both sides; `source` and `lake` are SQL of its text."""

    name: str
    source: str
    lake: str
    key: bool


@dataclass(slots=True)
class TableReport:
    """What the comparison of one table found."""

    table: TableId
    rows_source: int = 0
    rows_lake: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    cause: str | None = None

    @property
    def ok(self) -> bool:
        """Whether both sides are equal."""
        return not (self.missing or self.extra or self.different)

    def as_dict(self) -> dict[str, Any]:
        """The shape of `verify --json`."""
        return {
            "table": str(self.table),
            "rows_source": self.rows_source,
            "rows_lake": self.rows_lake,
            "missing": self.missing,
            "extra": self.extra,
            "different": self.different,
            "examples": self.examples,
            "cause": self.cause,
        }


def pairs(columns: Sequence[Column], lake_columns: Mapping[str, str], keyed: bool) -> list[Pair]:
    """Columns that both sides have. `columns` are the source's (by its catalogue), `lake_columns` name -> SQL."""
    found = []
    for column in columns:
        value = lake_columns.get(column.name)
        if value is None:
            continue
        source = _source_text(column.source_type, f"t.{ident(column.name)}")
        found.append(Pair(column.name, source, value, keyed and column.key_position is not None))
    return found


def _source_text(source_type: str, value: str) -> str:
    if source_type == "money":
        return f"({value}::numeric)::text"
    if source_type.startswith("time") and source_type.endswith("with time zone") and "stamp" not in source_type:
        # The connector sends timetz in UTC.
        return f"({value} AT TIME ZONE 'UTC')::text"
    if (
        source_type.split("(", maxsplit=1)[0].removesuffix(" without time zone").removesuffix(" with time zone")
        in _CAST_PRINTS
    ):
        return f"{value}::text"
    return f"CASE WHEN {value} IS NOT NULL THEN format('%s', {value}) END"


def _hashed(texts: Sequence[str]) -> str:
    """SQL of the MD5 of texts; a null differs from every text, and no two rows are joined into the same text."""
    parts = [f"coalesce('v' || {t}, 'n')" for t in texts]
    return f"md5({f' || {_SEPARATOR} || '.join(parts)})"


def _hash_items(columns: Sequence[Pair], side: str) -> tuple[str, str]:
    texts = {p.name: getattr(p, side) for p in columns}
    keys = [p.name for p in columns if p.key] or [p.name for p in columns]
    return _hashed([texts[k] for k in keys]), _hashed(list(texts.values()))


def compare(
    con: duckdb.DuckDBPyConnection,
    source: psycopg.Connection[Any],
    table: TableId,
    columns: Sequence[Pair],
    lake_rows: str | None,
) -> TableReport:
    """Compare `table` of `source` (in its snapshot) with the query `lake_rows` (None: the lake has no such table)."""
    report = TableReport(table)
    relation = f"{ident(table.schema)}.{ident(table.name)}"
    key, row = _hash_items(columns, "source")
    with tempfile.TemporaryDirectory(prefix="cdc-lake-verify-") as folder:
        file = Path(folder) / "rows.tsv"
        query = f"COPY (SELECT {key}, {row} FROM {relation} t) TO STDOUT"
        with file.open("wb") as out, source.cursor() as cursor, cursor.copy(query.encode()) as stream:
            for block in stream:
                out.write(block)
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE source_rows AS SELECT * FROM read_csv({literal(str(file))},
            delim='\t', header=false, auto_detect=false, columns={{'k': 'VARCHAR', 'h': 'VARCHAR'}}, quote='')"""
        )
    if lake_rows is None:
        con.execute("CREATE OR REPLACE TEMP TABLE lake_rows (k VARCHAR, h VARCHAR)")
    else:
        key, row = _hash_items(columns, "lake")
        con.execute(f"CREATE OR REPLACE TEMP TABLE lake_rows AS SELECT {key} AS k, {row} AS h FROM ({lake_rows}) l")
    report.rows_source = _count(con, "source_rows")
    report.rows_lake = _count(con, "lake_rows")
    _differences(con)
    for kind, count in con.execute("SELECT kind, sum(n)::BIGINT FROM differences GROUP BY kind").fetchall():
        setattr(report, kind, count)
    if not report.ok:
        report.examples = _examples(con, source, relation, columns, lake_rows)
    return report


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row is not None else 0


def _differences(con: duckdb.DuckDBPyConnection) -> None:
    """The table `differences` (k, kind, n). Keys may repeat where a table has none: then rows are counted."""
    con.execute(
        """CREATE OR REPLACE TEMP TABLE differences AS
        WITH s AS (SELECT k, h, count(*) AS n FROM source_rows GROUP BY k, h),
             l AS (SELECT k, h, count(*) AS n FROM lake_rows GROUP BY k, h),
             unequal AS (SELECT coalesce(s.k, l.k) AS k, greatest(coalesce(s.n, 0) - coalesce(l.n, 0), 0) AS missing,
                                greatest(coalesce(l.n, 0) - coalesce(s.n, 0), 0) AS extra
                         FROM s FULL JOIN l ON s.k = l.k AND s.h = l.h
                         WHERE coalesce(s.n, 0) <> coalesce(l.n, 0)),
             per_key AS (SELECT k, sum(missing) AS missing, sum(extra) AS extra FROM unequal GROUP BY k)
        SELECT k, 'different' AS kind, least(missing, extra) AS n FROM per_key WHERE missing > 0 AND extra > 0
        UNION ALL SELECT k, 'missing', missing - extra FROM per_key WHERE missing > extra
        UNION ALL SELECT k, 'extra', extra - missing FROM per_key WHERE extra > missing"""
    )


def _examples(
    con: duckdb.DuckDBPyConnection,
    source: psycopg.Connection[Any],
    relation: str,
    columns: Sequence[Pair],
    lake_rows: str | None,
) -> list[dict[str, Any]]:
    wanted = con.execute(
        "SELECT k, any_value(kind) FROM differences GROUP BY k ORDER BY k LIMIT ?", [EXAMPLES]
    ).fetchall()
    hashes = [k for k, _ in wanted]
    names = [p.name for p in columns]
    key, _ = _hash_items(columns, "source")
    texts = ", ".join(p.source for p in columns)
    # In a statement with parameters psycopg takes every other percent sign twice.
    query = f"SELECT {key}, {texts} FROM {relation} t WHERE {key}".replace("%", "%%") + " = ANY(%s)"
    found = source.execute(query.encode(), (hashes,)).fetchall()
    in_source = {r[0]: dict(zip(names, r[1:], strict=True)) for r in found}
    in_lake: dict[str, dict[str, Any]] = {}
    if lake_rows is not None:
        key, _ = _hash_items(columns, "lake")
        texts = ", ".join(p.lake for p in columns)
        listed = ", ".join(literal(h) for h in hashes)
        rows = con.execute(f"SELECT {key}, {texts} FROM ({lake_rows}) l WHERE {key} IN ({listed})").fetchall()
        in_lake = {r[0]: dict(zip(names, r[1:], strict=True)) for r in rows}
    return [_example(columns, kind, in_source.get(k), in_lake.get(k)) for k, kind in wanted]


def _example(
    columns: Sequence[Pair], kind: str, source: dict[str, Any] | None, lake: dict[str, Any] | None
) -> dict[str, Any]:
    one = source or lake or {}
    key = {p.name: one.get(p.name) for p in columns if p.key}
    changed = {
        p.name: {"source": _short((source or {}).get(p.name)), "lake": _short((lake or {}).get(p.name))}
        for p in columns
        if (source or {}).get(p.name) != (lake or {}).get(p.name)
    }
    return {"kind": kind, "key": key, "columns": changed}


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"
