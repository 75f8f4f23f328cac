"""What columns are called in tables that have columns of ours beside those of the source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cdc_lake.project.life import HISTORY_COLUMNS
from cdc_lake.project.shapes import Shapes


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
