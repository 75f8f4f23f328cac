"""`history` of a table with a key: every state that a transaction left behind, from the whole log, as one query.

1. Take each change once, in its place, in eras that truncates end (`life`).
2. Group a key's events by transaction. A group tells whether the key has a row when the transaction ends. Where as many
   rows come as go (a swap: the newcomer arrives before the old row leaves), it is as it was before.
3. Number the rows a key has had one after the other. Link those that are one row under several keys, by the headers of
   key changes, into lineages.
4. Type the images. A value that one leaves out is the last known one of the lineage.
5. A state holds until the next one of its key, or until the era ends. An `r` that shows nothing new is none.

Behind a folded history the same begins with the rows that stand there: each is a group of its own before all others,
the first row of its key, with the values and the beginning that it had.
"""

from __future__ import annotations

from cdc_lake.project.headers import NEW_KEY, OLD_KEY, other_key
from cdc_lake.project.life import HISTORY_COLUMNS, Carried, Life, life_steps
from cdc_lake.sqltext import literal

# A row that a key has had: `kid` is the key in its era as a number, `inc` counts its rows.
NODE = ("kid", "inc")


def history_sql(life: Life) -> str:
    """A query of all versions: the values as c0, c1, …, then `HISTORY_COLUMNS`.

    Behind a folded history, those that ended or began behind it, and those of keys that were touched.
    """
    return f"WITH RECURSIVE {', '.join(history_steps(life))} {' UNION ALL '.join(_shown(life))}"


def state_sql(life: Life) -> str:
    """As `history_sql`, with what a fold keeps for the life that goes on: `since`, the time before which the key's next
    row cannot begin, `lost`, the columns that its last image left unknown, and `gone`: not a version, but a key that
    has no row at the cut. Closed versions have null there.
    """
    names = [f"c{i}" for i in range(len(life.shapes.names))]
    none = ", ".join([*(f"NULL AS {n}" for n in names), *(f"NULL AS {c}" for c in HISTORY_COLUMNS if c != "__key")])
    open_only = "CASE WHEN s.valid_to IS NULL THEN {} END AS {}"
    lost = "[]::VARCHAR[]"
    joined = "LEFT JOIN newest n ON n.kid = s.kid"
    if life.shapes.toastable:
        lost = "z.unknown" if life.carried is None else "coalesce(z.unknown, n.lost)"
        joined += f" LEFT JOIN vals z ON {same_image('n', 'z')}"
    kept = f", {open_only.format('n.since', 'since')}, {open_only.format(lost, 'lost')}, false AS gone"
    gone = f"""SELECT {none}, CAST(y.k AS JSON) AS __key, n.since, NULL AS lost, true AS gone
        FROM newest n JOIN keys y ON y.kid = n.kid JOIN eras e ON e.era = y.era
        WHERE n.alive = 0 AND e.end_id IS NULL"""
    steps = ", ".join([*history_steps(life), *_last_steps(life)])
    return f"WITH RECURSIVE {steps} {' UNION ALL BY NAME '.join([*_shown(life, kept, joined), gone])}"


def history_steps(life: Life) -> list[str]:
    """All common table expressions up to `lines` and `vals`."""
    return [
        *life_steps(life, event_columns(life)),
        *group_steps(life.carried, life.chosen),
        *lineage_steps(),
        *_values(life),
        *_states(life),
        *_lines(),
    ]


def _shown(life: Life, further: str = "", joined: str = "") -> list[str]:
    """Queries of all versions, with `further` columns over `lines` as `s` and what is `joined` to it."""
    names = [f"c{i}" for i in range(len(life.shapes.names))]
    values = ", ".join(f"x.{n}" for n in names)
    own = ", ".join(f"{sql} AS {name}" for name, sql in zip(HISTORY_COLUMNS, _SHOWN, strict=True))
    found = [f"SELECT {values}, {own}{further} FROM lines s JOIN vals x ON {same_image('s', 'x')} {joined}"]
    if life.carried is not None:
        ends = {n: sql for n, sql in zip(HISTORY_COLUMNS, _SHOWN, strict=True) if n in _ENDS}
        items = [*(f"b.{n}" for n in names), *(f"{ends.get(n, f'b.{n}')} AS {n}" for n in HISTORY_COLUMNS)]
        stood = f"lines s JOIN standing b ON b.k = s.k {joined} WHERE s.first = 0"
        found.append(f"SELECT {', '.join(items)}{further} FROM {stood}")
    return found


def _last_steps(life: Life) -> list[str]:
    """`newest`: of each key in its era the time, whether it has a row, and the place of its last image."""
    image = "FILTER (part IS NOT NULL)"
    place = ", ".join(f"arg_max({c}, first) {image} AS {c}" for c in ("top", "part", "off"))
    last = f"""SELECT kid, max(since) AS since, arg_max(alive, first) AS alive, {place} FROM groups GROUP BY kid"""
    if life.carried is None:
        return [f"newest AS ({last})"]
    return [
        f"""newest AS (SELECT l.*, b.lost FROM ({last}) l JOIN keys y ON y.kid = l.kid
            LEFT JOIN standing b ON b.k = y.k AND y.era = 0)"""
    ]


