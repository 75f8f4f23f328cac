"""A lake written by hand for tests of folds and sessions, and the simple model it must agree with.

`Feed` plays a source and its connector: transactions over tables, positions in partitions, redelivery. It writes the
Delta tables the sink would write, and keeps what each table must show after every transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from cdc_lake.config import Config
from cdc_lake.events import TableId
from cdc_lake.land.layout import log_path, schemas_path, transactions_path
from cdc_lake.land.tables import LOG, SCHEMAS, TRANSACTIONS

SOURCE = "pos"
PLACEHOLDER = "__debezium_unavailable_value"
_START = datetime(2026, 11, 24, tzinfo=UTC)

Row = dict[str, Any]
_TOMBSTONE = {"__op": "x", "__before": None, "__tx_id": None, "__tx_order": None, "__headers": None}


def config(folder: Path) -> Config:
    """A configuration whose lake is in `folder`."""
    return Config.model_validate({"lake": {"uri": str(folder / "lake")}, "root": folder})


def text(value: Any) -> str | None:
    """`value` as the connector's compact JSON; None stays None."""
    return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def log_row(
    table: TableId,
    op: str,
    offset: int,
    *,
    key: Any = None,
    before: Row | None = None,
    after: Row | None = None,
    tx: tuple[str, int] | None = None,
    partition: int = 0,
    headers: Mapping[str, str] | None = None,
    schema_id: str | None = None,
    lsn: int | None = None,
    when: datetime | None = None,
) -> Row:
    """One row of a change log."""
    return {
        "__op": op,
        "__key": text(key),
        "__before": text(before),
        "__after": text(after),
        "__source_ts": when or _START,
        "__tx_id": tx[0] if tx else None,
        "__tx_order": tx[1] if tx else None,
        "__lsn": lsn if lsn is not None else offset,
        "__snapshot": "true" if op == "r" else None,
        "__topic": f"{SOURCE}.{table}",
        "__partition": partition,
        "__offset": offset,
        "__ingested_at": _START + timedelta(seconds=offset),
        "__schema_id": schema_id,
        "__headers": text(dict(headers)) if headers else None,
    }


def end_row(
    offset: int, tx_id: str, counts: Mapping[str, int], *, lsn: int | None = None, when: datetime | None = None
) -> Row:
    """The END of a transaction in the transactions table."""
    return {
        "status": "END",
        "tx_id": tx_id,
        "lsn": lsn if lsn is not None else 1000 + offset,
        "event_count": sum(counts.values()),
        "data_collections": text([{"data_collection": t, "event_count": n} for t, n in sorted(counts.items())]),
        "source_ts": when or _START + timedelta(seconds=offset),
        "__topic": f"{SOURCE}.transaction",
        "__partition": 0,
        "__offset": offset,
        "__ingested_at": _START,
    }


def connect_schema(fields: Mapping[str, Any]) -> str:
    """An envelope's inline schema whose rows have `fields` (name -> Connect type or field)."""
    row = [{"field": n, "optional": True, **(t if isinstance(t, dict) else {"type": t})} for n, t in fields.items()]
    return json.dumps({"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": row}]})


def schema_row(table: TableId, schema_id: str, fields: Mapping[str, Any], key: tuple[str, ...], offset: int = 0) -> Row:
    """One row of the schemas table."""
    key_fields = [{"field": k, "type": "int32"} for k in key]
    return {
        "schema_id": schema_id,
        "schema": table.schema,
        "table": table.name,
        "topic": f"{SOURCE}.{table}",
        "kind": "connect",
        "definition": connect_schema(fields),
        "key_definition": json.dumps({"type": "struct", "fields": key_fields}) if key else None,
        "settings": json.dumps({"unavailable.value.placeholder": PLACEHOLDER, "decimal.handling.mode": "string"}),
        "first_partition": 0,
        "first_offset": offset,
        "recorded_at": _START + timedelta(seconds=offset),
    }


def append(folder: Path, path: str, rows: list[Row], schema: pa.Schema) -> None:
    """Append rows to a Delta table of the lake."""
    write_deltalake(path, pa.Table.from_pylist(rows, schema), mode="append")


def append_log(folder: Path, table: TableId, rows: list[Row], source: str = SOURCE) -> None:
    """Append to a change log."""
    if rows:
        append(folder, log_path(str(folder / "lake"), source, table), rows, LOG)


