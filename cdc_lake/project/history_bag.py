"""`history` of a table without a key: one row for each time an image appeared, until it went.

Equal images cannot be told apart; they go in the order in which they came. What comes and goes within one transaction
was never to be seen and is no row.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc_lake.project.life import HISTORY_COLUMNS, Life, life_steps


def bag_steps(life: Life, place: Sequence[str] = ()) -> list[str]:
    """The common table expressions up to `eras` and `steps`: each image that came (1) or went (0), the `n`th alike.

    `place` are further columns, as SQL `… AS name`.
    """
    values = ", ".join(f"c{i}" for i in range(len(life.shapes.names)))
    columns = ["__before AS old", "__after AS img", "__schema_id AS sid", *place]
    own = ["op", "id", "grp", "tx", "lsn", "stamp", "pos_tx", "era", *(p.rpartition(" ")[2] for p in place)]
    # An update takes its old image away before it adds the new one.
    images = """(SELECT *, 0 AS step, old AS image FROM events WHERE op IN ('u', 'd') AND old IS NOT NULL
        UNION ALL SELECT *, 1 AS step, img AS image FROM events WHERE op IN ('c', 'r', 'u'))"""
    numbered = f"""SELECT *, row_number() OVER (PARTITION BY {values}, era, step ORDER BY id) AS n
        FROM ({life.shapes.decoded(images, "image", "sid", [*own, "step"], unread=True)})"""
    return [*life_steps(life, columns), f"steps AS MATERIALIZED ({numbered})"]


def bag_lines(life: Life) -> str:
    """A relation list: each image that came as `a`, its era as `e`, and as `g` the one by which it went, if it did."""
    names = [f"c{i}" for i in range(len(life.shapes.names))]
    same = " AND ".join(f"g.{c} IS NOT DISTINCT FROM a.{c}" for c in [*names, "era", "n"])
    return f"""(FROM steps WHERE step = 1) a JOIN eras e ON e.era = a.era
        LEFT JOIN (FROM steps WHERE step = 0) g ON {same}"""


def bag_history_sql(life: Life) -> str:
    """A query of all versions: the values as c0, c1, …, then `HISTORY_COLUMNS`."""
    names = [f"c{i}" for i in range(len(life.shapes.names))]
    shown = (
        "a.op",
        "a.stamp",
        """CASE WHEN g.id IS NOT NULL THEN greatest(a.stamp, g.stamp)
            WHEN e.end_id IS NOT NULL THEN greatest(a.stamp, e.end_at) END""",
        "a.tx",
        "a.lsn",
        *["NULL::JSON"] * 3,
        "CASE WHEN g.id IS NOT NULL THEN g.op WHEN e.end_id IS NOT NULL THEN e.end_op END",
        "CASE WHEN g.id IS NOT NULL THEN g.tx ELSE e.end_tx END",
        "a.pos_tx",
        "CASE WHEN g.id IS NOT NULL THEN g.pos_tx ELSE e.end_pos END",
        "[]::VARCHAR[]",
        "CAST(a.unread AS JSON)",
    )
    listed = ", ".join(f"{sql} AS {name}" for name, sql in zip(HISTORY_COLUMNS, shown, strict=True))
    return f"""WITH {", ".join(bag_steps(life))}
        SELECT {", ".join(f"a.{c}" for c in names)}, {listed}
        FROM {bag_lines(life)}
        WHERE g.grp IS DISTINCT FROM a.grp"""
