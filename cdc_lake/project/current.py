"""`current` of a table with a key: the base without the keys the tail touched, and the last image of each such key.

The work of the common path is one set statement. Two things need more: an update that leaves a value out takes it from
the key's earlier images or from the base; and keys that `moves` had to settle one event at a time come ready-made.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc_lake.project.base import Base
from cdc_lake.project.keys import key_number
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.shares import Share
from cdc_lake.project.tail import Tail, placed
from cdc_lake.project.types import Column
from cdc_lake.sqltext import literal

_COLUMNS = (
    "__key AS k",
    "__op AS op",
    "__after AS img",
    "__schema_id AS sid",
    "__before IS NULL AS bare",
)
# Log rows that concern a key.
_ROWS = "__key IS NOT NULL AND __op <> 't'"
# A position as one number, for aggregates that take the value at the greatest position.
RANK = f"pos_tx::HUGEINT * {1 << 63} + pos_order"


@dataclass(frozen=True, slots=True)
class View:
    """All that decides what a table shows.

    `ends` is the relation of transaction positions, `cut` the position to read at, `settled` the relation of keys that
    were settled one by one (None: no such key). With a `share`, it shows the keys of that alone.
    """

    shapes: Shapes
    tail: Tail
    base: Base | None
    ends: str
    cut: int
    settled: str | None = None
    share: Share | None = None

    def placed(self, where: str = "true", extra: tuple[str, ...] = ()) -> str:
        """The tail's visible rows; see `tail.placed`."""
        return placed(self.tail, self.ends, self.cut, (*_COLUMNS, *extra), where=where)

    @property
    def truncated(self) -> str:
        """A common table expression `cleared`: where all rows were last ended at once, one row or none."""
        truncates = f"""SELECT pos_tx, pos_order, off FROM ({self.placed("__op = 't'")})"""
        places = f"{truncates} UNION ALL {self.tail.clear}" if self.tail.clear else truncates
        return f"""cleared AS MATERIALIZED (SELECT pos_tx, pos_order, off FROM ({places})
            ORDER BY pos_tx DESC, pos_order DESC, off DESC LIMIT 1)"""

    def after_truncate(self, relation: str) -> str:
        """Rows of `relation` behind the last truncate; needs `cleared` when there is one."""
        if not self.tail.clears:
            return relation
        return f"""(SELECT * FROM {relation} AS r WHERE NOT EXISTS (
            SELECT 1 FROM cleared c WHERE (c.pos_tx, c.pos_order, c.off) >= (r.pos_tx, r.pos_order, r.off)))"""

    @property
    def base_condition(self) -> str:
        """False when the tail's truncate emptied the base."""
        return "NOT EXISTS (SELECT 1 FROM cleared)" if self.tail.clears else "true"


def base_select(view: View, condition: str) -> str:
    """The base's rows that meet `condition` (over `b`), as c0, c1, …, k, unknown."""
    base = view.base
    if base is None or not base.parts:
        return _none(view)
    values = [f"{base.value(c)} AS c{i}" for i, c in enumerate(view.shapes.target.columns)]
    columns = ", ".join([*values, f"{base.key} AS k", f"{base.unknown} AS unknown"])
    selects = [f"SELECT {columns} FROM {rows} b WHERE {counts} AND {condition}" for rows, counts in base.parts]
    return " UNION ALL ".join(selects)


def _none(view: View) -> str:
    nulls = [f"CAST(NULL AS {c.lake_type}) AS c{i}" for i, c in enumerate(view.shapes.target.columns)]
    return f"SELECT {', '.join(nulls)}, NULL::VARCHAR AS k, NULL::VARCHAR[] AS unknown WHERE false"


def keyed_sql(view: View) -> str:
    """A query of all rows with their values as c0, c1, …, their key `k` and `unknown`, the names of unknown columns."""
    if view.tail.facts.empty:
        return base_select(view, "true")
    steps = f"WITH {view.truncated} " if view.tail.clears else ""
    return f"{steps}{base_select(view, f'{_in_share(view)} AND {_untouched(view)}')} UNION ALL {_changed(view)}"