def append_ends(folder: Path, rows: list[Row], source: str = SOURCE) -> None:
    """Append to the transactions table."""
    if rows:
        append(folder, transactions_path(str(folder / "lake"), source), rows, TRANSACTIONS)


def append_schemas(folder: Path, rows: list[Row], source: str = SOURCE) -> None:
    """Append to the schemas table."""
    append(folder, schemas_path(str(folder / "lake"), source), rows, SCHEMAS)


FIELDS = {"id": "int32", "qty": "int32", "note": "string"}


@dataclass
class Feed:
    """A source with keyed tables (id, qty, note) and one bag, and its connector.

    `note` is the column that PostgreSQL stores out of line: an update that does not touch it sends the placeholder.
    A transaction is committed as many minutes behind the start as its number, or as `minutes` says of it.
    """

    folder: Path
    tables: tuple[TableId, ...]
    bags: tuple[TableId, ...] = ()
    partitions: int = 2
    metadata: bool = True
    rows: dict[TableId, dict[int, Row]] = field(default_factory=dict)
    bag_rows: dict[TableId, list[Row]] = field(default_factory=dict)
    pending: dict[TableId, list[Row]] = field(default_factory=dict)
    pending_ends: list[Row] = field(default_factory=list)
    offsets: dict[tuple[TableId, int], int] = field(default_factory=dict)
    transactions: int = 0
    ends: int = 0
    states: dict[str, dict[TableId, list[tuple[Any, ...]]]] = field(default_factory=dict)
    delivered: list[tuple[str, list[tuple[TableId, Row]], dict[str, int]]] = field(default_factory=list)
    source: str = SOURCE
    minutes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in self.tables:
            self.rows[table] = {}
        for table in self.bags:
            self.bag_rows[table] = []
        schemas = [schema_row(t, f"s-{t}", FIELDS, ("id",)) for t in self.tables]
        bags = [schema_row(t, f"s-{t}", FIELDS, ()) for t in self.bags]
        append_schemas(self.folder, schemas + bags, self.source)

    def when(self, tx_id: str) -> datetime:
        """When a transaction was committed."""
        return _START + timedelta(minutes=self.minutes.get(int(tx_id), int(tx_id)))

    def begin(self) -> Transaction:
        """A transaction; its changes are visible in the model at once, so commit it."""
        self.transactions += 1
        return Transaction(self, f"{self.transactions:05d}")

    def deliver(self, tx_id: str, events: list[tuple[TableId, Row]], counts: dict[str, int]) -> None:
        """Put the events at new offsets, and the END behind them."""
        for table, event in events:
            self.place(table, dict(event))
        if self.metadata:
            number = int(tx_id)
            end = end_row(self.ends, tx_id, counts, lsn=1000 + number, when=self.when(tx_id))
            self.pending_ends.append(end)
            self.ends += 2  # the BEGIN of the next transaction stands between

    def place(self, table: TableId, event: Row) -> None:
        """Give an event its partition and offset; a delete is followed by its tombstone."""
        partition = sum((event["__key"] or "").encode()) % self.partitions
        rows = [event]
        if event["__op"] == "d" and event["__key"]:
            rows.append(
                {**event, "__op": "x", "__before": None, "__tx_id": None, "__tx_order": None, "__headers": None}
            )
        for row in rows:
            offset = self.offsets.get((table, partition), 0)
            self.offsets[table, partition] = offset + 1
            self.pending.setdefault(table, []).append({**row, "__partition": partition, "__offset": offset})

    def snapshot(self, table: TableId) -> None:
        """Read rows (`r`) of all that the table holds now."""
        for key, row in self.rows[table].items():
            self.place(table, log_row(table, "r", 0, key={"id": key}, after=row, schema_id=f"s-{table}"))

    def redeliver(self, last: int) -> None:
        """The connector starts again and sends its last transactions once more."""
        for tx_id, events, counts in self.delivered[-last:]:
            self.deliver(tx_id, events, counts)

    def land(self, chance: Random | None = None) -> None:
        """Write everything that was sent into the lake; with `chance`, partitions lag behind each other at random."""
        for table, rows in self.pending.items():
            later = self._later(rows, chance)
            append_log(self.folder, table, [r for r in rows if r not in later], self.source)
            self.pending[table] = later
        ends = self._later(self.pending_ends, chance)
        append_ends(self.folder, self.pending_ends[: len(self.pending_ends) - len(ends)], self.source)
        self.pending_ends = ends

    def _later(self, rows: list[Row], chance: Random | None) -> list[Row]:
        limits = {p: chance.randrange(len(rows) * 2 + 1) if chance else len(rows) for p in range(self.partitions)}
        found = []
        for row in rows:
            limits[row["__partition"]] -= 1
            if limits[row["__partition"]] < 0:
                found.append(row)
        return found

    def at(self, tx_id: str | None, table: TableId) -> list[tuple[Any, ...]]:
        """The table's rows after a transaction, sorted; None is before the first."""
        return self.states[tx_id][table] if tx_id is not None else []

    def expected(self, table: TableId) -> list[tuple[Any, ...]]:
        """The table's rows by the model, sorted."""
        rows = list(self.rows[table].values()) if table in self.rows else self.bag_rows[table]
        return sorted(((r["id"], r["qty"], r["note"]) for r in rows), key=repr)


