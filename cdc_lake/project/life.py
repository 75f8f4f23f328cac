"""The whole life of a table: each change of its log once, in its place, cut into eras that truncates end.

What `history` begins with, for tables with a key and without. A complete snapshot (see `runs`) ends what it does not
have: with a key, by a delete of each such key; without one, all rows as a truncate does, and it begins them anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_lake.project.files import scan
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.tail import AFTER_ALL, ENDS_RUN, OPENS_RUN, RUN, Facts, Tail, placed
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
class Carried:
    """What a folded history leaves to the life behind it.

    `rows` is a query of what each key was at its position (see `HistoryBase.standing`), `tail` what has come since:
    rows of transactions alone. `begun` is when the last era began, in microseconds of the epoch; None: with the log.
    """

    rows: str
    tail: Tail
    begun: int | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """A table's log up to `cut`. `timeline` is the query of `timeline_sql`; `keys` limits it to some keys, `start` is
    the position at which the log begins (see `land.starts`), `renaming` tells rows that were sent under another key.
    With `carried` it is what comes behind a folded history, for a table with a key. `chosen` limits it too, by an SQL
    condition in which a key stands as `{0}`: no row may have been moved between a key that meets it and one that does
    not. `set_out` is a tail of all its rows with their places, as `placed` gives them (see `shares`), and `found_runs`
    is a query of what `runs` gives for the whole log."""

    shapes: Shapes
    files: tuple[str, ...]
    timeline: str
    cut: int
    keys: tuple[str, ...] | None = None
    start: int = 0
    renaming: Renaming | None = None
    carried: Carried | None = None
    chosen: str | None = None
    set_out: Tail | None = None
    found_runs: str | None = None

    @property
    def relation(self) -> str:
        """The log, every row under the key that it is shown by."""
        if self.set_out is not None:
            return self.set_out.relation
        if self.carried is not None:
            return f"(SELECT * FROM {self.carried.tail.relation} WHERE {self.carried.tail.unfolded})"
        return Tail(self.files, renaming=self.renaming).relation

    @property
    def wanted(self) -> str:
        """The SQL condition for log rows of the keys in question."""
        if self.chosen is not None:
            return f"({self.chosen.format('__key')})"
        return "true" if self.keys is None else f"__key IN ({', '.join(map(literal, self.keys)) or 'NULL'})"

    def placed(self, columns: Sequence[str]) -> str:
        """The visible rows with their place. No look at the log has told which kinds there are, so all may be."""
        where = f"(__op = 't' OR {self.wanted})"
        known = self.set_out or (self.carried.tail if self.carried is not None else None)
        if known is not None:
            return placed(known, "timeline", self.cut, columns, where=where)
        facts, runs = Facts(1, 1, 1, 1, 1), "(SELECT lsn, pos FROM runs)"
        tail = Tail(self.files, cut=self.start, facts=facts, runs=runs, renaming=self.renaming)
        # Equal rows of a table without a key are all counted: those of a run that was begun again would count twice.
        void = f"""{RUN} AND EXISTS (SELECT 1 FROM runs w WHERE w.lsn = __lsn
            AND (NOT w.counts OR __partition = w.part AND __offset < w.begin))"""
        counted = "" if self.shapes.keyed else f" AND NOT coalesce({void}, false)"
        return placed(tail, "timeline", self.cut, columns, where=f"{where}{counted}")

    def runs(self) -> str:
        """A query (lsn, pos, ts, part, begin, complete, preceded, counts) of the marked runs.

        One that was begun again at the same LSN begins at the second first row.
        """
        if self.found_runs is not None:
            return self.found_runs
        files = scan(self.files)
        marked = f"""SELECT __lsn AS lsn, max(__source_ts) AS ts, max(__offset) FILTER ({OPENS_RUN}) AS opened,
            max(__offset) FILTER ({ENDS_RUN}) AS ended, min(__offset) AS low,
            arg_max(__partition, __offset) FILTER ({OPENS_RUN}) AS part FROM {files} WHERE {RUN} GROUP BY __lsn"""
        shown = f"""SELECT lsn, ts, part, coalesce(opened, low) AS begin,
            coalesce(ended >= coalesce(opened, 0), false) AS complete,
            coalesce(opened, low) > (SELECT min(__offset) FROM {files}) AS preceded
            FROM ({marked}) WHERE opened IS NOT NULL OR ended IS NOT NULL"""
        alone = "NOT bool_or(complete) OVER () AND m.lsn = max(m.lsn) OVER ()"
        return f"""SELECT m.*, complete OR ({alone}) AS counts, coalesce(t.pos, 0) AS pos
            FROM ({shown}) m ASOF LEFT JOIN (SELECT lsn, max(pos) OVER (ORDER BY lsn) AS pos FROM timeline) t
            ON m.lsn >= t.lsn"""

    def ended(self) -> str:
        """A query of what complete runs ended, as events: `d` of a key, or `s` of all rows."""
        place = f"r.pos AS pos_tx, {AFTER_ALL - 1} + r.begin AS pos_order, r.begin AS off"
        runs = f"(SELECT * FROM runs WHERE complete AND preceded AND pos <= {self.cut}) r"
        if not self.shapes.keyed:
            return f"SELECT 's' AS op, r.ts, r.lsn, {place} FROM {runs}"
        return f"""SELECT 'd' AS op, x.k, r.ts, r.lsn, {place}
            FROM (SELECT DISTINCT k FROM placed WHERE k IS NOT NULL) x, {runs}
            WHERE NOT EXISTS (SELECT 1 FROM placed p WHERE p.op = 'r' AND p.lsn = r.lsn AND p.k = x.k
                AND NOT coalesce(p.part = r.part AND p.off < r.begin, false))"""


# A row change is one record of the source's own log, so a key, an operation and an LSN name it. What these do not name
# (rows of a snapshot, rows without a key, rows that the log begins with) is told by where it stands.
_NAMED = "op = 't' OR (op <> 'r' AND k IS NOT NULL AND lsn IS NOT NULL AND off >= 0)"
_IDENTITY = f"""tx, CASE WHEN tx IS NULL THEN k END, CASE WHEN tx IS NULL THEN op END,
    CASE WHEN tx IS NOT NULL THEN pos_order WHEN {_NAMED} THEN lsn ELSE off END,
    CASE WHEN tx IS NULL AND NOT ({_NAMED}) THEN part END"""
_GROUP = """CASE WHEN tx IS NOT NULL THEN tx WHEN off < 0 THEN 'start' WHEN op = 'r' THEN 'r' || off
    ELSE '@' || epoch_us(ts) END"""


def life_steps(life: Life, columns: Sequence[str]) -> list[str]:
    """The common table expressions up to `eras` and `events`, with `columns` (SQL over log columns) of each event.

    An event also has its place among all as one number `id`, its transaction `grp` (without transaction metadata,
    events of one instant are one), the time `stamp` that is shown for it, and its `era`.
    """
    own = ("__op AS op", "__key AS k", "__tx_id AS tx", "__source_ts AS ts", "__lsn AS lsn", "__partition AS part")
    carried = life.carried
    # Behind a folded history there are no snapshots: it begins behind them.
    runs = [] if carried else [f"runs AS MATERIALIZED ({life.runs()})"]
    ended = "" if carried else f" UNION ALL BY NAME {life.ended()}"
    begun = f"make_timestamptz({carried.begun})" if carried is not None and carried.begun is not None else "NULL"
    return [
        f"timeline AS MATERIALIZED ({life.timeline})",
        *runs,
        f"placed AS ({life.placed([*own, *columns])})",
        f"""once AS MATERIALIZED (
            SELECT p.*, row_number() OVER (ORDER BY p.pos_tx, pos_order, off) AS id, {_GROUP} AS grp,
            greatest(ts, t.shown_ts) AS stamp
            FROM (SELECT * FROM (FROM placed{ended})
                QUALIFY row_number() OVER (PARTITION BY {_IDENTITY} ORDER BY off) = 1) p
            LEFT JOIN timeline t ON t.pos = p.pos_tx)""",
        f"""eras AS MATERIALIZED (
            SELECT id AS era, stamp AS begun_at, lead(id) OVER w AS end_id, lead(grp) OVER w AS end_grp,
            lead(tx) OVER w AS end_tx, lead(stamp) OVER w AS end_at, lead(pos_tx) OVER w AS end_pos,
            lead(CASE op WHEN 's' THEN 'r' ELSE op END) OVER w AS end_op
            FROM (SELECT id, grp, tx, stamp, pos_tx, op FROM once WHERE op IN ('t', 's')
                UNION ALL SELECT 0, NULL, NULL, {begun}, NULL, NULL) WINDOW w AS (ORDER BY id))""",
        # What a transaction does before its own truncate leaves nothing behind.
        """events AS MATERIALIZED (SELECT o.*, e.era FROM once o ASOF JOIN eras e ON o.id > e.era
            WHERE op NOT IN ('t', 's') AND grp IS DISTINCT FROM e.end_grp)""",
    ]
