"""The order of all changes, and the cut: the boundary between source transactions at which all tables are read.

A transaction's position is the offset of its first END in the transaction topic, plus one; a redelivered END changes
nothing. The cut is the last position up to which every transaction is complete: the log of each landed table holds as
many of its rows as END counted. Everything up to a fold's cut is known to be complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from cdc_lake.land.tables import TRANSACTIONS
from cdc_lake.project.cache import Kept
from cdc_lake.project.dropped import Lack
from cdc_lake.project.files import LogFiles, scan


@dataclass(frozen=True, slots=True)
class Wait:
    """What a stalled cut waits for: rows of a transaction that are counted in END and not in the lake."""

    tx_id: str
    table: str
    missing: int
    expected: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Position 0 means: no transaction is complete, or the source sends no transaction metadata."""

    position: int = 0
    tx_id: str | None = None
    lsn: int | None = None
    source_ts: datetime | None = None
    newest: int = 0
    waits: tuple[Wait, ...] = ()
    dropped: int = 0

    @property
    def stalled(self) -> bool:
        """Whether an ended transaction is not complete yet."""
        return bool(self.waits)

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the cut's transaction was committed in the source; None when it is not known."""
        if self.source_ts is None:
            return None
        return max(0.0, (datetime.now(UTC) - self.source_ts).total_seconds())

    def as_dict(self) -> dict[str, Any]:
        """For `status --json`."""
        return {
            "position": self.position,
            "tx_id": self.tx_id,
            "lsn": self.lsn,
            "source_ts": self.source_ts.isoformat() if self.source_ts else None,
            "age_seconds": self.age_seconds,
            "behind": max(0, self.newest - self.position),
            "dropped_letters": self.dropped,
            "waits_for": [
                {"tx_id": w.tx_id, "table": w.table, "missing": w.missing, "expected": w.expected} for w in self.waits
            ],
        }


_KEPT = "ends_kept"


def load_ends(
    con: duckdb.DuckDBPyConnection, name: str, log: LogFiles | None, after: int, kept: Kept | None = None
) -> None:
    """Make the table `name` (tx_id, pos, lsn, source_ts, data_collections) of transactions that end above `after`;
    `kept` is what is known of their files.

    A transaction whose first END lies at or below `after` has position 0, also when its END was delivered again later.
    """
    files = log.files if log is not None else ()
    recent = [f.path for f in files if f.offsets[1] >= after]
    older = [f.path for f in files if f.offsets[0] < after]
    con.execute(f"DROP TABLE IF EXISTS {name}")
    rows = scan(recent, TRANSACTIONS)
    if kept is not None and recent:
        con.register(rows := _KEPT, kept.read_ends(con, recent))
    con.execute(
        f"""CREATE TABLE {name} AS
        SELECT tx_id, min(__offset) + 1 AS pos, arg_min(lsn, __offset) AS lsn,
               arg_min(source_ts, __offset) AS source_ts, arg_min(data_collections, __offset) AS data_collections
        FROM {rows} WHERE status = 'END' AND __offset >= {after} GROUP BY tx_id"""
    )
    con.unregister(_KEPT)
    if older:
        con.execute(
            f"""UPDATE {name} SET pos = 0 WHERE tx_id IN (
            SELECT tx_id FROM {scan(older)} WHERE status = 'END' AND __offset < {after})"""
        )


def add_folded(con: duckdb.DuckDBPyConnection, name: str, log: LogFiles | None, after: int, tx_ids: str) -> None:
    """Add those of `tx_ids` (a query) to `name` that ended at or below `after`, with position 0: they are folded.

    Without this, rows of theirs that were delivered again look like rows whose END has not come yet.
    """
    older = [f.path for f in log.files if f.offsets[0] < after] if log is not None else []
    if older:
        con.execute(
            f"""INSERT INTO {name} (tx_id, pos) SELECT DISTINCT tx_id, 0 FROM {scan(older)}
            WHERE status = 'END' AND __offset < {after} AND tx_id IN ({tx_ids})
            AND tx_id NOT IN (SELECT tx_id FROM {name})"""
        )