# The columns of `HISTORY_COLUMNS` that tell how a version ended.
_ENDS = ("__valid_to", "__next_key", "__ended_by", "__ended_tx_id", "__to_position")
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


def group_steps(carried: Carried | None = None, chosen: str | None = None) -> list[str]:
    """What each transaction made of each key: whether it is `alive` after it and `was` before, how many rows came and
    went, and how many the key has had `before`. What stands in a folded history is `standing`, of the keys that are
    `chosen` (see `Life`)."""
    steps, keys, standing = list[str](), "", ""
    if carried is not None:
        # A truncate ends all of them, else only those that were touched are asked for.
        touched = " WHERE k IN (SELECT k FROM events)"
        if carried.tail.facts.truncates:
            touched = f" WHERE {chosen.format('k')}" if chosen else ""
        steps.append(f"standing AS MATERIALIZED (SELECT * FROM ({carried.rows}){touched})")
        keys = " UNION SELECT k, 0 AS era FROM standing"
        standing = """ UNION ALL BY NAME SELECT y.kid, NULL AS grp, 0 AS first, b.since AS stamp, b.__tx_id AS tx,
            b.__from_position AS pos_tx, CASE WHEN b.gone THEN 'd' ELSE 'r' END AS first_op, 0 AS made,
            b.gone::INT AS gone FROM standing b JOIN keys y ON y.k = b.k AND y.era = 0"""
    image = "FILTER (op IN ('c', 'u', 'r'))"
    told = "last_value(told IGNORE NULLS) OVER (PARTITION BY kid ORDER BY first ROWS {} AND 1 PRECEDING)"
    return [
        *steps,
        f"""keys AS MATERIALIZED (SELECT k, era, row_number() OVER () AS kid
            FROM (SELECT DISTINCT k, era FROM events WHERE k IS NOT NULL{keys}))""",
        """keyed AS MATERIALIZED (SELECT e.* EXCLUDE (era), y.kid
            FROM events e JOIN keys y ON y.k = e.k AND y.era = e.era)""",
        f"""counted AS (SELECT kid, grp, min(id) AS first, max(stamp) AS stamp, any_value(tx) AS tx,
            max(pos_tx) AS pos_tx, arg_min(op, id) AS first_op, any_value(top) AS top,
            count(*) FILTER (op = 'c') AS made, count(*) FILTER (op = 'd') AS gone,
            arg_max(op, id) {image} AS image_op, arg_max(part, id) {image} AS part,
            arg_max(off, id) {image} AS off, arg_max_null(lsn, id) {image} AS lsn,
            arg_max_null(other, id) FILTER (op = 'c') AS came_from
            FROM keyed GROUP BY kid, grp{standing})""",
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

    The rows of a key leave in the order in which they came. One that leaves and that the log never saw come has a
    number that no other has.
    """
    here = "PARTITION BY e.kid, e.grp ORDER BY e.id"
    before = "g.inc - made - met"
    left, came = (f"count(*) FILTER (e.op = '{op}') OVER ({here})" for op in ("d", "c"))
    inc = f"""CASE e.op WHEN 'd' THEN CASE WHEN {left} > was + met + {came} THEN -e.id
            ELSE {before} - was + {left} END
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
            FROM located l JOIN ({decoded}) d ON {same_image("l", "d")} LEFT JOIN lineage g ON {same}{_held(life)})""",
        f"followed AS (SELECT {', '.join([*place, *followed])} FROM imaged)",
        f"vals AS MATERIALIZED (SELECT {', '.join([*place, *shown, names])} FROM followed)",
    ]


def _held(life: Life) -> str:
    """What the rows of a folded history show comes before all images, as an image of theirs that left out the rest."""
    if life.carried is None:
        return ""
    names = life.shapes.names
    values = [f"l.c{i}" for i in range(len(names))]
    marks = [f"coalesce(list_contains(l.lost, {literal(names[i])}), false) AS u{i}" for i in life.shapes.toastable]
    root = ", ".join(f"coalesce(g.root_{c}, l.{c}) AS root_{c}" for c in NODE)
    same = " AND ".join(f"g.{c} = l.{c}" for c in NODE)
    # A row that stands is the first of its key here.
    rows = "SELECT b.*, y.kid, 1 AS inc FROM standing b JOIN keys y ON y.k = b.k AND y.era = 0 WHERE NOT b.gone"
    return f""" UNION ALL BY NAME SELECT {", ".join([*values, *marks])}, 0 AS id, true AS partial, {root},
        coalesce(g.depth, 0) AS depth FROM ({rows}) l LEFT JOIN lineage g ON {same}"""


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