def changed_sql(view: View) -> str:
    """The rows of `keyed_sql` whose keys the tail touches; a key that is not among them has no row."""
    steps = f"WITH {view.truncated} " if view.tail.clears else ""
    return steps + _changed(view)


def touched_sql(view: View) -> str:
    """A query of all keys `k` that the tail touches, and of their whole numbers n0, n1, …, if they have those."""
    keys = placed(view.tail, view.ends, view.cut, ["__key AS k"], where=_ROWS)
    settled = f" UNION SELECT k FROM {view.settled}" if view.settled else ""
    numbers = _numbers(view, "k")
    return f"SELECT {', '.join(['k', *numbers])} FROM (SELECT k FROM ({keys}){settled} GROUP BY k)"


def last_images_sql(view: View) -> str:
    """A query (k, img, sid): the last image of each key that has a row, and its schema, of a tail without a base."""
    steps = f"WITH {view.truncated} " if view.tail.clears else ""
    settled = f" UNION ALL SELECT k, img, sid FROM {view.settled} WHERE alive" if view.settled else ""
    return f"{steps}SELECT k, img, sid FROM ({_winners(view)}) WHERE op <> 'd'{settled}"


def _changed(view: View) -> str:
    values = ", ".join(f"c{i}" for i in range(len(view.shapes.names)))
    parts = [f"SELECT {values}, k, unknown FROM ({_tail_rows(view, values)})"]
    if view.settled:
        own = view.share.holds(view.share.order.of_text("k")) if view.share is not None else "true"
        parts.append(f"SELECT {values}, k, unknown FROM {view.settled} WHERE alive AND {own}")
    return " UNION ALL ".join(parts)


def _in_share(view: View) -> str:
    """The condition for base rows `b` whose key is of the view's share."""
    if view.share is None or view.base is None:
        return "true"
    column = view.share.order.column
    return view.share.holds(view.base.key if column is None else view.base.value(column))


def _untouched(view: View) -> str:
    """The condition for base rows `b` whose key the tail does not touch.

    The keys are read apart from the images, not from one shared step: DuckDB reads every column of a relation whose
    rows are only counted when a shared step stands above it.
    """
    if view.base is None:
        return "true"
    keys = placed(view.tail, view.ends, view.cut, _key_columns(view), where=_ROWS)
    settled = f" AND NOT EXISTS (SELECT 1 FROM {view.settled} s WHERE s.k = {view.base.key})" if view.settled else ""
    return f"{view.base_condition} AND NOT EXISTS (SELECT 1 FROM ({keys}) w WHERE {_same_key(view)}){settled}"


def _key_columns(view: View) -> list[str]:
    """The key of a log row: whole numbers n0, n1, … where they can be had, else its text `k`."""
    return _numbers(view, "__key") or ["__key AS k"]


def _numbers(view: View, key: str) -> list[str]:
    return [f"{key_number(key, c)} AS n{i}" for i, c in enumerate(_whole_keys(view))]


def _tail_rows(view: View, values: str) -> str:
    """Rows of the keys the tail touches, except those that were settled one by one."""
    none = "[]::VARCHAR[] AS unknown"
    if not (view.shapes.toastable and view.tail.facts.updates):
        live = view.shapes.decoded(f"(SELECT * FROM ({_winners(view)}) WHERE op <> 'd')", "img", "sid", ["k"])
        return f"SELECT {values}, k, {none} FROM ({live})"
    steps = [f"winners AS MATERIALIZED ({_winners(view)})", *_partial_steps(view)]
    live = view.shapes.decoded("(SELECT * FROM winners WHERE op <> 'd' AND NOT partial)", "img", "sid", ["k"])
    return f"""WITH {", ".join(steps)} SELECT {values}, k, {none} FROM ({live})
        UNION ALL SELECT {values}, k, unknown FROM ({_partial_select(view)})"""


