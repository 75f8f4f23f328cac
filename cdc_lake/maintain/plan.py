"""What is due for a Delta table, and why: rules by which a byte is rewritten only a few times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cdc_lake.land.store import COMMITS_KEPT, remembered
from cdc_lake.maintain.look import Look
from cdc_lake.project.rules import fold_pays

FOLD, COMPACT, CHECKPOINT, CLEANUP, VACUUM, REMEMBER = "fold", "compact", "checkpoint", "cleanup", "vacuum", "remember"

# The read models: folds merge their small files.
CURRENT, PATCH, HISTORY = "current", "patch", "history"
# What was moved out of a log: its versions are named by the log, so no commit of it is taken away.
TIER = "tier"

# Fewer files than this cost a reader less than merging them costs.
_FILES = 8
# Each level's files are this many times larger than those of the one below.
_FACTOR = 8
_LOWEST = 64 << 10
# Opening a table reads every commit behind the last checkpoint, at half a millisecond each.
_COMMITS = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """What a person may choose: the size that files grow to, how long replaced files are kept, and whether to fold."""

    target_bytes: int = 128 << 20
    keep: timedelta = timedelta(days=7)
    fold: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: `files` and `bytes` are what it reads or deletes, `level` the size a compaction merges up to,
    `properties` what the table is to have set."""

    action: str
    why: str
    files: int = 0
    bytes: int = 0
    level: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Merge:
    """A compaction that pays: files below half of `level` bytes, how many and how large they are together."""

    level: int
    files: int
    bytes: int


def find_merge(sizes: Sequence[int], target: int) -> Merge | None:
    """The largest merge that pays; None when none does.

    It pays when at least eight files are below half of its level, so that any two of them fit into one, and no large
    file is rewritten for the sake of a few small ones: the largest holds at most half of their bytes, and where there
    are files between half and the whole of the level, which are filled up too, the small ones fill half of one.
    """
    for level in _levels(target):
        small = [s for s in sizes if 2 * s < level]
        whole = 2 * sum(small) >= level or not any(level <= 2 * s < 2 * level for s in sizes)
        if len(small) >= _FILES and 2 * max(small) <= sum(small) and whole:
            return Merge(level, len(small), sum(small))
    return None


def _levels(target: int) -> Iterator[int]:
    yield target
    while (target := target // _FACTOR) >= _LOWEST:
        yield target


def fold_due(unfolded: int, folded: int) -> str:
    """Why a fold pays for a table with so many unfolded changes and folded rows; empty when it does not."""
    if not fold_pays(unfolded, folded):
        return ""
    return f"{unfolded:,} changes are not folded, against {folded:,} folded rows"


def plan(part: str, path: str, seen: Look, rules: Rules) -> list[Step]:
    """What is due for the table at `path`, in the order in which it is done. Folds are decided by `fold_due`."""
    steps = []
    folded = part in (CURRENT, PATCH, HISTORY)
    merge = find_merge(seen.sizes, rules.target_bytes) if not folded else None
    unset = _unset(remembered(path, folded=folded), seen.properties)
    if unset:
        why = "it must say how long removed files stay written down, and how long commits do"
        steps.append(Step(REMEMBER, why, properties=unset))
    if merge is not None:
        why = f"{merge.files} files are below {size(merge.level // 2)}"
        steps.append(Step(COMPACT, why, merge.files, merge.bytes, merge.level))
    if seen.commits >= _COMMITS:
        steps.append(Step(CHECKPOINT, f"{seen.commits} commits since the last one", seen.commits))
    if seen.old_commits:
        why = f"{seen.old_commits} commits are older than {age(seen.kept)} and before a checkpoint"
        steps.append(Step(CLEANUP, why, seen.old_commits))
    if seen.expired:
        why = f"{len(seen.expired)} files were replaced more than {span(rules.keep)} ago"
        steps.append(Step(VACUUM, why, len(seen.expired), sum(seen.expired.values())))
    return steps


def _unset(wanted: Mapping[str, str], has: Mapping[str, str]) -> dict[str, str]:
    """What a table has to be told. Who follows its commits may have chosen to keep them longer: that stays."""
    return {k: v for k, v in wanted.items() if has.get(k) != v and not (k == COMMITS_KEPT and k in has)}


def age(kept: timedelta) -> str:
    """A duration in the largest unit that it is a whole number of: 5 minutes, 6 hours, 30 days."""
    seconds = int(kept.total_seconds())
    unit, name = next(
        (u, n) for u, n in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")) if not seconds % u
    )
    return f"{seconds // unit} {name}{'' if seconds == unit else 's'}"


def size(number: int) -> str:
    """Bytes as a person reads them."""
    value, units = float(number), ["B", "KB", "MB", "GB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"


def span(keep: timedelta) -> str:
    """A retention as it is written on the command line: 7d, 12h."""
    hours = int(keep.total_seconds() // 3600)
    return f"{hours // 24}d" if hours and hours % 24 == 0 else f"{hours}h"
