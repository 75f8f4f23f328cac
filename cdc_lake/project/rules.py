"""When a fold pays and what it rewrites: pure rules, by which a row is written only a few times though tables grow.

A fold costs what it writes, and a reader pays for what is not folded. So a fold writes either the files that its
changes touch, where those are few beside the changes, or a patch over the table, which it writes anew each time and
which is merged into the files once it has grown to a share of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

# Rows of one data file: so few that changes of recent keys touch little else, and in a large table so many that its
# files stay few.
_FILE_ROWS, _FILES = 1 << 16, 200
# Rewriting this often what changed is cheaper than a patch that every reader must look through.
_TIMES = 3
# Rewriting so few rows is cheap by itself.
_FEW_ROWS = 200_000
# A patch that holds more than one row for so many of the table's is merged into it.
_PATCH_SHARE = 8
# A fold pays for a hundredth of the table's rows: changes all over it are then written about six times in a patch that
# grows to an eighth of the table, and eight times when that is merged. Readers resolve a million changes in about a
# second, so more are never left to them, and fewer than a thousand cost them nothing.
_FOLD_SHARE, _FOLD_LEAST, _FOLD_ALWAYS = 100, 1_000, 1_000_000
# As many changes as rows touch nearly all of it.
_WHOLE_SHARE = 1
# Files below half of their size are merged when there are more than these.
_SMALL_FILES = 8


def file_rows(rows: int) -> int:
    """How many rows a data file of a table of so many `rows` holds."""
    return max(_FILE_ROWS, rows // _FILES)


def fold_pays(unfolded: int, folded: int) -> bool:
    """Whether a table of so many folded rows is worth a fold that brings in so many changes."""
    return unfolded >= _FOLD_LEAST and (unfolded >= _FOLD_ALWAYS or unfolded * _FOLD_SHARE >= folded)


def whole_pays(unfolded: int, folded: int) -> bool:
    """Whether a fold of so many changes writes all of a table of so many rows, without looking what they touch."""
    return unfolded * _WHOLE_SHARE >= folded


def anew_pays(log: int, lines: int, *, arriving: bool) -> bool:
    """Whether a history of so many `lines` that cannot be gone on with is made anew from a `log` of so many rows, while
    rows of a snapshot are `arriving`: each time that it has doubled."""
    return not arriving or log >= 2 * lines


@dataclass(frozen=True, slots=True)
class Cost:
    """A fold in rows: `changed` since the last one, `patch` if a patch holds them, `rewritten` if the files are written
    that they and the patch touch, `folded` in the table."""

    changed: int
    patch: int
    rewritten: int
    folded: int


def patch_pays(cost: Cost) -> bool:
    """Whether the fold writes a patch instead of the files."""
    dear = cost.rewritten > max(_TIMES * cost.changed, _FEW_ROWS)
    return dear and cost.patch * _PATCH_SHARE < cost.folded


def small_files(sizes: Sequence[int], limit: int, chosen: Collection[int]) -> list[int]:
    """Which further files (by their place) a fold that rewrites those in `chosen` merges, as there are too many."""
    small = [i for i, rows in enumerate(sizes) if 2 * rows < limit and i not in chosen]
    return small if len(small) > _SMALL_FILES else []
