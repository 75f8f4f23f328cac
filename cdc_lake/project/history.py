"""`history` of a table with a key: every state that a transaction left behind, from the whole log, as one query.

1. Take each change once, in its place, in eras that truncates end (`life`).
2. Group a key's events by transaction. A group tells whether the key has a row when the transaction ends. Where as many
   rows come as go (a swap: the newcomer arrives before the old row leaves), it is as it was before.
3. Number the rows a key has had one after the other. Link those that are one row under several keys, by the headers of
   key changes, into lineages.
4. Type the images. A value that one leaves out is the last known one of the lineage.
5. A state holds until the next one of its key, or until the era ends. An `r` that shows nothing new is none.
"""

from __future__ import annotations

from cdc_lake.project.headers import NEW_KEY, OLD_KEY, other_key
from cdc_lake.project.life import HISTORY_COLUMNS, Life, life_steps
from cdc_lake.sqltext import literal

# A row that a key has had: `kid` is the key in its era as a number, `inc` counts its rows.
NODE = ("kid", "inc")


def history_sql(life: Life) -> str:
    """A query of all versions: the values as c0, c1, …, then `HISTORY_COLUMNS`."""
    steps = [
        *life_steps(life, event_columns(life)),
        *group_steps(),
        *lineage_steps(),
        *_values(life),
        *_states(life),
        *_lines(),
    ]
    values = ", ".join(f"x.c{i}" for i in range(len(life.shapes.names)))
    own = ", ".join(f"{sql} AS {name}" for name, sql in zip(HISTORY_COLUMNS, _SHOWN, strict=True))
    return f"""WITH RECURSIVE {", ".join(steps)}
        SELECT {values}, {own} FROM lines s JOIN vals x ON {same_image("s", "x")}"""


_SHOWN = (
    "CASE WHEN s.made > 0 THEN 'c' WHEN s.was = 0 AND s.first_op <> 'd' THEN s.first_op ELSE s.image_op END",
    "s.valid_from",
    "s.valid_to",
    "s.tx",
    "s.lsn",
    "CAST(s.k AS JSON)",
    """CAST(CASE WHEN s.made > 0 THEN CASE WHEN s.linked THEN nullif(s.key_before, s.k) ELSE s.came_from END END
        AS JSON)""",
    "CAST(CASE WHEN s.ended_by = 'd' THEN nullif(s.key_after, s.k) END AS JSON)",
    "s.ended_by",
    "s.ended_tx",
    "s.pos_tx",
    "s.ended_pos",
    "x.unknown",
    "CAST(x.unread AS JSON)",
)


def event_columns(life: Life) -> list[str]:
    """What `life_steps` is given for the steps of this module."""
    other = f"CASE __op WHEN 'd' THEN {other_key(NEW_KEY)} WHEN 'c' THEN {other_key(OLD_KEY)} END"
    columns = ["__topic AS top", f"{other} AS other"]
    if life.shapes.toastable:
        # Only an update without a before-image and a moved row leave values out; elsewhere the text is the user's own.
        columns.append(f"(__op = 'u' AND __before IS NULL) OR (__op = 'c' AND {other} IS NOT NULL) AS partial")
    return columns


def group_steps() -> list[str]:
    """What each transaction made of each key: whether it is `alive` after it and `was` before, how many rows came and
    went, and how many the key has had `before`."""
    image = "FILTER (op IN ('c', 'u', 'r'))"
    told = "last_value(told IGNORE NULLS) OVER (PARTITION BY kid ORDER BY first ROWS {} AND 1 PRECEDING)"
    return [
        """keys AS MATERIALIZED (SELECT k, era, row_number() OVER () AS kid
            FROM (SELECT DISTINCT k, era FROM events WHERE k IS NOT NULL))""",
        """keyed AS MATERIALIZED (SELECT e.* EXCLUDE (era), y.kid
            FROM events e JOIN keys y ON y.k = e.k AND y.era = e.era)""",
        f"""counted AS (SELECT kid, grp, min(id) AS first, max(stamp) AS stamp, any_value(tx) AS tx,
            max(pos_tx) AS pos_tx, arg_min(op, id) AS first_op, any_value(top) AS top,
            count(*) FILTER (op = 'c') AS made, count(*) FILTER (op = 'd') AS gone,
            arg_max(op, id) {image} AS image_op, arg_max(part, id) {image} AS part,
            arg_max(off, id) {image} AS off, arg_max_null(lsn, id) {image} AS lsn,
            arg_max_null(other, id) FILTER (op = 'c') AS came_from
            FROM keyed GROUP BY kid, grp)""",
        """told AS (SELECT *, CASE WHEN first_op = 'r' OR made > gone THEN 1 WHEN made < gone THEN 0
            WHEN first_op <> 'c' THEN 1 END AS told FROM counted)""",
        f"known AS (SELECT *, coalesce({told.format('BETWEEN UNBOUNDED PRECEDING')}, 0) AS was FROM told)",
        # A row that the log meets first in an update or a snapshot begins there.
        """begun AS (SELECT *, coalesce(told, was) AS alive, (was = 0 AND first_op IN ('u', 'r'))::INT AS met
            FROM known)""",
        """groups AS MATERIALIZED (SELECT *,
            (sum(made + met) OVER (PARTITION BY kid ORDER BY first ROWS UNBOUNDED PRECEDING))::BIGINT AS inc,
            max(stamp) OVER (PARTITION BY kid ORDER BY first ROWS UNBOUNDED PRECEDING) AS since FROM begun)""",
    ]


