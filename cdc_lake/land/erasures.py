"""What was erased: the list that keeps it from coming back, and what is left of a change in the log.

The list holds no personal data: of each key a hash with the source's own salt, and the LSN of its last erased change.
Changes of one key are written to the source's log in the order of their commits, so a change of a listed key at or
below that LSN is an erased one that was delivered again, and a later one is a new row, which lands. Whoever has the
list and a guess can check the guess: a hash hides a key from reading, not from somebody who tries all numbers.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from cdc_lake.events import TableId
from cdc_lake.land.append import AppendTable
from cdc_lake.land.layout import erasures_path
from cdc_lake.land.reading import read_rows
from cdc_lake.land.store import Snapshot, Store
from cdc_lake.land.tables import ERASURES

# The app transaction of a log that says how many entries the list had when something of the log was last erased.
MARK = "erasures"
# What `__op` says of an erased change. Its coordinates, its transaction and its order stay: the cut counts it.
ERASED = "e"
# What such a change has no longer.
EMPTIED = ("__key", "__before", "__after", "__headers")
# The error class of a dead letter whose contents were erased.
ERASED_LETTER = "erased"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key that was erased from a table.

    `key_hash` is of the text that the log has in `__key`, `row_hash` of the MD5 that `verify` compares rows by, `lsn`
    the greatest of the erased changes (-1 when they had none), `gone` says that no other row ever had the key.
    """

    id: str
    table: TableId
    key_hash: str
    row_hash: str
    lsn: int
    gone: bool


def hashed(salt: str, text: str) -> str:
    """The hash of a text; in DuckDB: `sha256(salt || text)`."""
    return hashlib.sha256((salt + text).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Erasures:
    """The list of one source as it is now; `salt` is drawn anew while it is empty."""

    salt: str
    entries: tuple[Entry, ...] = ()

    def of(self, table: TableId) -> list[Entry]:
        """The entries of a table."""
        return [e for e in self.entries if e.table == table]


def read_erasures(store: Store, root: str, source: str) -> Erasures:
    """The list of `source`. Raises LakeError when it cannot be read."""
    handle = store.open(erasures_path(root, source))
    rows = read_rows(handle).to_pylist() if handle is not None else []
    if not rows:
        return Erasures(secrets.token_hex(16))
    entries = [
        Entry(r["id"], TableId(r["schema"], r["table"]), r["key_hash"], r["row_hash"], r["lsn"], r["gone"])
        for r in rows
    ]
    return Erasures(rows[0]["salt"], tuple(entries))


def add_entries(store: Store, root: str, source: str, salt: str, entries: Sequence[Entry]) -> None:
    """Write entries down. Needs `lock.sole_rewriter`."""
    now = datetime.now(UTC)
    rows = [
        {
            "id": e.id,
            "schema": e.table.schema,
            "table": e.table.name,
            "salt": salt,
            "key_hash": e.key_hash,
            "row_hash": e.row_hash,
            "lsn": e.lsn,
            "gone": e.gone,
            "erased_at": now,
        }
        for e in entries
    ]
    AppendTable(erasures_path(root, source), ERASURES, store=store).append(pa.Table.from_pylist(rows, ERASURES), [])


@dataclass(slots=True)
class Screen:
    """Takes the contents out of changes of a table that were erased and come once more, before they land.

    Reads the list again when the log says that there is more on it.
    """

    store: Store
    root: str
    source: str
    table: TableId
    _told: int | None = None
    _salt: str = ""
    _lsns: dict[str, int] = field(default_factory=dict)

    def __call__(self, log: Snapshot | None, rows: pa.Table) -> pa.Table:
        """`rows` as they may land in the snapshot `log`."""
        told = log.transaction_version(MARK) if log is not None else None
        if told is None or rows.num_rows == 0:
            return rows
        if told != self._told:
            found = read_erasures(self.store, self.root, self.source)
            self._salt, self._lsns = found.salt, {}
            for entry in found.of(self.table):
                self._lsns[entry.key_hash] = max(entry.lsn, self._lsns.get(entry.key_hash, -1))
            self._told = told
        return self._emptied(rows)

    def _emptied(self, rows: pa.Table) -> pa.Table:
        newest = max(self._lsns.values(), default=-1)
        # A key's tombstone has no LSN and no meaning, but its key.
        asked = pc.and_(
            pc.is_valid(rows["__key"]),
            pc.or_kleene(pc.equal(rows["__op"], "x"), pc.fill_null(pc.less_equal(rows["__lsn"], newest), False)),
        )
        places = pc.indices_nonzero(asked).to_pylist()
        chosen = [False] * rows.num_rows
        for i in places:
            lsn = self._lsns.get(hashed(self._salt, rows["__key"][i].as_py()))
            op, own = rows["__op"][i].as_py(), rows["__lsn"][i].as_py()
            chosen[i] = lsn is not None and (op == "x" or own <= lsn)
        return emptied(rows, pa.array(chosen)) if any(chosen) else rows


def emptied(rows: pa.Table, chosen: pa.Array) -> pa.Table:
    """`rows` of a log without the contents of those that are `chosen`."""
    for name in ("__op", *EMPTIED):
        place = rows.schema.get_field_index(name)
        value = pa.scalar(ERASED if name == "__op" else None, pa.string())
        rows = rows.set_column(place, name, pc.if_else(chosen, value, rows[name].cast(pa.string())))
    return rows
