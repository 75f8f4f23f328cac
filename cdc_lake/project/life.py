"""The whole life of a table: each change of its log once, in its place, cut into eras that truncates end.

What `history` begins with, for tables with a key and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_lake.project.shapes import Shapes
from cdc_lake.project.tail import Facts, Tail, placed
from cdc_lake.sqltext import literal

# What follows the source's columns in `history`. The first five are the contract; positions are those of
# `lake.position(…)`.
HISTORY_COLUMNS = (
    "__op",
    "__valid_from",
    "__valid_to",
    "__tx_id",
    "__lsn",
    "__key",
    "__previous_key",
    "__next_key",
    "__ended_by",
    "__ended_tx_id",
    "__from_position",
    "__to_position",
    "__unknown",
    "__unread",
)


@dataclass(frozen=True, slots=True)
class Life:
    """A table's log up to `cut`. `timeline` is the query of `timeline_sql`; `keys` limits it to some keys."""

    shapes: Shapes
    files: tuple[str, ...]
    timeline: str
    cut: int
    keys: tuple[str, ...] | None = None

    @property
    def wanted(self) -> str:
        """The SQL condition for log rows of the keys in question."""
        return "true" if self.keys is None else f"__key IN ({', '.join(map(literal, self.keys)) or 'NULL'})"

    def placed(self, columns: Sequence[str]) -> str:
        """The visible rows with their place. No look at the log has told which kinds there are, so all may be."""
        tail = Tail(self.files, facts=Facts(1, 1, 1, 1, 1))
        return placed(tail, "timeline", self.cut, columns, where=f"__op = 't' OR {self.wanted}")


# A row change is one record of the source's own log, so a key, an operation and an LSN name it. What these do not name
# (rows of a snapshot, rows without a key) is told by where it stands.
_NAMED = "op = 't' OR (op <> 'r' AND k IS NOT NULL AND lsn IS NOT NULL)"
_IDENTITY = f"""tx, CASE WHEN tx IS NULL THEN k END, CASE WHEN tx IS NULL THEN op END,
    CASE WHEN tx IS NOT NULL THEN pos_order WHEN {_NAMED} THEN lsn ELSE off END,
    CASE WHEN tx IS NULL AND NOT ({_NAMED}) THEN part END"""
_GROUP = "CASE WHEN tx IS NOT NULL THEN tx WHEN op = 'r' THEN 'r' || off ELSE '@' || epoch_us(ts) END"


def life_steps(life: Life, columns: Sequence[str]) -> list[str]:
    """The common table expressions up to `eras` and `events`, with `columns` (SQL over log columns) of each event.

    An event also has its place among all as one number `id`, its transaction `grp` (without transaction metadata,
    events of one instant are one), the time `stamp` that is shown for it, and its `era`.
    """
    own = ("__op AS op", "__key AS k", "__tx_id AS tx", "__source_ts AS ts", "__lsn AS lsn", "__partition AS part")
    return [
        f"timeline AS MATERIALIZED ({life.timeline})",
        f"placed AS ({life.placed([*own, *columns])})",
        f"""once AS MATERIALIZED (
            SELECT p.*, row_number() OVER (ORDER BY p.pos_tx, pos_order, off) AS id, {_GROUP} AS grp,
            greatest(ts, t.shown_ts) AS stamp
            FROM (SELECT * FROM placed QUALIFY row_number() OVER (PARTITION BY {_IDENTITY} ORDER BY off) = 1) p
            LEFT JOIN timeline t ON t.pos = p.pos_tx)""",
        """eras AS MATERIALIZED (
            SELECT id AS era, stamp AS begun_at, lead(id) OVER w AS end_id, lead(grp) OVER w AS end_grp,
            lead(tx) OVER w AS end_tx, lead(stamp) OVER w AS end_at, lead(pos_tx) OVER w AS end_pos
            FROM (SELECT id, grp, tx, stamp, pos_tx FROM once WHERE op = 't'
                UNION ALL SELECT 0, NULL, NULL, NULL, NULL) WINDOW w AS (ORDER BY id))""",
        # What a transaction does before its own truncate leaves nothing behind.
        """events AS MATERIALIZED (SELECT o.*, e.era FROM once o ASOF JOIN eras e ON o.id > e.era
            WHERE op <> 't' AND grp IS DISTINCT FROM e.end_grp)""",
    ]
