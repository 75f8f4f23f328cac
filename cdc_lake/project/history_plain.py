"""The history of a fold and what has come since, where most keys had a plain life: quicker than step by step.

A key's life is plain when each transaction made or deleted its row at most once, or only changed it, when it was not
moved, and no image of it leaves values out. Then nothing of what was before matters but that it ended: the open lines
are read once, each with the first change of its key, and a new line ends with the next change. All other keys, and
those whose last change has a time that is later than the fold's, are taken step by step (see `history`).
"""

from __future__ import annotations

from dataclasses import replace

from cdc_lake.project.files import scan
from cdc_lake.project.headers import NEW_KEY, OLD_KEY, names
from cdc_lake.project.history import history_sql
from cdc_lake.project.history_base import CLOSED, HistoryBase, key_number
from cdc_lake.project.life import HISTORY_COLUMNS, Life
from cdc_lake.project.tail import placed

_IMAGE = "FILTER (op <> 'd')"


def is_plain(base: HistoryBase, life: Life) -> bool:
    """Whether lives can be plain at all: no truncate ended them together, and what stands has ended by then."""
    reach = base.reach
    if life.carried is None or life.carried.tail.facts.truncates or reach.shown is None:
        return False
    return reach.begun is None or reach.begun <= reach.shown


def plain_sql(base: HistoryBase, life: Life) -> str:
    """A query of all versions: the values as c0, c1, …, then `HISTORY_COLUMNS`."""
    if life.carried is None:
        raise ValueError("a fold behind which nothing has come is read as it is")
    count = len(life.shapes.names)
    columns = ", ".join([*(f"c{i}" for i in range(count)), *HISTORY_COLUMNS])
    closed = [f"SELECT {base.items()} FROM {scan(s.file for s in base.files(CLOSED))} b"] if base.files(CLOSED) else []
    opened = [
        f"""SELECT {base.items(_ENDS)} FROM {relation} b LEFT JOIN firsts t ON {base.same("t")}
        WHERE NOT b.__gone AND NOT coalesce(t.odd, false)"""
        for relation in base.opened()
    ]
    odd = replace(life, chosen="{0} IN (SELECT k FROM odd)")
    parts = [*closed, *opened, _new_lines(life), f"SELECT {columns} FROM ({history_sql(odd)})"]
    return f"WITH {', '.join(_steps(base, life))} {' UNION ALL '.join(parts)}"


# How an open line ends: with the first change of its key, if there is one.
_ENDS = {
    "__valid_to": "t.stamp",
    "__next_key": "NULL::JSON",
    "__ended_by": "t.ends_by",
    "__ended_tx_id": "t.tx",
    "__to_position": "t.pos_tx",
}


def _steps(base: HistoryBase, life: Life) -> list[str]:
    """`groups`: what each transaction did to each key; `odd`: keys whose life is not plain; `plain`: all changes of the
    others, each with the one that follows; `firsts`: the first change of each key."""
    if life.carried is None:
        return []
    moved = f"coalesce({names(NEW_KEY)} OR {names(OLD_KEY)}, false)"
    held = "false"
    if life.shapes.toastable:
        held = f"(__op = 'u' AND __before IS NULL AND {life.shapes.may_hold_mark('__after')})"
    rows = placed(
        life.carried.tail,
        "timeline",
        life.cut,
        [
            "__key AS k", "__op AS op", "__tx_id AS tx", "__lsn AS lsn", "__after AS img", "__schema_id AS sid",
            "greatest(__source_ts, shown_ts) AS stamp", f"{moved} OR {held} AS odd",
        ],
        where="__key IS NOT NULL",
    )  # fmt: skip
    late = " UNION ".join(
        f"SELECT b.__key AS k FROM {relation} b WHERE b.__since > make_timestamptz({base.reach.shown})"
        for relation in base.opened()
    )
    numbers = [f"n{i}" for i in base.numbers]
    found = [f"{key_number('k', base.shapes.target.columns[i])} AS n{i}" for i in base.numbers]
    last = ", ".join(f"arg_max_null({c}, pos_order) {_IMAGE} AS {c}" for c in ("img", "sid", "lsn"))
    following = ", ".join(f"lead({c}) OVER w AS next_{c}" for c in ("stamp", "tx", "pos_tx", "ends_by"))
    key, same_key = ", ".join(["k", *numbers]), ", ".join(numbers or ["k"])
    return [
        f"timeline AS MATERIALIZED ({life.timeline})",
        f"""groups AS MATERIALIZED (SELECT {", ".join(["*", *found])},
            CASE WHEN gone > 0 THEN 'd' WHEN made > 0 THEN 'c' ELSE 'u' END AS ends_by
            FROM (SELECT k, pos_tx, any_value(tx) AS tx, max(stamp) AS stamp, count(*) FILTER (op = 'c') AS made,
                count(*) FILTER (op = 'd') AS gone, bool_or(odd) AS odd, {last} FROM ({rows}) GROUP BY k, pos_tx))""",
        f"""odd AS MATERIALIZED (SELECT DISTINCT {key} FROM groups
            WHERE odd OR made + gone > 1{f" OR k IN (SELECT k FROM ({late}))" if late else ""})""",
        # The values of the columns that are asked for, and not the images, go through what follows.
        f"""plain AS MATERIALIZED (SELECT *, max(stamp) OVER (w ROWS UNBOUNDED PRECEDING) AS since,
            lag(pos_tx) OVER w IS NULL AS first, {following} FROM ({_decoded(life, numbers)})
            WINDOW w AS (PARTITION BY {same_key} ORDER BY pos_tx))""",
        f"""firsts AS (SELECT {key}, false AS odd, stamp, tx, pos_tx, ends_by FROM plain WHERE first
            UNION ALL SELECT {key}, true, NULL, NULL, NULL, NULL FROM odd)""",
    ]


def _decoded(life: Life, numbers: list[str]) -> str:
    carry = ["k", *numbers, "pos_tx", "tx", "stamp", "made", "gone", "lsn", "ends_by"]
    groups = "(SELECT g.* FROM groups g ANTI JOIN odd o ON o.k = g.k)"
    return life.shapes.decoded(groups, "img", "sid", carry, unread=True)


def _new_lines(life: Life) -> str:
    shown = {
        "__op": "CASE WHEN made > 0 THEN 'c' ELSE 'u' END",
        "__valid_from": "since",
        "__valid_to": "CASE WHEN next_pos_tx IS NOT NULL THEN greatest(since, next_stamp) END",
        "__tx_id": "tx",
        "__lsn": "lsn",
        "__key": "CAST(k AS JSON)",
        "__previous_key": "NULL::JSON",
        "__next_key": "NULL::JSON",
        "__ended_by": "next_ends_by",
        "__ended_tx_id": "next_tx",
        "__from_position": "pos_tx",
        "__to_position": "next_pos_tx",
        "__unknown": "[]::VARCHAR[]",
        "__unread": "CAST(unread AS JSON)",
    }
    values = [f"c{i}" for i in range(len(life.shapes.names))]
    items = ", ".join([*values, *(f"{shown[n]} AS {n}" for n in HISTORY_COLUMNS)])
    return f"SELECT {items} FROM plain WHERE gone = 0"