def _whole_keys(view: View) -> list[Column]:
    """The key's columns when all are whole numbers and in the base: they compare much faster than the key's text."""
    base, columns = view.base, view.shapes.target.key_columns
    whole = base is not None and base.numbers and all(base.holds(c) for c in columns)
    return list(columns) if whole else []


def _same_key(view: View) -> str:
    """The condition that a base row `b` has the key of a winner `w`."""
    if view.base is None:
        return "true"
    numbers = [f"w.n{i} = {view.base.value(c)}" for i, c in enumerate(_whole_keys(view))]
    return " AND ".join(numbers) or f"w.k = {view.base.key}"


def _winners(view: View) -> str:
    """The last event of each key in the tail."""
    where = _ROWS
    if view.settled:
        where += f" AND __key NOT IN (SELECT k FROM {view.settled})"
    partial = "false"
    if view.shapes.toastable and view.tail.facts.updates:
        partial = f"op = 'u' AND bare AND {view.shapes.may_hold_mark('img')}"
    rows = view.after_truncate(f"({view.placed(where)})")
    last = ", ".join(f"arg_max_null({c}, {RANK}) AS {c}" for c in ("op", "img", "sid", "bare"))
    return f"SELECT *, {partial} AS partial FROM (SELECT k, {last} FROM {rows} AS p GROUP BY k)"


def _partial_steps(view: View) -> list[str]:
    """Steps for keys whose last image may leave values out: what their life in the tail knows of each column."""
    where = "__op <> 't' AND __key IN (SELECT k FROM winners WHERE partial)"
    rows = view.after_truncate(f"({view.placed(where)})")
    # The life of a row begins with its last complete image; a delete ends the one before.
    life = f"""(SELECT *, {RANK} AS rank FROM {rows} AS p QUALIFY count(*) FILTER (op <> 'u') OVER (
        PARTITION BY k ORDER BY pos_tx DESC, pos_order DESC, off DESC
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) = 0
        AND row_number() OVER (PARTITION BY k, pos_tx, pos_order ORDER BY off DESC) = 1)"""
    decoded = view.shapes.decoded(life, "img", "sid", ["k", "op", "bare", "rank"], marks=True)
    known = []
    for i in view.shapes.toastable:
        has = f"op <> 'd' AND NOT (u{i} AND op = 'u' AND bare)"
        known += [f"arg_max_null(c{i}, rank) FILTER ({has}) AS v{i}", f"coalesce(bool_or({has}), false) AS h{i}"]
    columns = ", ".join([*known, "bool_or(op <> 'u') AS born", "max(rank) AS last"])
    return [
        f"life AS MATERIALIZED ({decoded})",
        f"known AS MATERIALIZED (SELECT k, {columns} FROM life GROUP BY k)",
    ]


def _partial_select(view: View) -> str:
    """Rows of keys whose last image may leave values out, as c0, c1, …, k, unknown."""
    toastable = set(view.shapes.toastable)
    base = _old_values(view)
    values, unknown = [], []
    for i, column in enumerate(view.shapes.target.columns):
        if i not in toastable:
            values.append(f"l.c{i}")
            continue
        values.append(f"CASE WHEN n.h{i} THEN n.v{i} WHEN NOT n.born THEN o.c{i} END AS c{i}")
        name = literal(column.name)
        lost = f"NOT n.h{i} AND (n.born OR o.k IS NULL OR list_contains(o.unknown, {name}))"
        unknown.append(f"CASE WHEN {lost} THEN {name} END")
    return f"""SELECT {", ".join(values)}, l.k AS k,
        list_filter([{", ".join(unknown)}]::VARCHAR[], lambda x: x IS NOT NULL) AS unknown
        FROM life l JOIN known n ON l.k = n.k AND l.rank = n.last
        LEFT JOIN ({base}) o ON o.k = l.k"""


def _old_values(view: View) -> str:
    """The base's rows of the keys in question."""
    if view.base is None:
        return _none(view)
    wanted = f"{view.base.key} IN (SELECT k FROM winners WHERE partial)"
    return base_select(view, f"{view.base_condition} AND {wanted}")
