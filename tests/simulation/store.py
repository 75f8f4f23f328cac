"""A Delta Lake whose log is in memory: the same promises as `Store`, thousands of commits a second, faults by chance.

Only Delta's log is made up. Data files are Parquet in the folder where Delta would put them, so that everything that
reads a lake reads this one with the product's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import CommitFailedError

from cdc_lake.crashpoints import reach

_BOUNDS = ("__topic", "__partition", "__offset", "__schema_id", "__ingested_at")


@dataclass(frozen=True)
class Snapshot:
    """One version of a table, with the part of DeltaTable's interface that the product uses."""

    path: str
    number: int = -1
    parts: tuple[tuple[str, pa.Table], ...] = ()
    transactions: Mapping[str, int] = field(default_factory=dict)
    description: str = ""
    store: MemoryStore | None = None

    def version(self) -> int:
        return self.number

    def transaction_version(self, name: str) -> int | None:
        return self.transactions.get(name)

    def metadata(self) -> Any:
        return SimpleNamespace(description=self.description)

    @property
    def alter(self) -> Any:
        return SimpleNamespace(set_table_description=self._describe)

    def to_pyarrow_table(self, columns: list[str] | None = None) -> pa.Table:
        rows = pa.concat_tables([part for _, part in self.parts])
        return rows.select(columns) if columns else rows

    def to_pyarrow_dataset(self) -> Any:
        fragments = [SimpleNamespace(path=name) for name, _ in self.parts]
        files = SimpleNamespace(open_input_file=lambda name: _as_file(dict(self.parts)[name]))
        return SimpleNamespace(schema=self.parts[0][1].schema, filesystem=files, get_fragments=lambda _: fragments)

    def file_uris(self) -> list[str]:
        return [f"{self.path}/{name}" for name, _ in self.parts]

    def get_add_actions(self, *, flatten: bool) -> pa.Table:
        assert flatten
        return pa.Table.from_pylist([{"path": n, "num_records": p.num_rows, **_statistics(p)} for n, p in self.parts])

    def _describe(self, text: str) -> None:
        assert self.store is not None
        newest = self.store.tables[self.path]
        self.store.tables[self.path] = replace(newest, number=newest.number + 1, description=text)


def _as_file(rows: pa.Table) -> pa.BufferReader:
    out = pa.BufferOutputStream()
    pq.write_table(rows, out)
    return pa.BufferReader(out.getvalue())


def _statistics(rows: pa.Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _BOUNDS:
        if name in rows.schema.names:
            bounds = pc.min_max(rows[name])
            found[f"min.{name}"], found[f"max.{name}"] = bounds["min"].as_py(), bounds["max"].as_py()
            found[f"null_count.{name}"] = rows[name].null_count
    return found


class MemoryStore:
    """Put-if-absent commits. `fault` is asked at each step of an append and may raise what would happen there."""

    def __init__(self, fault: Callable[[str], None] = lambda _: None) -> None:
        self.tables: dict[str, Snapshot] = {}
        self.orphans = 0
        self._fault = fault
        self._files = 0

    def open(self, path: str) -> Snapshot | None:
        return self.tables.get(path)

    def refresh(self, path: str, held: Snapshot | None) -> Snapshot | None:
        return self.open(path)

    def append(
        self, path: str, table: Snapshot | None, rows: pa.Table, *, description: str, transactions: Mapping[str, int]
    ) -> None:
        """1. The data file. 2. The commit, unless another one has come between. 3. The answer."""
        self._fault("before the data file")
        Path(path).mkdir(parents=True, exist_ok=True)
        parts = (self._write(path, rows),) if rows.num_rows else ()
        self.orphans += len(parts)
        reach("store:data-file")
        self._fault("before the commit")
        newest = self.tables.get(path)
        if newest is not None and newest is not table:
            if table is None:
                raise CommitFailedError("Version 0 already exists")
            if any(newest.transactions.get(n) != table.transactions.get(n) for n in transactions):
                raise CommitFailedError("Concurrent transaction failed")
        base = newest or Snapshot(path, description=description, store=self)
        merged = {**base.transactions, **transactions}
        self.tables[path] = replace(base, number=base.number + 1, parts=base.parts + parts, transactions=merged)
        self.orphans -= len(parts)
        self._fault("after the commit")

    def pause(self, seconds: float) -> None:
        """In a simulation no time passes."""

    def rows(self, path: str) -> list[dict[str, Any]]:
        """All rows of a table; none when there is no table."""
        table = self.tables.get(path)
        return table.to_pyarrow_table().to_pylist() if table is not None and table.parts else []

    def _write(self, path: str, rows: pa.Table) -> tuple[str, pa.Table]:
        name = f"{self._files}.parquet"
        self._files += 1
        pq.write_table(rows, f"{path}/{name}", compression="none", use_dictionary=False)
        return name, rows
