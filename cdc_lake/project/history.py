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

from cdc_lake.project.files import scan
from cdc_lake.project.life import HISTORY_COLUMNS, Life, life_steps
from cdc_lake.sqltext import literal

# A row that a key has had: the `inc`-th of its era.
_NODE = ("k", "era", "inc")


def history_sql(life: Life) -> str:
    """A query of all versions: the values as c0, c1, …, then `HISTORY_COLUMNS`."""
    steps = [*life_steps(life, _columns(life)), *_groups(), *_lineages(), *_values(life), *_states(life), *_lines()]
    values = ", ".join(f"x.c{i}" for i in range(len(life.shapes.names)))
    own = ", ".join(f"{sql} AS {name}" for name, sql in zip(HISTORY_COLUMNS, _SHOWN, strict=True))
    return f"""WITH RECURSIVE {", ".join(steps)}
        SELECT {values}, {own} FROM lines s JOIN vals x ON {_same_image("s", "x")}"""


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
)


def other_key(header: str) -> str:
    """SQL of the other key in a header of a key change, as the text that `__key` has; null when there is none.

    It is cut out of its schema as it stands: parsing and printing it again could change a number's digits.
    """
    text = f"""json_extract_string(__headers, '$."{header}"')"""
    mark = ',"payload":'
    start = f"strpos({text}, {literal(mark)}) + {len(mark)}"
    cut = f"substr({text}, {start}, length({text}) - ({start}))"
    return f"""CASE WHEN contains(__headers, '"{header}"')
        THEN CASE WHEN starts_with({text}, '{{"schema":') THEN {cut} ELSE {text} END END"""


def _columns(life: Life) -> list[str]:
    other = (
        f"CASE __op WHEN 'd' THEN {other_key('__debezium.newkey')} WHEN 'c' THEN {other_key('__debezium.oldkey')} END"
    )
    columns = ["__topic AS top", f"{other} AS other"]
    if life.shapes.toastable:
        # Only an update without a before-image and a moved row leave values out; elsewhere the text is the user's own.
        columns.append(f"(__op = 'u' AND __before IS NULL) OR (__op = 'c' AND {other} IS NOT NULL) AS partial")
    return columns


def _groups() -> list[str]:
    """What each transaction made of each key: whether it is `alive` after it and `was` before, how many rows came and
    went, and how many the key has had `before`."""
    image = "FILTER (op IN ('c', 'u', 'r'))"
    by_key = "PARTITION BY k, era ORDER BY first"
    return [
        f"""counted AS (SELECT k, era, grp, min(rank) AS first, max(stamp) AS stamp, any_value(tx) AS tx,
            max(pos_tx) AS pos_tx, arg_min(op, rank) AS first_op, any_value(top) AS top,
            count(*) FILTER (op = 'c') AS made, count(*) FILTER (op = 'd') AS gone,
            arg_max(op, rank) {image} AS image_op, arg_max(part, rank) {image} AS part,
            arg_max(off, rank) {image} AS off, arg_max_null(lsn, rank) {image} AS lsn,
            arg_max_null(other, rank) FILTER (op = 'c') AS came_from
            FROM events WHERE k IS NOT NULL GROUP BY k, era, grp)""",
        """told AS (SELECT *, CASE WHEN first_op = 'r' OR made > gone THEN 1 WHEN made < gone THEN 0
            WHEN first_op <> 'c' THEN 1 END AS told FROM counted)""",
        f"""carried AS (SELECT *, coalesce(last_value(told IGNORE NULLS)
            OVER ({by_key} ROWS UNBOUNDED PRECEDING), 0) AS alive FROM told)""",
        f"known AS (SELECT *, coalesce(lag(alive) OVER ({by_key}), 0) AS was FROM carried)",
        # A row that the log meets first in an update or a snapshot begins there.
        "begun AS (SELECT *, (was = 0 AND first_op IN ('u', 'r'))::INT AS met FROM known)",
        f"""groups AS MATERIALIZED (SELECT *, coalesce(sum(made + met)
            OVER ({by_key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::BIGINT AS before FROM begun)""",
    ]


def _lineages() -> list[str]:
    """`located`: each event with its row's number `inc`; `lineage`: rows that had another key before, by their root."""
    here = "PARTITION BY e.k, e.era, e.grp ORDER BY e.rank"
    # The rows of a key leave in the order in which they came.
    inc = f"""CASE e.op WHEN 'd' THEN before - was + count(*) FILTER (e.op = 'd') OVER ({here})
        ELSE before + met + count(*) FILTER (e.op = 'c') OVER ({here}) END"""
    moves = "SELECT *, row_number() OVER (PARTITION BY grp, k, other ORDER BY rank) AS n FROM moves"
    columns = ", ".join(f"d.{c} AS from_{c}, c.{c} AS {c}" for c in _NODE)
    node, root = ", ".join(f"l.{c}" for c in _NODE), ", ".join(f"x.root_{c}" for c in _NODE)
    follows = " AND ".join(f"l.from_{c} = x.{c}" for c in _NODE)
    return [
        f"""located AS (SELECT e.*, {inc} AS inc
            FROM events e JOIN groups g ON g.k = e.k AND g.era = e.era AND g.grp = e.grp)""",
        "moves AS MATERIALIZED (SELECT k, era, inc, grp, op, other, rank FROM located WHERE other IS NOT NULL)",
        f"""links AS MATERIALIZED (SELECT {columns} FROM ({moves} WHERE op = 'd') d JOIN ({moves} WHERE op = 'c') c
            ON d.grp = c.grp AND d.k = c.other AND d.other = c.k AND d.n = c.n)""",
        f"""lineage AS (
            SELECT {node}, {", ".join(f"l.from_{c} AS root_{c}" for c in _NODE)}, 1 AS depth
            FROM links l WHERE NOT EXISTS (SELECT 1 FROM links x WHERE {follows})
            UNION ALL SELECT {node}, {root}, x.depth + 1 FROM lineage x JOIN links l ON {follows})""",
    ]


