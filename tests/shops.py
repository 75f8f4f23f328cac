"""A retailer's lake without a stack, for tests of what reads a lake: typed tables, some days of trade, one history.

The rows are those of the demo (`local.retail.rows`), landed as a snapshot; a few transactions follow. What is written
are the Delta tables that a sink would have written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from cdc_lake.events import TableId
from cdc_lake.local.retail.rows import Size, generate
from tests.lake_model import Row, append_ends, append_log, append_schemas, end_row, log_row, schema_row

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEYS = {
    "stores": ("store_id",),
    "products": ("product_id",),
    "customers": ("customer_id",),
    "inventory": ("store_id", "product_id"),
    "orders": ("order_id",),
    "order_lines": ("order_id", "line_no"),
    "payments": ("payment_id",),
}
_EPOCH = date(1970, 1, 1)


def _decimal(precision: int) -> dict[str, Any]:
    """A `numeric(precision,2)` as the connector sends it: text, and what the source says of it."""
    of = {"type": "NUMERIC", "length": str(precision), "scale": "2"}
    return {"type": "string", "parameters": {f"__debezium.source.column.{k}": v for k, v in of.items()}}


_DATE = {"type": "int32", "name": "io.debezium.time.Date"}
_INSTANT = {"type": "string", "name": "io.debezium.time.ZonedTimestamp"}
_JSON = {"type": "string", "name": "io.debezium.data.Json"}
_BY_NAME: Mapping[str, Any] = {
    **dict.fromkeys(("opened_on", "launched_on", "born_on"), _DATE),
    **dict.fromkeys(("updated_at", "joined_at", "placed_at", "paid_at"), _INSTANT),
    **dict.fromkeys(("attributes", "preferences"), _JSON),
    **dict.fromkeys(("price", "cost", "unit_price"), _decimal(10)),
    **dict.fromkeys(("total", "amount", "line_total"), _decimal(12)),
    **dict.fromkeys(("order_id", "customer_id", "payment_id"), "int64"),
    **dict.fromkeys(
        ("store_id", "product_id", "area_m2", "on_hand", "reorder_point", "quantity", "loyalty_points"), "int32"
    ),
    "line_no": "int16",
    "tags": {"type": "array", "items": {"type": "string"}},
    "reference": {"type": "string", "name": "io.debezium.data.Uuid"},
}


@dataclass
class Shop:
    """A lake in `folder`, with its `cdc-lake.yaml`. Each `change` is a transaction of its own."""

    folder: Path
    rows: dict[str, dict[tuple[Any, ...], Row]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    transactions: int = 0

    @classmethod
    def open(cls, folder: Path, *, rows: int = 400) -> Shop:
        """A shop with about so many rows, all landed."""
        shop = cls(folder)
        (folder / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")
        for name, columns, made in generate(Size.for_rows(rows), seed=1, now=NOW - timedelta(hours=1)):
            shop._load(name, columns, made)
        return shop

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "cdc-lake.yaml"

    def sell(
        self, store: int, product: int, pieces: int, *, at: datetime | None = None, channel: str | None = None
    ) -> None:
        """One transaction: an order of one line, and its pieces off the shelf."""
        order, price = max(self.rows["orders"])[0] + 1, self.rows["products"][product,]["price"]
        shelf, sold = self.rows["inventory"][store, product], next(iter(self.rows["orders"].values()))
        line = next(iter(self.rows["order_lines"].values()))
        total = price * pieces
        placed = {"placed_at": at or NOW, "channel": channel or sold["channel"]}
        self.change(
            ("orders", (order,), {**sold, "order_id": order, "store_id": store, "total": total, **placed}),
            (
                "order_lines",
                (order, 1),
                {**line, "order_id": order, "line_no": 1, "product_id": product, "quantity": pieces}
                | {"unit_price": price, "line_total": total},
            ),
            ("inventory", (store, product), {"on_hand": shelf["on_hand"] - pieces}),
            at=at,
        )

    def change(
        self, *changes: tuple[str, tuple[Any, ...], Mapping[str, Any] | None], at: datetime | None = None
    ) -> None:
        """One transaction: (table, key, new values, or None for a delete). A key that is not there is inserted.

        It was committed `at` that time; a minute after the one before when none is named.
        """
        self.transactions += 1
        tx, when = f"{self.transactions:05d}", at or NOW + timedelta(minutes=self.transactions)
        counts: dict[str, int] = {}
        for order, (name, key, values) in enumerate(changes, 1):
            before = self.rows[name].pop(key, None)
            after = None if values is None else {**(before or {}), **values}
            if after is not None:
                self.rows[name][key] = after
            op = "c" if before is None else "d" if after is None else "u"
            known = after or before or {}
            image = {"before": dict.fromkeys(known) | _key(name, known)} if after is None else {"after": _wire(known)}
            self._land(name, op, [known], tx=(tx, order), when=when, **image)
            counts[f"public.{name}"] = counts.get(f"public.{name}", 0) + 1
        append_ends(self.folder, [end_row(self.transactions, tx, counts, lsn=1000 + self.transactions, when=when)])

    def _load(self, name: str, columns: Sequence[str], made: Iterable[Sequence[Any]]) -> None:
        rows = [dict(zip(columns, row, strict=True)) for row in made]
        if name == "order_lines":
            rows = [row | {"line_total": row["quantity"] * row["unit_price"]} for row in rows]
        self.rows[name] = {tuple(row[k] for k in KEYS[name]): row for row in rows}
        fields = {column: _BY_NAME.get(column, "string") for column in rows[0]}
        append_schemas(self.folder, [schema_row(TableId("public", name), f"s-{name}", fields, KEYS[name])])
        self._land(name, "r", rows, when=NOW)

    def _land(self, name: str, op: str, rows: Sequence[Row], **values: Any) -> None:
        start = self.offsets.get(name, 0)
        self.offsets[name] = start + len(rows)
        images = [values] if "after" in values or "before" in values else [{**values, "after": _wire(r)} for r in rows]
        table, schema = TableId("public", name), f"s-{name}"
        landed = [
            log_row(table, op, offset, key=_key(name, row), schema_id=schema, **image)
            for offset, (row, image) in enumerate(zip(rows, images, strict=True), start)
        ]
        append_log(self.folder, table, landed)


def _key(name: str, row: Mapping[str, Any]) -> Row:
    return {column: row[column] for column in KEYS[name]}


def _wire(row: Mapping[str, Any]) -> Row:
    """A row as the connector writes its values."""
    return {column: _written(column, value) for column, value in row.items()}


def _written(column: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return (value - _EPOCH).days
    return str(value) if isinstance(value, Decimal | UUID) else value