@dataclass
class Transaction:
    """Changes of one transaction: applied to the model, and as events."""

    feed: Feed
    id: str
    events: list[tuple[TableId, Row]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def _send(self, table: TableId, op: str, **values: Any) -> None:
        order = len(self.events) + 1
        tx = (self.id, order) if self.feed.metadata else None
        when = self.feed.when(self.id)
        self.events.append((table, log_row(table, op, 0, tx=tx, schema_id=f"s-{table}", when=when, **values)))
        self.counts[str(table)] = self.counts.get(str(table), 0) + 1

    def insert(self, table: TableId, key: int, qty: int, note: str | None) -> None:
        """INSERT."""
        row = {"id": key, "qty": qty, "note": note}
        self.feed.rows[table][key] = row
        self._send(table, "c", key={"id": key}, after=row)

    def update(self, table: TableId, key: int, qty: int, note: str | None = None, *, touch: bool = False) -> None:
        """UPDATE of `qty`, and of `note` when `touch`."""
        row = self.feed.rows[table][key]
        row = {**row, "qty": qty, "note": note if touch else row["note"]}
        self.feed.rows[table][key] = row
        self._send(table, "u", key={"id": key}, after=row if touch else self._toasted(row))

    def delete(self, table: TableId, key: int) -> None:
        """DELETE under the default replica identity."""
        del self.feed.rows[table][key]
        self._send(table, "d", key={"id": key}, before={"id": key, "qty": None, "note": None})

    def move(self, table: TableId, moves: list[tuple[int, int]], *, touch: bool = False) -> None:
        """One UPDATE of keys, row by row (old, new): a swap or a shift arrives interleaved."""
        rows = self.feed.rows[table]
        taken = {old: rows.pop(old) for old, _ in moves}
        for old, new in moves:
            row = {**taken[old], "id": new}
            rows[new] = row
            old_key, new_key = {"id": old}, {"id": new}
            headers = {"__debezium.newkey": text(new_key) or ""}
            before = {"id": old, "qty": None, "note": None}
            self._send(table, "d", key=old_key, before=before, headers=headers)
            headers = {"__debezium.oldkey": text({"schema": {"type": "struct"}, "payload": old_key}) or ""}
            self._send(table, "c", key=new_key, after=row if touch else self._toasted(row), headers=headers)

    def truncate(self, table: TableId) -> None:
        """TRUNCATE."""
        if table in self.feed.rows:
            self.feed.rows[table].clear()
        else:
            self.feed.bag_rows[table].clear()
        self._send(table, "t")

    def bag_insert(self, table: TableId, row: Row) -> None:
        """INSERT into a table without a key."""
        self.feed.bag_rows[table].append(row)
        self._send(table, "c", after=row)

    def bag_update(self, table: TableId, at: int, qty: int) -> None:
        """UPDATE of one row under replica identity FULL."""
        before = self.feed.bag_rows[table][at]
        after = {**before, "qty": qty}
        self.feed.bag_rows[table][at] = after
        self._send(table, "u", before=before, after=after)

    def bag_delete(self, table: TableId, at: int) -> None:
        """DELETE of one row under replica identity FULL."""
        self._send(table, "d", before=self.feed.bag_rows[table].pop(at))

    def commit(self, *, deliver: bool = True) -> None:
        """Send the events and the END."""
        self.feed.delivered.append((self.id, self.events, self.counts))
        self.feed.states[self.id] = {t: self.feed.expected(t) for t in (*self.feed.tables, *self.feed.bags)}
        if deliver:
            self.feed.deliver(self.id, self.events, self.counts)

    def _toasted(self, row: Row) -> Row:
        long = row["note"] is not None and len(row["note"]) > 3
        return {**row, "note": PLACEHOLDER} if long else row
