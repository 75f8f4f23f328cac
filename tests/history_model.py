"""What `history` must show, kept beside a `Feed`: the versions of each key, one for each transaction with a change."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from cdc_lake.events import TableId
from tests.lake_model import Feed, Row, Transaction


@dataclass
class Version:
    """One version; `until` is None while it is the newest and holds."""

    key: int
    row: Row
    since: str
    begun_by: str
    previous_key: int | None = None
    until: str | None = None
    ended_by: str | None = None
    next_key: int | None = None

    def shown(self) -> tuple[Any, ...]:
        """As the tests compare it."""
        row = (self.row["id"], self.row["qty"], self.row["note"])
        ends = (self.until, self.ended_by, self.next_key)
        return (*row, self.begun_by, self.since, self.previous_key, *ends)


@dataclass
class _Work:
    """What one transaction does to a table: the operations on each key, and the keys that its rows had at first."""

    here: dict[int, list[int | None]]
    ops: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    left: dict[tuple[int, int], int | None] = field(default_factory=dict)
    cleared: bool = False

    def take(self, event: Row) -> None:
        if event["__op"] == "t":
            self.here.clear()
            self.ops.clear()
            self.cleared = True
            return
        key = json.loads(event["__key"])["id"]
        self.ops[key].append(event["__op"])
        headers = json.loads(event["__headers"] or "{}")
        rows = self.here.setdefault(key, [])
        if event["__op"] == "d":
            gone = rows.pop(0)
            if headers:
                self.left[key, json.loads(headers["__debezium.newkey"])["id"]] = gone
        elif event["__op"] == "c":
            old = json.loads(headers["__debezium.oldkey"])["payload"]["id"] if headers else None
            rows.append(self.left.pop((old, key)) if old is not None else None)

    @property
    def origin(self) -> dict[int, int | None]:
        """The key that each row had before the transaction; None for a new row."""
        return {key: rows[-1] for key, rows in self.here.items() if rows}


@dataclass
class Chronicle:
    """Follows a feed's transactions, whatever their delivery; `states` are the versions as of each of them."""

    feed: Feed
    versions: dict[TableId, list[Version]] = field(default_factory=lambda: defaultdict(list))
    states: dict[str, dict[TableId, list[tuple[Any, ...]]]] = field(default_factory=dict)

    def commit(self, tx: Transaction) -> None:
        """Write down what `tx` did to the tables with a key, then commit it."""
        for table in self.feed.tables:
            self._table(tx, table)
        self.states[tx.id] = {t: sorted((v.shown() for v in self.versions[t]), key=repr) for t in self.feed.tables}
        tx.commit()

    def _table(self, tx: Transaction, table: TableId) -> None:
        versions = self.versions[table]
        standing = {v.key: v for v in versions if v.until is None}
        work = _Work({k: [k] for k in standing})
        for event in (e for t, e in tx.events if t == table):
            work.take(event)
        if work.cleared:
            for version in standing.values():
                version.until, version.ended_by = tx.id, "t"
            standing = {}
        for key, ops in work.ops.items():
            if key in standing:
                self._end(tx.id, standing[key], work)
            if key in self.feed.rows[table]:
                old = work.origin[key] if "c" in ops else None
                previous = old if old != key else None
                versions.append(Version(key, self.feed.rows[table][key], tx.id, "c" if "c" in ops else "u", previous))

    @staticmethod
    def _end(tx_id: str, version: Version, work: _Work) -> None:
        gone = "d" in work.ops[version.key]
        moved = [k for k, o in work.origin.items() if o == version.key and k != version.key]
        version.until, version.ended_by = tx_id, "d" if gone else "u"
        version.next_key = moved[0] if gone and moved else None