def find_cut(
    con: duckdb.DuckDBPyConnection,
    ends: str,
    counts: str,
    *,
    landed: Mapping[str, int],
    floor: int,
    log: LogFiles | None,
    awaited: Callable[[str], bool] = lambda _: False,
    excuse: Callable[[list[Lack]], list[Lack]] = lambda _: [],
) -> Cut:
    """The cut, at least `floor` (the greatest cut of a fold).

    `counts` (pos, name, n) says how many rows of each transaction above `floor` the log of each table holds; `landed`
    are the tables (`schema.name`) that have a log, each with the position up to which it was repaired: rows that miss
    there are made up for. `awaited` says of a table without a log whether it will have one: its first rows are on their
    way. `excuse` says which rows will never come.
    """
    _find_missing(con, ends, counts, landed, floor)
    _forget_others(con, awaited)
    lacks = [Lack(*row) for row in con.execute("SELECT pos, name, missing FROM missing").fetchall()]
    for lack in excuse(lacks) if lacks else []:
        values = [lack.rows, lack.pos, lack.table]
        con.execute("UPDATE missing SET missing = missing - ? WHERE pos = ? AND name = ?", values)
    con.execute("DELETE FROM missing WHERE missing <= 0")
    first = _one(con, "SELECT min(pos) FROM missing")
    newest = _one(con, f"SELECT max(pos) FROM {ends}") or floor
    bound = "" if first is None else f" AND pos < {first}"
    position = _one(con, f"SELECT max(pos) FROM {ends} WHERE pos > {floor}{bound}") or floor
    waits = con.execute(
        "SELECT tx_id, name, missing, expected FROM missing WHERE pos = ? ORDER BY name", [first]
    ).fetchall()
    con.execute("DROP TABLE missing")
    return Cut(
        position=position,
        newest=max(newest, position),
        waits=tuple(Wait(*w) for w in waits),
        **_end(con, log, position),
    )


def _find_missing(
    con: duckdb.DuckDBPyConnection, ends: str, counts: str, landed: Mapping[str, int], floor: int
) -> None:
    """Make the temporary table `missing`: what each transaction above `floor` lacks, table by table."""
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE missing AS
        WITH named AS (SELECT unnest(?::VARCHAR[]) AS name, unnest(?::BIGINT[]) AS repaired),
        expected AS (
            SELECT pos, tx_id, item->>'$.data_collection' AS name, (item->>'$.event_count')::BIGINT AS n
            FROM (SELECT pos, tx_id, unnest(from_json(data_collections, '["JSON"]')) AS item FROM {ends}
                  WHERE pos > {floor})
        )
        SELECT e.pos, e.tx_id, e.name, e.n - coalesce(c.n, 0) AS missing, e.n AS expected,
               named.name IS NOT NULL AS landed
        FROM expected e LEFT JOIN named USING (name) LEFT JOIN {counts} c ON c.pos = e.pos AND c.name = e.name
        WHERE coalesce(c.n, 0) < e.n AND e.pos > coalesce(named.repaired, 0)""",
        [list(landed), list(landed.values())],
    )


def _forget_others(con: duckdb.DuckDBPyConnection, awaited: Callable[[str], bool]) -> None:
    """Leave in `missing` only what has a log or is awaited."""
    others = con.execute("SELECT DISTINCT name FROM missing WHERE NOT landed").fetchall()
    nobodys = [name for (name,) in others if not awaited(name)]
    con.execute("DELETE FROM missing WHERE list_contains(?::VARCHAR[], name)", [nobodys])


def _end(con: duckdb.DuckDBPyConnection, log: LogFiles | None, position: int) -> dict[str, Any]:
    """Transaction id, commit LSN and commit time of the END at `position`."""
    holding = [f.path for f in log.files if f.offsets[0] < position <= f.offsets[1] + 1] if log is not None else []
    if not holding:
        return {}
    found = con.execute(
        f"""SELECT tx_id, lsn, epoch_us(source_ts) FROM {scan(holding)}
        WHERE status = 'END' AND __offset = {position - 1} LIMIT 1"""
    ).fetchone()
    if found is None:
        return {}
    when = datetime.fromtimestamp(found[2] / 1_000_000, UTC) if found[2] is not None else None
    return {"tx_id": found[0], "lsn": found[1], "source_ts": when}


def _one(con: duckdb.DuckDBPyConnection, query: str) -> int | None:
    row = con.execute(query).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else None
