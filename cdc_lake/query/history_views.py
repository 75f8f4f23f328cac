"""The view `history.<schema>.<table>`: evaluated when it is read, from the whole log up to the session's cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cdc_lake.project.history import history_sql
from cdc_lake.project.history_bag import bag_history_sql
from cdc_lake.project.life import HISTORY_COLUMNS, Life
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.sqltext import ident


def history_view(
    source: SourceState, table: TableState, *, keys: Iterable[str] | None = None, renaming: Renaming | None = None
) -> str:
    """The query of a table's versions: the source's columns, then `HISTORY_COLUMNS`; with `keys`, of these only.
    `renaming` is that of the table's log (`SourceState.renaming`).

    Raises the table's error when it cannot be shown.
    """
    if table.error is not None or table.shapes is None:
        raise table.error or ValueError("a table without shapes has an error")
    life = Life(
        table.shapes,
        tuple(table.log.paths),
        timeline_sql(source.transactions),
        source.cut.position,
        None if keys is None else tuple(keys),
        table.log.start,
        renaming,
    )
    inner = history_sql(life) if table.shapes.keyed else bag_history_sql(life)
    columns = [f"c{i} AS {ident(n)}" for i, n in enumerate(history_names(table.shapes))]
    return f"SELECT {', '.join([*columns, *HISTORY_COLUMNS])} FROM ({inner})"


def history_names(shapes: Shapes) -> list[str]:
    """The source's columns as `history` names them."""
    return distinct_names(shapes.names, HISTORY_COLUMNS)


def distinct_names(names: Sequence[str], own: Iterable[str]) -> list[str]:
    """The source's column names; one that is called like one of our `own` gets `_source` behind it."""
    ours = {n.lower() for n in own}
    taken = ours | {n.lower() for n in names}
    found = []
    for name in names:
        shown = name
        if name.lower() in ours:
            while shown.lower() in taken:
                shown += "_source"
        found.append(shown)
    return found
