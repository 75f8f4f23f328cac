"""In what shape a table is: what its Delta tables hold, how far back they can be read, and what `maintain` does next.

It is told by the Delta logs and listings of folders; no data file is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.maintain.look import Look, look
from cdc_lake.maintain.plan import CURRENT, FOLD, Rules, fold_due, plan
from cdc_lake.maintain.run import LOG, Part, parts_of
from cdc_lake.project.lake import Lake

# Tables that are looked at side by side: each waits for its store most of the time.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """A table's log, what of it lies in its tier, and its read models together: their live `files` and `bytes`, and the
    share of files in the lake itself that are below half of the size that files grow to. `oldest_version` is the first
    version of its log that can be read whole. `due` is the first step that `maintain` would do, with its `why`; both
    are empty when nothing is due.
    """

    files: int
    bytes: int
    small_file_ratio: float
    oldest_version: int
    due: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A table to look at, and how many of its changes a fold would take."""

    source: str
    table: TableId
    unfolded: int


def shapes_of(lake: Lake, asked: Sequence[Asked], rules: Rules | None = None) -> list[Shape | None]:
    """The shape of each table as it is now; None for one that has no log or cannot be looked through."""
    chosen = rules or Rules()
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda one: _shape(lake, one, chosen), asked))


def _shape(lake: Lake, asked: Asked, rules: Rules) -> Shape | None:
    try:
        parts = parts_of(lake, asked.source, asked.table)
        looks = {p.kind: (p, seen) for p in parts if (seen := look(p.path, lake.options, rules.keep)) is not None}
    except CdcLakeError:
        return None
    if LOG not in looks:
        return None
    sizes = [size for _, seen in looks.values() for size in seen.sizes]
    due, why = _due(looks, asked.unfolded, rules)
    small = sum(2 * size < rules.target_bytes for size in sizes)
    files, size = len(sizes) + looks[LOG][1].tier_files, sum(sizes) + looks[LOG][1].tier_bytes
    return Shape(files, size, small / max(len(sizes), 1), looks[LOG][1].oldest, due, why)


def _due(looks: Mapping[str, tuple[Part, Look]], unfolded: int, rules: Rules) -> tuple[str, str]:
    """The first step in the order in which `maintain` does them."""
    folded = looks[CURRENT][1].rows if CURRENT in looks else 0
    why = fold_due(unfolded, folded) if rules.fold else ""
    if why:
        return FOLD, why
    for part, seen in looks.values():
        for step in plan(part.kind, part.path, seen, rules):
            return step.action, f"{part.kind}: {step.why}"
    return "", ""