def lineage_steps() -> list[str]:
    """`located`: each event with its row's number `inc`; `lineage`: all rows that have had several keys, by the root.

    The rows of a key leave in the order in which they came.
    """
    here = "PARTITION BY e.kid, e.grp ORDER BY e.id"
    before = "g.inc - made - met"
    inc = f"""CASE e.op WHEN 'd' THEN {before} - was + count(*) FILTER (e.op = 'd') OVER ({here})
        ELSE {before} + met + count(*) FILTER (e.op = 'c') OVER ({here}) END"""
    moves = "SELECT *, row_number() OVER (PARTITION BY grp, k, other ORDER BY id) AS n FROM moves"
    columns = ", ".join(f"d.{c} AS from_{c}, c.{c} AS {c}" for c in NODE)
    node, root = ", ".join(f"l.{c}" for c in NODE), ", ".join(f"x.root_{c}" for c in NODE)
    first = ", ".join(f"l.from_{c}" for c in NODE)
    follows = " AND ".join(f"l.from_{c} = x.{c}" for c in NODE)
    return [
        f"located AS (SELECT e.*, {inc} AS inc FROM keyed e JOIN groups g ON g.kid = e.kid AND g.grp = e.grp)",
        "moves AS MATERIALIZED (SELECT k, kid, inc, grp, op, other, id FROM located WHERE other IS NOT NULL)",
        f"""links AS MATERIALIZED (SELECT {columns} FROM ({moves} WHERE op = 'd') d JOIN ({moves} WHERE op = 'c') c
            ON d.grp = c.grp AND d.k = c.other AND d.other = c.k AND d.n = c.n)""",
        f"""lineage({", ".join(NODE)}, {", ".join(f"root_{c}" for c in NODE)}, depth) AS (
            SELECT {first}, {first}, 0 FROM links l WHERE NOT EXISTS (SELECT 1 FROM links x WHERE {follows})
            UNION ALL SELECT {node}, {root}, x.depth + 1 FROM lineage x JOIN links l ON {follows})""",
    ]


def _values(life: Life) -> list[str]:
    """`vals`: the values of each image, by its coordinates; `unknown` names those that the log never saw."""
    shapes = life.shapes
    images = f"""(SELECT __topic AS top, __partition AS part, __offset AS off, __after AS img, __schema_id AS sid
        FROM {life.relation} WHERE __op IN ('c', 'u', 'r') AND {life.wanted})"""
    place = ["top", "part", "off"]
    decoded = shapes.decoded(images, "img", "sid", place, marks=bool(shapes.toastable), unread=True)
    if not shapes.toastable:
        return [f"vals AS NOT MATERIALIZED (SELECT *, []::VARCHAR[] AS unknown FROM ({decoded}))"]
    root = ", ".join(f"coalesce(g.root_{c}, l.{c}) AS root_{c}" for c in NODE)
    same = " AND ".join(f"g.{c} = l.{c}" for c in NODE)
    last = f"OVER (PARTITION BY {', '.join(f'root_{c}' for c in NODE)} ORDER BY depth, id ROWS UNBOUNDED PRECEDING)"
    followed, shown, unknown = ["unread"], ["unread"], []
    for i, name in enumerate(shapes.names):
        if i not in shapes.toastable:
            followed.append(f"c{i}")
            shown.append(f"c{i}")
            continue
        # In a box, so that a null that was set is told from a value that was left out.
        boxed = f"CASE WHEN NOT (partial AND u{i}) THEN {{'v': c{i}}} END"
        followed.append(f"last_value({boxed} IGNORE NULLS) {last} AS s{i}")
        shown.append(f"s{i}.v AS c{i}")
        unknown.append(f"CASE WHEN s{i} IS NULL THEN {literal(name)} END")
    names = f"list_filter([{', '.join(unknown)}]::VARCHAR[], lambda x: x IS NOT NULL) AS unknown"
    return [
        f"""imaged AS (SELECT d.*, l.id, l.partial, {root}, coalesce(g.depth, 0) AS depth
            FROM located l JOIN ({decoded}) d ON {same_image("l", "d")} LEFT JOIN lineage g ON {same})""",
        f"followed AS (SELECT {', '.join([*place, *followed])} FROM imaged)",
        f"vals AS MATERIALIZED (SELECT {', '.join([*place, *shown, names])} FROM followed)",
    ]


