"""The tail: log rows that no fold has taken yet, each with its place in the global order.

Rows of a transaction stand at (position of its END, order within it). Rows of a transaction whose END is not here have
no place yet and are not visible. Rows without a transaction (a snapshot's, or all of them when the source sends no
transaction metadata) stand behind the latest transaction that precedes them in their partition, and are not visible
before it is. Rows of a repair (`verify --repair`) have no transaction either: their `__tx_order` is the position of the
transaction that they stand behind, and their offsets lie above all of Kafka's, so they come last there. Starting rows
have that form too, with offsets below all of Kafka's: they come first where a log begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import duckdb
import pyarrow as pa

from cdc_lake.land.tables import LOG
from cdc_lake.project.files import LogFiles, Lows, at_or_above, scan
from cdc_lake.project.renaming import Renaming
from cdc_lake.sqltext import literal

# Rows without a transaction come after all rows of the transaction that precedes them.
AFTER_ALL = 1 << 62
# Rows that a repair appended to the log.
REPAIR = "(__tx_id IS NULL AND __tx_order IS NOT NULL)"
# Rows that retention put in place of those it took away (see `land.starts`); they have the form of repairs.
START = "(__offset < 0)"
# Rows of a snapshot that reads a whole table; incremental ones have no LSN. An erased one may be its first or last.
RUN = "(__op IN ('r', 'e') AND __lsn IS NOT NULL AND __snapshot NOT IN ('incremental', 'repair', 'start'))"
OPENS_RUN = "__snapshot IN ('first', 'first_in_data_collection')"
ENDS_RUN = "__snapshot IN ('last', 'last_in_data_collection')"
# The position of a transaction that has not ended.
NEVER = 1 << 61
# Rows that are set out: those of a log, and their places.
SET_OUT = pa.schema([*LOG, *(pa.field(name, pa.int64()) for name in ("pos_tx", "pos_order", "off"))])


@dataclass(frozen=True, slots=True)
class Facts:
    """What a look at the narrow columns of a tail tells; what is not there need not be handled.

    `placed` rows belong to a transaction, `free` ones to none. `moves` are rows of key changes. `repaired` is the last
    position at which a repair made the table equal to the source, `late` counts repairs that stand within the fold.
    `runs` are rows that begin or end a snapshot of the whole table.
    """

    placed: int = 0
    free: int = 0
    truncates: int = 0
    moves: int = 0
    updates: int = 0
    repaired: int = 0
    late: int = 0
    runs: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing a reader could ever see."""
        return self.placed + self.free == 0

    def __add__(self, other: Facts) -> Facts:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Facts(**sums | {"repaired": max(self.repaired, other.repaired)})


@dataclass(frozen=True, slots=True)
class Tail:
    """Rows of `files` at or above `lows`, except those of transactions up to `cut`, which are folded already.

    The rest is what `runs.with_runs` found: `runs` is a relation (lsn, pos) of the snapshots that read the table whole,
    `late_runs` the LSNs of those beyond the position of reading, `superseded` a condition for rows without a
    transaction that do not count, `clear` the place (a query) before which a complete snapshot ended all rows, and
    `held` says that one is on its way, for which a fold must wait. `renaming` tells rows that were sent under another
    key than the table has now. `set_out` says that the files hold visible rows alone, each with its place, as `placed`
    gives them (see `shares`).
    """

    files: tuple[str, ...] = ()
    lows: Lows | None = None
    cut: int = 0
    facts: Facts = Facts()
    runs: str | None = None
    late_runs: tuple[int, ...] = ()
    superseded: str | None = None
    clear: str | None = None
    held: bool = False
    renaming: Renaming | None = None
    set_out: bool = False

    @property
    def clears(self) -> bool:
        """Whether something in the tail ends all rows before it: a truncate, or a complete snapshot."""
        return bool(self.facts.truncates or self.clear)

    @property
    def relation(self) -> str:
        """The files' rows, under the keys that they are shown by."""
        files = scan(self.files, SET_OUT if self.set_out else None)
        return files if self.renaming is None else self.renaming.over(files)

    @property
    def unfolded(self) -> str:
        """The SQL condition for rows at or above the low offsets."""
        return at_or_above(self.lows or {})


def whole_tail(log: LogFiles) -> Tail:
    """All of a log, as if it had never been folded. What stands at or before its start is in its starting rows."""
    return Tail(tuple(log.paths), cut=log.start)


# Rows that `facts_sql` looks at.
HAS_FACTS = f"(__op IN ('c', 'u', 'r', 'd', 't', 'e') OR {REPAIR})"


def facts_sql(cut: int) -> str:
    """The columns of `Facts` over log rows, in a fold that stands at `cut`."""
    return f"""count(*) FILTER (__tx_id IS NOT NULL), count(*) FILTER (__tx_id IS NULL AND __op <> 'x'),
        count(*) FILTER (__op = 't'),
        count(*) FILTER (contains(__headers, '"__debezium.newkey"') OR contains(__headers, '"__debezium.oldkey"')),
        count(*) FILTER (__op = 'u'), coalesce(max(__tx_order) FILTER ({REPAIR}), 0),
        count(*) FILTER ({REPAIR} AND __op NOT IN ('x', 'e') AND __tx_order < {cut}),
        count(*) FILTER ({RUN} AND ({OPENS_RUN} OR {ENDS_RUN}))"""


