"""What one Delta table of the lake looks like on its store: files, sizes, commits, and what readers no longer need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction

from cdc_lake.errors import LakeError, first_line
from cdc_lake.land.layout import data_infos, open_delta, open_store
from cdc_lake.land.store import COMMITS_KEPT
from cdc_lake.land.swap import READABLE
from cdc_lake.land.tiers import read_pin

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
# Delta's own: commits that are older and stand before a checkpoint are taken away. A table may say otherwise.
_LOG_AGE = timedelta(days=30)
_INTERVAL = re.compile(r"\s*interval\s+(\d+)\s+(second|minute|hour|day|week)s?\s*", re.IGNORECASE)
# A file may be written down as removed some time before the commit that removes it.
_SLACK = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Look:
    """A Delta table at one moment.

    `sizes` are the bytes of its live data files, `commits` those since the last checkpoint, `old_commits` those that no
    reader needs any more (those older than `kept`), `expired` the files (name to bytes) that were replaced longer ago
    than readers may hold them. `properties` are those of the table. `oldest` is the first version that can still be
    opened and read whole. `tier_files` and `tier_bytes` are what a log has in its tier.
    """

    version: int
    sizes: tuple[int, ...]
    rows: int
    commits: int
    old_commits: int
    expired: Mapping[str, int]
    properties: Mapping[str, str]
    kept: timedelta = _LOG_AGE
    oldest: int = 0
    tier_files: int = 0
    tier_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of the live data files."""
        return sum(self.sizes)


def look(path: str, options: Mapping[str, str] | None, keep: timedelta) -> Look | None:
    """The table at `path`; None when there is none. Writes nothing. Raises LakeError when it cannot be read."""
    table = open_delta(path, options)
    if table is None:
        return None
    try:
        actions = pa.table(table.get_add_actions(flatten=True))
        store = open_store(path, options)
        listed = Listed.of(store)
        properties = {k: v for k, v in table.metadata().configuration.items() if v is not None}
        kept = _duration(properties.get(COMMITS_KEPT, ""))
        commits, old = listed.due(table.version(), kept)
        pin = read_pin(table, ())
        return Look(
            version=table.version(),
            sizes=tuple(actions["size_bytes"].to_pylist()),
            rows=sum(n or 0 for n in actions["num_records"].to_pylist()),
            commits=commits,
            old_commits=old,
            expired=_expired(store, table, keep),
            properties=properties,
            kept=kept,
            oldest=max(listed.oldest(table.version()), table.transaction_version(READABLE) or 0),
            tier_files=pin.files if pin is not None else 0,
            tier_bytes=pin.bytes if pin is not None else 0,
        )
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{path} cannot be looked through.", why=first_line(error), next=f"check {path}") from error


@dataclass(frozen=True, slots=True)
class Listed:
    """What the folder of a Delta log holds: the time of each commit's file, and the versions with a checkpoint."""

    commits: Mapping[int, datetime | None]
    checkpoints: frozenset[int]

    @classmethod
    def of(cls, store: pafs.FileSystem) -> Listed:
        """List the folder of the table in `store`: one request."""
        infos = store.get_file_info(pafs.FileSelector("_delta_log"))
        commits = {int(m[1]): i.mtime for i in infos if (m := _COMMIT.fullmatch(i.base_name))}
        return cls(commits, frozenset(int(m[1]) for i in infos if (m := _CHECKPOINT.fullmatch(i.base_name))))

    def due(self, version: int, kept: timedelta) -> tuple[int, int]:
        """How many commits stand behind the last checkpoint, and how many before it are older than `kept`."""
        last, before = max(self.checkpoints, default=-1), datetime.now(UTC) - kept
        old = sum(n < last and time is not None and time < before for n, time in self.commits.items())
        return version - last, old

    def oldest(self, version: int) -> int:
        """The first version up to `version` that can be opened: a checkpoint or the first commit, and all behind."""
        first = version + 1
        while first - 1 in self.commits:
            first -= 1
        return 0 if first == 0 else min((c for c in self.checkpoints if first - 1 <= c <= version), default=version)

    def since(self, moment: datetime, version: int) -> int:
        """The first version that was committed at or after `moment`; `version`, the newest, when there is none."""
        return min((n for n, time in self.commits.items() if time is not None and time >= moment), default=version)


def _duration(interval: str) -> timedelta:
    """An interval as Delta's properties have it; Delta's default for one that cannot be read."""
    found = _INTERVAL.fullmatch(interval)
    return timedelta(**{f"{found[2].lower()}s": int(found[1])}) if found is not None else _LOG_AGE


def _expired(store: pafs.FileSystem, table: DeltaTable, keep: timedelta) -> dict[str, int]:
    named = removed_before(table, keep, dry_run=True)
    if not named:
        return {}
    # Removed files stay written down for a while after they are gone: only what is there counts.
    there = data_infos(store)
    return {name: there[name].size for name in named if name in there}


def removed_before(table: DeltaTable, keep: timedelta, *, dry_run: bool, oldest: int | None = None) -> list[str]:
    """Delete the files that a commit removed longer than `keep` ago, or only name them.

    Never a file that no commit names: it may be of a writer who is about to commit. The commit that tells of it says
    that `oldest` is the first version that is whole.
    """
    hours = int(keep.total_seconds() // 3600)
    said = CommitProperties(app_transactions=[Transaction(READABLE, oldest)]) if oldest is not None else None
    return table.vacuum(hours, dry_run=dry_run, enforce_retention_duration=False, full=False, commit_properties=said)


def whole_since(path: str, options: Mapping[str, str] | None, table: DeltaTable, keep: timedelta) -> int:
    """The first version whose files a vacuum leaves that keeps replaced ones for `keep`."""
    listed = Listed.of(open_store(path, options))
    said = table.transaction_version(READABLE) or 0
    return max(said, listed.since(datetime.now(UTC) - keep + _SLACK, table.version()))
