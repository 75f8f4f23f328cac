"""What a log can be made to begin with: the images that its table consists of at some position.

A starting row is an image as it arrived, with its own schema. One that leaves values out (unchanged TOAST) needs those
rows of its lineage that have them: they come before it, and the chain is resolved as it always is. What no row of the
log has stays unknown.
"""

from __future__ import annotations

from cdc_lake.project.files import scan
from cdc_lake.project.history import NODE, event_columns, group_steps, lineage_steps, same_image
from cdc_lake.project.history_bag import bag_lines, bag_steps
from cdc_lake.project.life import Life, life_steps

_PLACE = ("top", "part", "off")


def starts_sql(life: Life) -> str:
    """A query of the starting rows at `life.cut`: their key `k`, the place of the image (`top`, `part`, `off`), the
    order `step` of those of one key, and the operation `op` that says whether the image is complete (r) or not (u)."""
    return _keyed(life) if life.shapes.keyed else _bag(life)


def _bag(life: Life) -> str:
    return f"""WITH {", ".join(bag_steps(life, ["__topic AS top", "__partition AS prt", "__offset AS ofs"]))}
        SELECT NULL::VARCHAR AS k, a.top, a.prt AS part, a.ofs AS off, 1 AS step, 'r' AS op
        FROM {bag_lines(life)} WHERE g.id IS NULL AND e.end_id IS NULL"""


def _keyed(life: Life) -> str:
    steps = [*life_steps(life, event_columns(life)), *group_steps()]
    steps.append(
        """standing AS MATERIALIZED (SELECT y.k, g.top, g.part, g.off
        FROM (SELECT * FROM groups QUALIFY row_number() OVER (PARTITION BY kid ORDER BY first DESC) = 1) g
        JOIN keys y ON y.kid = g.kid JOIN eras e ON e.era = y.era WHERE g.alive = 1 AND e.end_id IS NULL)"""
    )
    if not life.shapes.toastable:
        return f"WITH {', '.join(steps)} SELECT k, top, part, off, 1 AS step, 'r' AS op FROM standing"
    steps += [*lineage_steps(), *_chains(life)]
    return f"""WITH RECURSIVE {", ".join(steps)}
        SELECT k, x.top, x.part, x.off, step, CASE WHEN step = 1 AND x.whole THEN 'r' ELSE 'u' END AS op
        FROM (SELECT k, generate_subscripts(chain, 1) AS step, unnest(chain) AS x FROM chains)"""


def _chains(life: Life) -> list[str]:
    """`chains`: for each standing row the images that it is made of, as structs in their order, its last one last."""
    images = f"""(SELECT __topic AS top, __partition AS part, __offset AS off, __after AS img, __schema_id AS sid
        FROM {scan(life.files)} WHERE __op IN ('c', 'u', 'r') AND {life.wanted})"""
    decoded = life.shapes.decoded(images, "img", "sid", list(_PLACE), marks=True)
    marks = [f"coalesce(u{i}, false)" for i in life.shapes.toastable]
    root = ", ".join(f"coalesce(g.root_{c}, l.{c}) AS root_{c}" for c in NODE)
    same = " AND ".join(f"g.{c} = l.{c}" for c in NODE)
    place = ", ".join(f"'{c}': {c}" for c in _PLACE)
    own = f"{{'depth': depth, 'id': id, {place}, 'whole': NOT (partial AND ({' OR '.join(marks)}))}}"
    last = f"OVER (PARTITION BY {', '.join(f'root_{c}' for c in NODE)} ORDER BY depth, id ROWS UNBOUNDED PRECEDING)"
    held = [f"last_value(CASE WHEN NOT (partial AND {m}) THEN {own} END IGNORE NULLS) {last}" for m in marks]
    found = f"[{', '.join([*held, own])}]"
    return [
        f"""imaged AS (SELECT d.*, l.id, l.partial, {root}, coalesce(g.depth, 0) AS depth
            FROM located l JOIN ({decoded}) d ON {same_image("l", "d")} LEFT JOIN lineage g ON {same})""",
        f"""traced AS (SELECT {", ".join(_PLACE)},
            list_sort(list_distinct(list_filter({found}, lambda x: x IS NOT NULL))) AS chain FROM imaged)""",
        f"""chains AS MATERIALIZED (SELECT s.k, t.chain FROM standing s JOIN traced t ON {same_image("s", "t")})""",
    ]