def survey(con: duckdb.DuckDBPyConnection, tails: Sequence[Tail]) -> list[Facts]:
    """Look at the narrow columns of several tails at once."""
    selects = [
        f"SELECT {i}, {facts_sql(t.cut)} FROM {t.relation} WHERE {t.unfolded} AND {HAS_FACTS}"
        for i, t in enumerate(tails)
        if t.files
    ]
    facts = [Facts() for _ in tails]
    if selects:
        for i, *numbers in con.execute(" UNION ALL ".join(selects)).fetchall():
            facts[i] = Facts(*numbers)
    return facts


def count_rows(
    con: duckdb.DuckDBPyConnection, counts: str, ends: str, tails: Sequence[tuple[str, Tail]], floor: int
) -> None:
    """Make the table `counts` (pos, name, n): rows of each transaction above `floor`, redelivered ones once."""
    con.execute(f"CREATE OR REPLACE TABLE {counts} (pos BIGINT, name VARCHAR, n BIGINT)")
    selects = [
        f"""SELECT e.pos, {literal(name)}, count(DISTINCT l.__tx_order)
        FROM {t.relation} l JOIN {ends} e ON l.__tx_id = e.tx_id
        WHERE {t.unfolded} AND e.pos > {floor} GROUP BY e.pos"""
        for name, t in tails
        if t.files and t.facts.placed
    ]
    if selects:
        con.execute(f"INSERT INTO {counts} {' UNION ALL '.join(selects)}")


def placed(tail: Tail, ends: str, cut: int, columns: Sequence[str], *, where: str = "true") -> str:
    """A query: the visible rows of the tail that meet `where`, with `columns` (SQL over log columns) and their place as
    `pos_tx`, `pos_order`, `off`.

    `ends` must know the transactions that were folded long ago (`order.add_folded`) when the tail has free rows.
    """
    items = ", ".join(columns)
    if tail.set_out:
        return f"SELECT {items}, pos_tx, pos_order, off FROM {tail.relation} WHERE {where}"
    visible = f"{tail.unfolded} AND __op IN ('c', 'u', 'r', 'd', 't') AND ({where})"
    parts = []
    if tail.facts.placed:
        parts.append(
            f"""SELECT {items}, pos AS pos_tx, __tx_order AS pos_order, __offset AS off
            FROM {tail.relation} l JOIN {ends} e ON l.__tx_id = e.tx_id
            WHERE {visible} AND pos > {tail.cut} AND pos <= {cut}"""
        )
    if tail.facts.free or not parts:
        parts.append(_free(tail, ends, cut, items, visible))
    return " UNION ALL ".join(parts)


def _free(tail: Tail, ends: str, cut: int, items: str, visible: str) -> str:
    counts = f"AND NOT coalesce({tail.superseded}, false)" if tail.superseded else ""
    source = f"(SELECT * FROM {tail.relation} WHERE {visible} AND __tx_id IS NULL {counts})"
    order = f"{AFTER_ALL} + __offset AS pos_order, __offset AS off"
    run = "r.pos" if tail.runs else "0"
    joined = f"LEFT JOIN {tail.runs} r(lsn, pos) ON {RUN} AND r.lsn = f.__lsn" if tail.runs else ""
    if not tail.facts.placed:
        place = f"greatest(coalesce(__tx_order, 0), {run}, {tail.cut})"
        return f"SELECT {items}, {place} AS pos_tx, {order} FROM {source} f {joined} WHERE {place} <= {cut}"
    # The running maximum: a redelivered transaction does not set later rows back.
    before = f"""(SELECT __topic AS topic, __partition AS part, __offset AS at,
        max(coalesce(pos, {NEVER})) OVER (
            PARTITION BY __topic, __partition ORDER BY __offset ROWS UNBOUNDED PRECEDING) AS pos
        FROM {tail.relation} l LEFT JOIN {ends} e ON l.__tx_id = e.tx_id
        WHERE {tail.unfolded} AND __tx_id IS NOT NULL)"""
    place = f"greatest(coalesce(f.__tx_order, b.pos, 0), {run}, {tail.cut})"
    return f"""SELECT {items}, {place} AS pos_tx, {order}
        FROM {source} f ASOF LEFT JOIN {before} b
        ON f.__topic = b.topic AND f.__partition = b.part AND f.__offset > b.at
        {joined} WHERE {place} <= {cut}"""


def without_place(tail: Tail, ends: str) -> str:
    """A query: transactions that have rows in the tail and no row in `ends`."""
    return f"SELECT __tx_id FROM {tail.relation} WHERE {tail.unfolded} AND __tx_id NOT IN (SELECT tx_id FROM {ends})"


def new_lows(con: duckdb.DuckDBPyConnection, tail: Tail, ends: str, cut: int) -> dict[tuple[str, int], int]:
    """Per (topic, partition): the lowest offset that a fold at `cut` must leave, or the offset after the last row.

    Rows of transactions hold it back, and repairs that stand behind one; any other row without a transaction is
    visible, and so folded, once nothing before it is left.
    `ends` must know the transactions that were folded long ago (`order.add_folded`).
    """
    lows = dict(tail.lows or {})
    beyond = f" OR {RUN} AND __lsn IN ({', '.join(map(str, tail.late_runs))})" if tail.late_runs else ""
    if tail.files:
        found = con.execute(
            f"""SELECT __topic, __partition, coalesce(
                min(__offset) FILTER (__op <> 'x' AND __tx_id IS NOT NULL AND (pos IS NULL OR pos > {cut})
                    OR {REPAIR} AND __tx_order > {cut}{beyond}),
                max(__offset) + 1)
            FROM {tail.relation} l LEFT JOIN {ends} e ON l.__tx_id = e.tx_id WHERE {tail.unfolded}
            GROUP BY __topic, __partition"""
        ).fetchall()
        lows.update({(topic, partition): low for topic, partition, low in found})
    return lows
