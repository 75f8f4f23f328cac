"""Compare one table of the lake with the same table of the source, row by row, in bounded memory.

Both sides print every value as PostgreSQL does and hash the row. First only a count and a sum of hashes per bucket
travel; equal tables need no more. Then the rows of buckets that differ travel as two MD5 texts, of key and of values.
The few rows that are shown as examples are fetched afterwards, in the same source snapshot.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
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
# Hexadecimal digits of a row's hash that name its bucket: 65,536 buckets.
_BUCKET_DIGITS = 4
# Digits that are summed: their number fits a signed 64-bit integer.
_SUMMED_DIGITS = 15
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
    """What the comparison of one table found. `erased` are rows of the source that the lake must not have."""

    table: TableId
    rows_source: int = 0
    rows_lake: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    erased: int = 0
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
            "erased": self.erased,
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
        source = source_text(column.source_type, f"t.{ident(column.name)}")
        found.append(Pair(column.name, source, value, keyed and column.key_position is not None))
    return found


def source_text(source_type: str, value: str) -> str:
    """PostgreSQL's SQL of the text of `value`, as its output function prints it (`timetz` in UTC)."""
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


def hashed_texts(texts: Sequence[str]) -> str:
    """SQL of the MD5 of texts; a null differs from every text, and no two rows are joined into the same text."""
    parts = [f"coalesce('v' || {t}, 'n')" for t in texts]
    return f"md5({_joined(parts)})"