def same_image(one: str, other: str, prefix: str = "") -> str:
    """The condition that rows of two relations are of one log row."""
    return " AND ".join(f"{one}.{prefix}{c} = {other}.{c}" for c in ("top", "part", "off"))


def _states(life: Life) -> list[str]:
    """`states`: the groups after which a key is not as before, without snapshot rows that show nothing new."""
    same = " AND ".join(f"x.c{i} IS NOT DISTINCT FROM y.c{i}" for i in range(len(life.shapes.names)))
    earlier = ", ".join(f"arg_max(c.{c}, c.first) AS b_{c}" for c in ("top", "part", "off"))
    return [
        "changed AS MATERIALIZED (SELECT * FROM groups WHERE alive = 1 OR was = 1)",
        f"""again AS MATERIALIZED (SELECT a.kid, a.first, a.top, a.part, a.off, {earlier}
            FROM (SELECT * FROM changed WHERE first_op = 'r' AND was = 1) a
            JOIN changed c ON c.kid = a.kid AND c.first < a.first GROUP BY ALL)""",
        f"""nothing_new AS (SELECT a.kid, a.first FROM again a
            JOIN vals x ON {same_image("a", "x")} JOIN vals y ON {same_image("a", "y", "b_")} WHERE {same})""",
        """states AS (SELECT * FROM changed s
            WHERE NOT EXISTS (SELECT 1 FROM nothing_new n WHERE n.kid = s.kid AND n.first = s.first))""",
    ]


def _lines() -> list[str]:
    """`lines`: the states in which a key has a row, each with its end and with its neighbours in the lineage."""
    return [
        """ended AS (SELECT *, lead(first) OVER w AS next_first, lead(since) OVER w AS next_at,
            lead(tx) OVER w AS next_tx, lead(pos_tx) OVER w AS next_pos,
            CASE WHEN lead(gone) OVER w > 0 THEN 'd' WHEN lead(made) OVER w > 0 THEN 'c'
                ELSE lead(image_op) OVER w END AS next_op
            FROM states WINDOW w AS (PARTITION BY kid ORDER BY first))""",
        """spans AS (SELECT s.*, y.k, greatest(since, begun_at) AS valid_from,
            CASE WHEN next_first IS NOT NULL THEN greatest(next_at, begun_at)
                WHEN end_id IS NOT NULL THEN greatest(since, begun_at, end_at) END AS valid_to,
            CASE WHEN next_first IS NOT NULL THEN next_op WHEN end_id IS NOT NULL THEN 't' END AS ended_by,
            CASE WHEN next_first IS NOT NULL THEN next_tx ELSE end_tx END AS ended_tx,
            CASE WHEN next_first IS NOT NULL THEN next_pos ELSE end_pos END AS ended_pos
            FROM ended s JOIN keys y ON y.kid = s.kid JOIN eras e ON e.era = y.era WHERE alive = 1)""",
        f"""beside AS (SELECT s.kid, s.first, g.depth, lag(k) OVER w AS key_before, lead(k) OVER w AS key_after
            FROM spans s JOIN lineage g ON {" AND ".join(f"g.{c} = s.{c}" for c in NODE)}
            WINDOW w AS (PARTITION BY {", ".join(f"root_{c}" for c in NODE)} ORDER BY depth, s.first))""",
        """lines AS (SELECT s.*, coalesce(b.depth, 0) > 0 AS linked, b.key_before, b.key_after
            FROM spans s LEFT JOIN beside b ON b.kid = s.kid AND b.first = s.first)""",
    ]
