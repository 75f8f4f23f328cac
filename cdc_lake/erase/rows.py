"""What goes of one table: the rows of its log, and the hashes that keep them from coming back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import duckdb

from cdc_lake.erase.lines import Key, Lines, find_lines
from cdc_lake.land.erasures import ERASED, Entry, hashed
from cdc_lake.project.current import keyed_sql
from cdc_lake.project.life import Life
from cdc_lake.project.printing import printed
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.query.compare import hashed_texts
from cdc_lake.query.history_views import history_view
from cdc_lake.sqltext import literal

# What goes of a log row: all that it holds, or only the image of the row as it was before.
ALL, BEFORE = "all", "before"
_NO_FILLS = "SELECT NULL::VARCHAR AS file, NULL::BIGINT AS n, NULL::VARCHAR AS after WHERE false"


@dataclass(frozen=True, slots=True)
class Touched:
    """A data file of a log: its `rows`, and `bytes`."""

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """What goes of a table: in its log the rows of the DuckDB table `relation` (file, n, k, sent, op, lsn, sid, what,
    after); where `what` is null, the image after the change is `after` from now on.

    `keys` are those of rows that go whole, `images` counts rows that stay without an image of theirs, `versions` those
    of `history`, `current` the rows of the folded table, `living` those that the source still had at the cut.
    """

    state: SourceState
    table: TableState
    keys: tuple[Key, ...]
    relation: str
    rows: int
    events: int
    images: int
    versions: int
    current: int
    living: int
    touched: tuple[Touched, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the files that are written anew."""
        return sum(t.bytes for t in self.touched)


@dataclass(frozen=True, slots=True)
class TableLog:
    """All rows of a table's log with their place, under the keys they are shown by; `sent` are those they came with."""

    con: duckdb.DuckDBPyConnection
    state: SourceState
    table: TableState
    shapes: Shapes
    renaming: Renaming | None

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, state: SourceState, table: TableState) -> TableLog:
        """Raises the table's error when it cannot be shown."""
        if table.error is not None or table.shapes is None:
            raise table.error or ValueError("a table without shapes has an error")
        return cls(con, state, table, table.shapes, state.renaming(con, table))

    @property
    def relation(self) -> str:
        """The log."""
        listed = ", ".join(literal(p) for p in self.table.log.paths)
        rows = f"read_parquet([{listed}], hive_partitioning=false, filename='__file', file_row_number=true)"
        whole = f"(SELECT *, __key AS sent FROM {rows})"
        return whole if self.renaming is None else self.renaming.over(whole)

    def lines(self, texts: Iterable[str]) -> Lines:
        """All that the rows with these keys have ever been called."""
        life = Life(
            self.shapes,
            tuple(self.table.log.paths),
            timeline_sql(self.state.transactions),
            self.state.cut.position,
            start=self.table.log.start,
            renaming=self.renaming,
        )
        return find_lines(self.con, life, self.relation, texts, f"{self.state.lake.own}.erase_events")

    def part(self, lines: Lines, number: int, images: str = "NULL", fills: str = "") -> Part:
        """What goes with `lines`, and where `images`, SQL over a log row, says `all` or `before`. `fills` is a query
        (file, n, after) of images that are another text from now on."""
        name = f"{self.state.lake.own}.erase_rows_{number}"
        filled = f"SELECT file, n, max(after) AS after FROM ({fills or _NO_FILLS}) GROUP BY ALL"
        self.con.execute(
            f"""CREATE OR REPLACE TABLE {name} AS SELECT r.*, g.after FROM (
                SELECT __file AS file, file_row_number AS n, __key AS k, sent, __op AS op, __lsn AS lsn,
                __schema_id AS sid, CASE WHEN {lines.condition} THEN {literal(ALL)} ELSE {images} END AS what
                FROM {self.relation} l WHERE __op <> {literal(ERASED)}) r
            LEFT JOIN ({filled}) g ON g.file = r.file AND g.n = r.n
            WHERE what IS NOT NULL OR g.n IS NOT NULL"""
        )
        return self._counted(lines.keys, name)

    def _counted(self, keys: tuple[Key, ...], name: str) -> Part:
        rows, events, images = self._numbers(
            f"""SELECT count(what), count(*) FILTER (op <> 'x' AND what = {literal(ALL)}),
            count(*) FILTER (what = {literal(BEFORE)}) FROM {name}"""
        )
        texts = [k.text for k in keys if k.gone]
        return Part(
            self.state,
            self.table,
            keys,
            name,
            rows,
            events,
            images,
            self._versions([k.text for k in keys]),
            self._folded(texts),
            self._living(texts),
            self._touched(name),
        )

    def _versions(self, texts: Collection[str]) -> int:
        view = history_view(self.state, self.table, keys=texts, renaming=self.renaming)
        return self._numbers(f"SELECT count(*) FROM ({view})")[0] if texts else 0

    def _folded(self, texts: Collection[str]) -> int:
        base, listed = self.table.base, ", ".join(literal(t) for t in texts)
        if base is None or not listed:
            return 0
        counts = [f"SELECT count(*) AS c FROM {r} b WHERE {w} AND {base.key} IN ({listed})" for r, w in base.parts]
        return self._numbers(f"SELECT sum(c) FROM ({' UNION ALL '.join(counts)})")[0] if counts else 0

    def _living(self, texts: Collection[str]) -> int:
        view, listed = self.state.view(self.con, self.table, "erase_view"), ", ".join(literal(t) for t in texts)
        return self._numbers(f"SELECT count(*) FROM ({keyed_sql(view)}) WHERE k IN ({listed or 'NULL'})")[0]

    def _touched(self, name: str) -> tuple[Touched, ...]:
        files = {f for (f,) in self.con.execute(f"SELECT DISTINCT file FROM {name}").fetchall()}
        return tuple(Touched(f.path, f.rows, f.bytes) for f in self.table.log.files if f.path in files)

    def _numbers(self, query: str) -> tuple[int, ...]:
        return tuple(int(n or 0) for n in self.con.execute(query).fetchone() or ())