def _rooted(relation: str) -> str:
    """The rows of `relation` (k, era, inc, …) with the root of their lineage, their depth in it, and `linked`."""
    same = " AND ".join(f"g.{c} = n.{c}" for c in _NODE)
    root = ", ".join(f"coalesce(g.root_{c}, n.{c}) AS root_{c}" for c in _NODE)
    return f"""(SELECT n.*, {root}, coalesce(g.depth, 0) AS depth, g.depth IS NOT NULL AS linked
        FROM {relation} n LEFT JOIN lineage g ON {same})"""


def _along(order: str) -> str:
    return f"PARTITION BY {', '.join(f'root_{c}' for c in _NODE)} ORDER BY depth, {order}"


def _values(life: Life) -> list[str]:
    """`vals`: the values of each image, by its coordinates; `unknown` names those that the log never saw."""
    shapes = life.shapes
    images = f"""(SELECT __topic AS top, __partition AS part, __offset AS off, __after AS img, __schema_id AS sid
        FROM {scan(life.files)} WHERE __op IN ('c', 'u', 'r') AND {life.wanted})"""
    place = ["top", "part", "off"]
    decoded = shapes.decoded(images, "img", "sid", place, marks=bool(shapes.toastable))
    if not shapes.toastable:
        return [f"vals AS NOT MATERIALIZED (SELECT *, []::VARCHAR[] AS unknown FROM ({decoded}))"]
    last = f"OVER ({_along('rank')} ROWS UNBOUNDED PRECEDING)"
    followed, shown, unknown = [], [], []
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
        f"""imaged AS (SELECT d.*, l.k, l.era, l.inc, l.rank, l.partial
            FROM located l JOIN ({decoded}) d ON {_same_image("l", "d")})""",
        f"followed AS (SELECT {', '.join([*place, *followed])} FROM {_rooted('imaged')})",
        f"vals AS MATERIALIZED (SELECT {', '.join([*place, *shown, names])} FROM followed)",
    ]


def _same_image(one: str, other: str) -> str:
    return " AND ".join(f"{one}.{c} = {other}.{c}" for c in ("top", "part", "off"))


def _states(life: Life) -> list[str]:
    """`states`: the groups after which a key is not as before, without snapshot rows that show nothing new."""
    same = " AND ".join(f"x.c{i} IS NOT DISTINCT FROM y.c{i}" for i in range(len(life.shapes.names)))
    earlier = ", ".join(f"lag({c}) OVER (PARTITION BY k, era ORDER BY first) AS b_{c}" for c in ("top", "part", "off"))
    before = " AND ".join(f"a.b_{c} = y.{c}" for c in ("top", "part", "off"))
    return [
        "changed AS MATERIALIZED (SELECT *, before + made + met AS inc FROM groups WHERE alive = 1 OR was = 1)",
        f"""again AS MATERIALIZED (SELECT * FROM (SELECT *, {earlier} FROM changed)
            WHERE first_op = 'r' AND was = 1)""",
        f"""nothing_new AS (SELECT a.k, a.era, a.grp FROM again a
            JOIN vals x ON {_same_image("a", "x")} JOIN vals y ON {before} WHERE {same})""",
        """states AS (SELECT * FROM changed s WHERE NOT EXISTS (
            SELECT 1 FROM nothing_new n WHERE n.k = s.k AND n.era = s.era AND n.grp = s.grp))""",
    ]


def _lines() -> list[str]:
    """`lines`: the states in which a key has a row, each with its end and with its neighbours in the lineage."""
    return [
        """since AS (SELECT s.*, e.end_rank, e.end_at, e.end_tx, e.end_pos, greatest(e.begun_at,
            max(stamp) OVER (PARTITION BY s.k, s.era ORDER BY first ROWS UNBOUNDED PRECEDING)) AS valid_from
            FROM states s JOIN eras e ON e.era = s.era)""",
        """ended AS (SELECT *, lead(first) OVER w AS next_first, lead(valid_from) OVER w AS next_at,
            lead(tx) OVER w AS next_tx, lead(pos_tx) OVER w AS next_pos,
            CASE WHEN lead(gone) OVER w > 0 THEN 'd' WHEN lead(made) OVER w > 0 THEN 'c'
                ELSE lead(image_op) OVER w END AS next_op
            FROM since WINDOW w AS (PARTITION BY k, era ORDER BY first))""",
        """spans AS (SELECT *,
            CASE WHEN next_first IS NOT NULL THEN next_at WHEN end_rank IS NOT NULL THEN greatest(valid_from, end_at)
                END AS valid_to,
            CASE WHEN next_first IS NOT NULL THEN next_op WHEN end_rank IS NOT NULL THEN 't' END AS ended_by,
            CASE WHEN next_first IS NOT NULL THEN next_tx ELSE end_tx END AS ended_tx,
            CASE WHEN next_first IS NOT NULL THEN next_pos ELSE end_pos END AS ended_pos
            FROM ended WHERE alive = 1)""",
        f"""lines AS (SELECT *, lag(k) OVER w AS key_before, lead(k) OVER w AS key_after
            FROM {_rooted("spans")} WINDOW w AS ({_along("first")}))""",
    ]
