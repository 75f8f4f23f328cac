"""Whether something has landed since one last asked, for a small part of what opening a session costs."""

from __future__ import annotations

from pathlib import Path

from cdc_lake.config import Config
from cdc_lake.land.layout import (
    alerts_path,
    dead_letters_path,
    decisions_path,
    local_path,
    log_path,
    silences_path,
    transactions_path,
)
from cdc_lake.project.lake import Lake

_BESIDE = (alerts_path, silences_path, dead_letters_path, decisions_path)


class News:
    """The state of a lake's logs, for a reader that opens a session when there is something new to see.

    The sink commits a flush's transactions behind its rows, so that is the commit to look for; of a source without
    transaction metadata, any commit is. `beside` looks also for what is written beside the changes: alerts and what was
    decided about them, dead letters.
    """

    def __init__(self, config: Config, *, beside: bool = False) -> None:
        self._lake = Lake(config.lake_uri, config.lake.options or None)
        self._beside = beside
        self._seen: dict[str, int] = {}

    def arrived(self) -> bool:
        """Whether there is a commit that was not there at the last call; at the first one, any commit.

        Raises LakeError when the lake cannot be read.
        """
        found = {path: mark for source in self._lake.sources() for path, mark in self._marks(source)}
        if self._beside:
            places = [p(self._lake.root, s) for s in self._lake.sources() for p in _BESIDE]
            found |= {path: self._mark(path) for path in places}
        before, self._seen = self._seen, found
        return found != before

    def _marks(self, source: str) -> list[tuple[str, int]]:
        path = transactions_path(self._lake.root, source)
        mark = self._mark(path)
        if mark:
            return [(path, mark)]
        logs = [log_path(self._lake.root, source, t) for t in self._lake.tables(source)]
        return [(log, self._mark(log)) for log in logs]

    def _mark(self, path: str) -> int:
        """A number that each commit changes; 0 when there is no such table."""
        local = local_path(path)
        if "://" in local:
            table = self._lake.open(path)
            return table.version() + 1 if table is not None else 0
        try:
            # A commit is a new file in this folder.
            return (Path(local) / "_delta_log").stat().st_mtime_ns
        except FileNotFoundError:
            return 0
