"""`current` of a table without a key: a bag. An image that appears adds one row, an image that goes takes one away.

It needs the whole row in every delete and update, which PostgreSQL sends under REPLICA IDENTITY FULL.
"""

from __future__ import annotations

from cdc_lake.project.current import View, base_select


def bag_sql(view: View) -> str:
    """A query of all rows with their values as c0, c1, …, and the empty `k` and `unknown`."""
    if view.tail.facts.empty:
        return base_select(view, "true")
    names = [f"c{i}" for i in range(len(view.shapes.names))]
    values = ", ".join(names)
    own = "NULL::VARCHAR AS k, []::VARCHAR[] AS unknown"
    steps = [*_steps(view), "taken AS MATERIALIZED (SELECT * FROM net WHERE n < 0)"]
    same = " AND ".join(f"b.{c} IS NOT DISTINCT FROM t.{c}" for c in names)
    base = base_select(view, view.base_condition)
    # Of a row that the tail takes away the base may hold several copies: count those, pass all other rows through.
    left = f"""SELECT {values} FROM (
        SELECT {", ".join(f"b.{c}" for c in names)}, count(*) + any_value(t.n) AS kept
        FROM ({base}) b JOIN taken t ON {same} GROUP BY ALL), range(kept)"""
    return f"""WITH {", ".join(steps)}
        SELECT {values}, {own} FROM ({base}) b WHERE NOT EXISTS (SELECT 1 FROM taken t WHERE {same})
        UNION ALL SELECT {values}, {own} FROM ({left})
        UNION ALL SELECT {values}, {own} FROM net, range(n) WHERE n > 0"""


def taken_sql(view: View) -> str:
    """A query of the rows, as c0, c1, …, of which the tail takes more away than it adds."""
    return f"WITH {', '.join(_steps(view))} SELECT * FROM net WHERE n < 0"


def _steps(view: View) -> list[str]:
    values = ", ".join(f"c{i}" for i in range(len(view.shapes.names)))
    steps = [view.truncated] if view.tail.clears else []
    return [*steps, f"net AS MATERIALIZED (SELECT {values}, sum(n)::BIGINT AS n FROM ({_changes(view)}) GROUP BY ALL)"]


def _changes(view: View) -> str:
    """Images with +1 or -1, each change once though it may have been delivered again."""
    changes = view.placed("__op <> 't'", ("__before AS old", "__tx_id AS tx"))
    rows = view.after_truncate(f"({changes})")
    once = f"""(SELECT * FROM {rows} AS p QUALIFY tx IS NULL OR
        row_number() OVER (PARTITION BY pos_tx, pos_order ORDER BY off) = 1)"""
    images = f"""(SELECT img, sid, 1 AS n FROM {once} WHERE op IN ('c', 'r', 'u')
        UNION ALL SELECT old AS img, sid, -1 AS n FROM {once} WHERE op IN ('u', 'd') AND old IS NOT NULL)"""
    return view.shapes.decoded(images, "img", "sid", ["n"])
