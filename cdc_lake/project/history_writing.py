"""Write a folded history: the lines that ended, and the files of open lines that change, or a patch over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Transaction
from deltalake.transaction import AddAction

from cdc_lake.crashpoints import reach
from cdc_lake.project.base import storage_type
from cdc_lake.project.delta import holding, to_rewrite
from cdc_lake.project.files import scan
from cdc_lake.project.history_base import AS_TEXT, CLOSED, OPEN, PART, PATCH, HistoryBase, stored_names
from cdc_lake.project.keys import WHOLE_NUMBERS, key_number
from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.rules import Cost, file_rows, patch_pays
from cdc_lake.project.segments import Segment, SegmentWriter, replace_all, replace_files
from cdc_lake.project.shapes import Shapes
from cdc_lake.sqltext import ident

_BATCH_ROWS = 50_000
_PATCH_FILE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Fresh:
    """The DuckDB table `relation` of what `state_sql` gives, as it is stored; `clears` says that no open line of the
    folded history is left."""

    relation: str
    shapes: Shapes
    clears: bool = False

    @property
    def closed(self) -> str:
        """A query of the lines that have ended."""
        return f"SELECT * FROM {self.relation} WHERE __valid_to IS NOT NULL"

    @property
    def opened(self) -> str:
        """A query of one row for each key: its open line, or that it has none."""
        return f"SELECT * FROM {self.relation} WHERE __valid_to IS NULL"


def stored(shapes: Shapes, query: str) -> str:
    """A query of the rows of `state_sql` as they are stored. Of a key that is gone, its numbers are kept: by them it is
    found."""
    items = []
    for i, (name, column) in enumerate(zip(stored_names(shapes), shapes.target.columns, strict=True)):
        value = f"c{i}"
        if column in shapes.target.key_columns and column.lake_type in WHOLE_NUMBERS:
            value = f"CASE WHEN gone THEN {key_number('__key', column)} ELSE c{i} END"
        items.append(f"CAST({value} AS {storage_type(column.lake_type)}) AS {ident(name)}")
    types = dict.fromkeys(AS_TEXT, "VARCHAR") | dict.fromkeys(("__valid_from", "__valid_to"), "TIMESTAMPTZ")
    types |= dict.fromkeys(("__lsn", "__from_position", "__to_position"), "BIGINT") | {"__unknown": "VARCHAR[]"}
    items += [f"CAST({n} AS {types.get(n, 'VARCHAR')}) AS {n}" for n in HISTORY_COLUMNS]
    items += ["CAST(since AS TIMESTAMPTZ) AS __since", "CAST(lost AS VARCHAR[]) AS __lost", "gone AS __gone"]
    return f"SELECT {', '.join(items)} FROM ({query})"


class HistoryWriter:
    """Writes into the Delta table at `path`, whose snapshot is `table`, if there is one.

    Each commit holds `held`. Raises DeltaError when another fold was committed since the snapshot.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        path: str,
        table: DeltaTable | None,
        options: Mapping[str, str] | None,
        held: Sequence[Transaction],
    ) -> None:
        self._con = con
        self._path, self._table, self._options, self._held = path, table, options, list(held)
        self._added: list[AddAction] = []
        self._schema = pa.schema([])
        self.rows = 0

    def add(self, fresh: Fresh, shown: int | None, shares: int) -> None:
        """Write one of about so many `shares` of a history that is made anew."""
        for part, query in ((CLOSED, fresh.closed), (OPEN, _lasting(fresh.opened, shown))):
            limit = file_rows(_count(self._con, query) * shares)
            self._added += self._files(part, fresh.shapes, query, limit)
        schema = self._reader(f"SELECT * FROM {fresh.relation} LIMIT 0").schema
        self._schema = schema.append(pa.field(PART, pa.string()))

    def replace(self) -> None:
        """Put what was added in place of the whole history."""
        replace_all(
            self._path, self._table, self._schema, self._added, held=self._held, options=self._options,
            partition_by=[PART],
        )  # fmt: skip

    def part(self, fresh: Fresh, base: HistoryBase, shown: int | None) -> None:
        """Add the lines that ended, and write what is open where it has changed."""
        if self._table is None:
            raise ValueError("a history that is not there is written whole")
        added, removed = self._closed(fresh, base)
        if fresh.clears:
            query, gone = _lasting(fresh.opened, shown), [*base.files(OPEN), *base.files(PATCH)]
            added += self._files(OPEN, fresh.shapes, query, file_rows(_count(self._con, query)))
        else:
            files, gone = self._opened(fresh, base, shown)
            added += files
        replace_files(self._table, added, [*removed, *gone], self._held)

    def _closed(self, fresh: Fresh, base: HistoryBase) -> tuple[list[AddAction], list[Segment]]:
        segments, new = base.files(CLOSED), _count(self._con, fresh.closed)
        if not new:
            return [], []
        limit = file_rows(sum(s.rows for s in segments) + new)
        merged = list(to_rewrite(segments, (), limit))
        query = fresh.closed
        if merged:
            query += f" UNION ALL SELECT * FROM {scan(s.file for s in merged)}"
        return self._files(CLOSED, fresh.shapes, query, limit), merged

    def _opened(self, fresh: Fresh, base: HistoryBase, shown: int | None) -> tuple[list[AddAction], list[Segment]]:
        delta = f"{fresh.relation}_delta"
        over = "NULL"
        self._con.execute(f"CREATE OR REPLACE TABLE {delta} AS {fresh.opened}")
        changed, patch = _count(self._con, f"FROM {delta}"), base.files(PATCH)
        try:
            if patch:
                over = scan(s.file for s in patch)
                same = f"NOT EXISTS (SELECT 1 FROM ({fresh.opened}) p WHERE {base.same_stored('p')})"
                self._con.execute(f"INSERT INTO {delta} SELECT * FROM {over} b WHERE {same}")
            return self._rewritten(fresh.shapes, base, delta, shown=shown, changed=changed)
        finally:
            self._con.execute(f"DROP TABLE {delta}")

    def _rewritten(
        self, shapes: Shapes, base: HistoryBase, delta: str, *, shown: int | None, changed: int
    ) -> tuple[list[AddAction], list[Segment]]:
        segments, patch = base.files(OPEN), base.files(PATCH)
        rows = _count(self._con, f"FROM {delta}")
        folded = sum(s.rows for s in segments)
        limit = file_rows(folded + rows)
        wanted = f"SELECT 1 FROM {delta} p WHERE {base.same_stored('p')}"
        touched = holding(self._con, segments, wanted)
        chosen = to_rewrite(segments, touched, limit)
        rewritten = sum(s.rows for s in chosen) - sum(touched.values()) + rows
        if patch_pays(Cost(changed, rows, rewritten, folded)):
            return self._files(PATCH, shapes, f"SELECT * FROM {delta}", _PATCH_FILE_ROWS), patch
        query = _lasting(f"SELECT * FROM {delta}", shown)
        if chosen:
            kept = f"SELECT * FROM {scan(s.file for s in chosen)} b WHERE NOT EXISTS ({wanted})"
            query += f" UNION ALL {_lasting(kept, shown)}"
        return self._files(OPEN, shapes, query, limit), [*chosen, *patch]

    def _files(self, part: str, shapes: Shapes, query: str, limit: int) -> list[AddAction]:
        keys = [
            ident(name)
            for name, column in zip(stored_names(shapes), shapes.target.columns, strict=True)
            if column in shapes.target.key_columns and column.lake_type in WHOLE_NUMBERS
        ]
        order = ", ".join([*(keys if len(keys) == len(shapes.target.key_columns) else ["__key"]), "__from_position"])
        source = self._reader(f"SELECT * FROM ({query}) ORDER BY {order}")
        writer = SegmentWriter(self._path, self._options, limit, {PART: part})
        added = writer.write(source.schema, iter(source), lambda: reach("history:writing"))
        self.rows += writer.rows
        return added

    def _reader(self, query: str) -> pa.RecordBatchReader:
        # A connection of its own: an open result keeps DuckDB's others from being asked.
        own = self._con.cursor()
        own.execute("SET TimeZone = 'UTC'")
        return own.sql(query).to_arrow_reader(_BATCH_ROWS)


def _lasting(query: str, shown: int | None) -> str:
    """Without keys that are gone and of which nothing need be known any more."""
    old = f"AND __since > make_timestamptz({shown})" if shown is not None else ""
    return f"SELECT * FROM ({query}) WHERE NOT __gone OR (__since IS NOT NULL {old})"


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    (count,) = con.execute(f"SELECT count(*) FROM ({query})").fetchone() or (0,)
    return int(count)