def entries_of(con: duckdb.DuckDBPyConnection, part: Part, salt: str, erasure: str) -> list[Entry]:
    """What the list says of a part: one entry for each key, and for each other text that it was sent under."""
    table, gone = part.table.table, {k.text: k.whole for k in part.keys}
    sent = con.execute(
        f"SELECT k, sent, max(lsn) FROM {part.relation} WHERE what = {literal(ALL)} AND k IS NOT NULL GROUP BY ALL"
    ).fetchall()
    found: dict[str, Entry] = {}
    rows = _row_hashes(con, part)
    for k, own, lsn in sent:
        for text in dict.fromkeys((k, own)):
            row = hashed(salt, rows[k]) if k in rows and k in gone else ""
            newest = max(-1 if lsn is None else lsn, found[text].lsn if text in found else -1)
            found[text] = Entry(erasure, table, hashed(salt, text), row, newest, gone.get(k, False))
    return list(found.values())


def _row_hashes(con: duckdb.DuckDBPyConnection, part: Part) -> dict[str, str]:
    """The MD5 of each key by which `verify` compares rows."""
    shapes = part.table.shapes
    if shapes is None:
        return {}
    keys = f"(SELECT k AS img, max(sid) AS sid FROM {part.relation} WHERE k IS NOT NULL GROUP BY k)"
    query = f"SELECT k, {key_md5(shapes)} FROM ({shapes.decoded(keys, 'img', 'sid', ['img AS k'])})"
    return dict(con.execute(query).fetchall())


def key_md5(shapes: Shapes) -> str:
    """SQL of that MD5 over rows that have the columns as c0, c1, …"""
    keys = shapes.target.key_columns
    places = [(i, c) for i, c in enumerate(shapes.target.columns) if c in keys]
    return hashed_texts([printed(c.lake_type, f"c{i}") for i, c in places])