def _joined(parts: Sequence[str]) -> str:
    """SQL of the texts with a separator between them: a tree, for a chain of 1,600 columns is nested too deeply."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_joined(parts[:middle])} || {_SEPARATOR} || {_joined(parts[middle:])})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table on both sides: in `source` in its snapshot, in `con` as the query `lake_rows` (None: no such table).
    `erased` is a salt and, hashed with it, the keys of rows that were erased from the lake.

    Leaves the temporary table `differences` (k, kind, n) in `con`: hashes of keys, and how many rows differ how.
    """

    con: duckdb.DuckDBPyConnection
    source: psycopg.Connection[Any]
    table: TableId
    columns: Sequence[Pair]
    lake_rows: str | None
    erased: tuple[str, frozenset[str]] = ("", frozenset())

    def key_hash(self, side: str) -> str:
        """SQL of the MD5 of the key, or of the whole row in a table without one; `side` is `source` or `lake`."""
        keys = [p for p in self.columns if p.key] or self.columns
        return hashed_texts([getattr(p, side) for p in keys])

    def run(self) -> TableReport:
        """Compare."""
        report = TableReport(self.table)
        report.rows_source, report.rows_lake, differing = self._compare_buckets()
        self._fetch_rows(differing)
        _differences(self.con)
        report.erased = self._take_erased()
        for kind, count in self.con.execute("SELECT kind, sum(n)::BIGINT FROM differences GROUP BY kind").fetchall():
            setattr(report, kind, count)
        if not report.ok:
            report.examples = self._examples()
        return report

    def _take_erased(self) -> int:
        """Take rows out of the differences that miss because they were erased; how many."""
        salt, hashes = self.erased
        if not hashes:
            return 0
        erased = f"kind = 'missing' AND sha256({literal(salt)} || k) IN (SELECT unnest($1::VARCHAR[]))"
        taken = self.con.execute(f"DELETE FROM differences WHERE {erased} RETURNING n", [sorted(hashes)]).fetchall()
        return sum(int(n) for (n,) in taken)

    def in_source(self, hashes: Sequence[str], items: Sequence[str]) -> list[tuple[Any, ...]]:
        """The hash and `items` (SQL over `t`) of the source's rows whose key hashes are `hashes`."""
        key = self.key_hash("source")
        # In a statement with parameters psycopg takes every other percent sign twice.
        listed = f"SELECT {', '.join([key, *items])} FROM {self._relation} t WHERE {key}".replace("%", "%%")
        return self.source.execute(f"{listed} = ANY(%s)".encode(), (list(hashes),)).fetchall()

    def in_lake(self, hashes: Sequence[str], items: Sequence[str]) -> list[tuple[Any, ...]]:
        """The hash and `items` (SQL over `l`) of the lake's rows whose key hashes are `hashes`."""
        if self.lake_rows is None or not hashes:
            return []
        key = self.key_hash("lake")
        wanted = "SELECT unnest(?::VARCHAR[])"
        query = f"SELECT {', '.join([key, *items])} FROM ({self.lake_rows}) l WHERE {key} IN ({wanted})"
        return self.con.execute(query, [list(hashes)]).fetchall()

    @property
    def _relation(self) -> str:
        return f"{ident(self.table.schema)}.{ident(self.table.name)}"

    def _row_hash(self, side: str) -> str:
        return hashed_texts([getattr(p, side) for p in self.columns])

    def _compare_buckets(self) -> tuple[int, int, list[str] | None]:
        """Rows in the source and in the lake, and the buckets that differ; None when all are to be looked at."""
        number = f"('x0' || substr(h, 1, {_SUMMED_DIGITS}))::bit(64)::bigint"
        bucket = f"right(h, {_BUCKET_DIGITS})"
        source = self.source.execute(
            f"""SELECT {bucket}, count(*), sum({number})::text
            FROM (SELECT {self._row_hash("source")} AS h FROM {self._relation} t) hashed GROUP BY 1""".encode()
        ).fetchall()
        lake: list[tuple[str, int, str]] = []
        if self.lake_rows is not None:
            number = f"('0x' || left(h, {_SUMMED_DIGITS}))::BIGINT"
            lake = self.con.execute(
                f"""SELECT {bucket}, count(*), sum({number})::VARCHAR
                FROM (SELECT {self._row_hash("lake")} AS h FROM ({self.lake_rows}) l) GROUP BY 1"""
            ).fetchall()
        one, other = {b: (n, s) for b, n, s in source}, {b: (n, s) for b, n, s in lake}
        differing = [b for b in one.keys() | other.keys() if one.get(b) != other.get(b)]
        whole = len(differing) > 16**_BUCKET_DIGITS // 2
        return sum(n for _, n, _ in source), sum(n for _, n, _ in lake), None if whole else sorted(differing)

    def _fetch_rows(self, buckets: list[str] | None) -> None:
        """The temporary tables `source_rows` and `lake_rows` (k, h) of the buckets; both spill when they are large."""
        for name in ("source_rows", "lake_rows"):
            self.con.execute(f"CREATE OR REPLACE TEMP TABLE {name} (k VARCHAR, h VARCHAR)")
        if buckets == []:
            return
        listed = "" if buckets is None else ", ".join(literal(b) for b in buckets)
        chosen = f" WHERE right(h, {_BUCKET_DIGITS}) IN ({listed})" if listed else ""
        with tempfile.TemporaryDirectory(prefix="cdc-lake-verify-") as folder:
            file = Path(folder) / "rows.tsv"
            rows = f"SELECT {self.key_hash('source')} AS k, {self._row_hash('source')} AS h FROM {self._relation} t"
            query = f"COPY (SELECT k, h FROM ({rows}) hashed{chosen}) TO STDOUT"
            with file.open("wb") as out, self.source.cursor() as cursor, cursor.copy(query.encode()) as stream:
                for block in stream:
                    out.write(block)
            self.con.execute(
                f"""INSERT INTO source_rows SELECT * FROM read_csv({literal(str(file))}, delim='\t', header=false,
                auto_detect=false, columns={{'k': 'VARCHAR', 'h': 'VARCHAR'}}, quote='')"""
            )
        if self.lake_rows is not None:
            rows = f"SELECT {self.key_hash('lake')} AS k, {self._row_hash('lake')} AS h FROM ({self.lake_rows}) l"
            self.con.execute(f"INSERT INTO lake_rows SELECT k, h FROM ({rows}){chosen}")

    def _examples(self) -> list[dict[str, Any]]:
        wanted = self.con.execute(
            "SELECT k, any_value(kind) FROM differences GROUP BY k ORDER BY k LIMIT ?", [EXAMPLES]
        ).fetchall()
        hashes = [k for k, _ in wanted]
        source = self._named(self.in_source, hashes, lambda p: p.source)
        lake = self._named(self.in_lake, hashes, lambda p: p.lake)
        return [_example(self.columns, kind, source.get(k), lake.get(k)) for k, kind in wanted]

    def _named(
        self,
        read: Callable[[Sequence[str], Sequence[str]], list[tuple[Any, ...]]],
        hashes: Sequence[str],
        text: Callable[[Pair], str],
    ) -> dict[str, dict[str, Any]]:
        names = [p.name for p in self.columns]
        return {r[0]: dict(zip(names, r[1:], strict=True)) for r in read(hashes, [text(p) for p in self.columns])}


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
