"""The history of keys with a plain life, from one pass over their changes: quicker than step by step.

A key's life is plain when each transaction made or deleted its row at most once, or only changed it, when it was not
moved, when no image of it leaves values out and no snapshot read it again. Then nothing of what was before matters but
that it ended: an open line ends with the first change of its key, and a new one with the next. All other keys, and
those whose last change has a time that is later than the fold's, are odd: they are taken step by step (see `history`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cdc_lake.project.files import scan
from cdc_lake.project.headers import NEW_KEY, OLD_KEY, names
from cdc_lake.project.history import history_sql, state_sql
from cdc_lake.project.history_base import CLOSED, HistoryBase, number_places
from cdc_lake.project.keys import key_number
from cdc_lake.project.life import HISTORY_COLUMNS, Life

_IMAGE = "FILTER (op <> 'd')"
# How an open line ends: with the first change of its key, if there is one.
_ENDS = {
    "__valid_to": "t.stamp",
    "__next_key": "NULL::JSON",
    "__ended_by": "t.ends_by",
    "__ended_tx_id": "t.tx",
    "__to_position": "t.pos_tx",
}
# A new line: of a row of `plain`.
_NEW = {
    "__op": "begun_by",
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


def is_plain(base: HistoryBase, life: Life) -> bool:
    """Whether lives behind `base` can be plain: no truncate ended them together, and what stands has ended by then."""
    reach = base.reach
    if life.carried is None or life.carried.tail.facts.truncates or reach.shown is None:
        return False
    return reach.begun is None or reach.begun <= reach.shown


def plain_sql(base: HistoryBase, life: Life) -> str:
    """As `history_sql` behind `base`, with all that is folded."""
    closed = [f"SELECT {base.items()} FROM {scan(s.file for s in base.files(CLOSED))} b"] if base.files(CLOSED) else []
    opened = [
        f"""SELECT {base.items(_ENDS)} FROM {relation} b LEFT JOIN firsts t ON {base.same("t")}
        WHERE NOT b.__gone AND NOT coalesce(t.odd, false)"""
        for relation in base.opened()
    ]
    columns = ", ".join([*_values(life), *HISTORY_COLUMNS])
    odd = f"SELECT {columns} FROM ({history_sql(_odd(life))})"
    return f"WITH {', '.join(_steps(life, base))} {' UNION ALL '.join([*closed, *opened, _new_lines(life), odd])}"


def plain_state_sql(life: Life, base: HistoryBase | None) -> str:
    """As `state_sql`, behind `base` or from the whole log: of a table that was never truncated, and in which no
    snapshot ended any row."""
    kept = ", CASE WHEN next_pos_tx IS NULL THEN since END AS since, []::VARCHAR[] AS lost, false AS gone"
    gone = """SELECT CAST(k AS JSON) AS __key, since, NULL::VARCHAR[] AS lost, true AS gone FROM plain
        WHERE gone > 0 AND next_pos_tx IS NULL"""
    parts = [_new_lines(life, kept), gone, f"FROM ({state_sql(_odd(life))})"]
    if base is not None:
        none = "NULL::TIMESTAMPTZ AS since, NULL::VARCHAR[] AS lost, false AS gone"
        ended = f"SELECT {base.items(_ENDS)}, {none} FROM {{}} b JOIN firsts t ON {base.same('t')}"
        parts += [f"{ended.format(relation)} WHERE NOT b.__gone AND NOT t.odd" for relation in base.opened()]
    return f"WITH {', '.join(_steps(life, base))} {' UNION ALL BY NAME '.join(parts)}"


def _odd(life: Life) -> Life:
    return replace(life, chosen="{0} IN (SELECT k FROM odd)")


def _values(life: Life) -> list[str]:
    return [f"c{i}" for i in range(len(life.shapes.names))]


def _new_lines(life: Life, further: str = "") -> str:
    items = ", ".join([*_values(life), *(f"{_NEW[n]} AS {n}" for n in HISTORY_COLUMNS)])
    return f"SELECT {items}{further} FROM plain WHERE gone = 0"


def _steps(life: Life, base: HistoryBase | None) -> list[str]:
    """`groups`: what each transaction did to each key; `odd`: keys whose life is not plain; `plain`: all changes of the
    others, each with the one that follows; `firsts`: the first change of each key."""
    columns, places = life.shapes.target.columns, number_places(life.shapes)
    numbers, found = [f"n{i}" for i in places], [f"{key_number('k', columns[i])} AS n{i}" for i in places]
    key, same_key = ", ".join(["k", *numbers]), ", ".join(numbers or ["k"])
    last = ", ".join(f"arg_max_null({c}, pos_order) {_IMAGE} AS {c}" for c in ("img", "sid", "lsn"))
    following = ", ".join(f"lead({c}) OVER w AS next_{c}" for c in ("stamp", "tx", "pos_tx", "ends_by"))
    runs = [] if life.carried is not None else [f"runs AS MATERIALIZED ({life.runs()})"]
    return [
        f"timeline AS MATERIALIZED ({life.timeline})",
        *runs,
        f"""groups AS MATERIALIZED (SELECT {", ".join(["g.* EXCLUDE (ts)", *found])}, greatest(ts, shown_ts) AS stamp,
            CASE WHEN gone > 0 THEN 'd' WHEN made > 0 THEN 'c' WHEN read > 0 THEN 'r' ELSE 'u' END AS ends_by
            FROM (SELECT k, pos_tx, any_value(tx) AS tx, max(ts) AS ts, count(*) FILTER (op = 'c') AS made,
                count(*) FILTER (op = 'd') AS gone, count(*) FILTER (op = 'r') AS read, count(*) AS changes,
                bool_or(odd) AS odd, {last} FROM ({_rows(life)}) WHERE k IS NOT NULL GROUP BY k, pos_tx) g
            LEFT JOIN timeline t ON t.pos = g.pos_tx)""",
        f"odd AS MATERIALIZED (SELECT DISTINCT {key} FROM groups WHERE {' OR '.join(_oddities(life, base))})",
        # The values of the columns that are asked for, and not the images, go through what follows.
        f"""plain AS MATERIALIZED (SELECT *, max(stamp) OVER (w ROWS UNBOUNDED PRECEDING) AS since,
            CASE ends_by WHEN 'd' THEN NULL ELSE ends_by END AS begun_by,
            lag(pos_tx) OVER w IS NULL AS first, {following} FROM ({_decoded(life, numbers)})
            WINDOW w AS (PARTITION BY {same_key} ORDER BY pos_tx))""",
        f"""firsts AS (SELECT {key}, false AS odd, stamp, tx, pos_tx, ends_by FROM plain WHERE first
            UNION ALL SELECT {key}, true, NULL, NULL, NULL, NULL FROM odd)""",
    ]


def _rows(life: Life) -> str:
    """All changes, each with whether it makes its key odd."""
    marks = [f"coalesce({names(NEW_KEY)} OR {names(OLD_KEY)}, false)"]
    if life.shapes.toastable:
        marks.append(f"(__op = 'u' AND __before IS NULL AND {life.shapes.may_hold_mark('__after')})")
    if life.carried is None:
        # A repair.
        marks.append("(__tx_id IS NULL AND __op <> 'r')")
    own = [
        "__key AS k", "__op AS op", "__tx_id AS tx", "__lsn AS lsn", "__after AS img", "__schema_id AS sid",
        "__source_ts AS ts", f"{' OR '.join(marks)} AS odd",
    ]  # fmt: skip
    return life.placed(own)


def _oddities(life: Life, base: HistoryBase | None) -> Sequence[str]:
    """Conditions for groups of odd keys."""
    found = ["odd", "made + gone > 1", "(read > 0 AND changes > 1)"]
    if life.carried is None:
        # A snapshot that is not the first that is known of the key.
        later = "SELECT k FROM groups GROUP BY k HAVING max(pos_tx) FILTER (read > 0) > min(pos_tx)"
        found.append(f"k IN ({later})")
    if base is not None and base.opened():
        late = f"SELECT b.__key FROM {{}} b WHERE b.__since > make_timestamptz({base.reach.shown})"
        found.append(f"k IN ({' UNION '.join(late.format(relation) for relation in base.opened())})")
    return found


def _decoded(life: Life, numbers: Sequence[str]) -> str:
    carry = ["k", *numbers, "pos_tx", "tx", "stamp", "gone", "lsn", "ends_by"]
    groups = "(SELECT g.* FROM groups g ANTI JOIN odd o ON o.k = g.k)"
    return life.shapes.decoded(groups, "img", "sid", carry, unread=True)
