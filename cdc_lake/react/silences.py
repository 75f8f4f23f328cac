"""Silences: alerts that nobody is told of for a while. They open and resolve all the same."""

from __future__ import annotations

import fnmatch
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from cdc_lake.errors import UsageError, suggest
from cdc_lake.land.layout import open_delta, silences_path
from cdc_lake.land.reading import read_rows
from cdc_lake.land.store import DeltaStore
from cdc_lake.land.tables import SILENCES


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts of the rules that `rule` (a glob) names and of `key` (JSON; None: all) are not sent until then."""

    id: str
    rule: str
    key: str | None
    since: datetime
    until: datetime
    by: str
    note: str | None

    def holds(self, alert: Mapping[str, object], now: datetime) -> bool:
        """Whether it keeps an alert from being sent."""
        meant = fnmatch.fnmatchcase(str(alert["rule"]), self.rule) and self.key in (None, alert["key"])
        return meant and self.since <= now < self.until


class Silences:
    """The silences of one source."""

    def __init__(self, root: str, source: str, options: Mapping[str, str] | None) -> None:
        self._path, self._options = silences_path(root, source), options

    def all(self) -> list[Silence]:
        """All of them as they are now, the newest first."""
        table = open_delta(self._path, self._options)
        rows = read_rows(table).to_pylist() if table is not None else []
        latest = {r["id"]: r for r in sorted(rows, key=lambda r: r["recorded_at"])}
        names = ("id", "rule", "key", "since", "until", "by", "note")
        found = [Silence(**{n: r[n] for n in names}) for r in latest.values()]
        return sorted(found, key=lambda s: s.since, reverse=True)

    def add(self, rule: str, key: str | None, until: datetime, *, by: str, note: str | None, now: datetime) -> Silence:
        """Begin one."""
        silence = Silence(uuid.uuid4().hex[:8], rule, key, now, until, by, note)
        self._write(silence, now)
        return silence

    def end(self, id: str, now: datetime) -> Silence:
        """End one now. Raises UsageError when there is none of that id."""
        known = {s.id: s for s in self.all()}
        if id not in known:
            why = suggest(id, known) or "It has ended, or never was."
            raise UsageError(f"There is no silence {id}.", why=why, next="cdc-lake rules silences", code="no_silence")
        old = known[id]
        ended = Silence(old.id, old.rule, old.key, old.since, min(old.until, now), old.by, old.note)
        self._write(ended, now)
        return ended

    def _write(self, one: Silence, now: datetime) -> None:
        store = DeltaStore(self._options)
        row = {name: getattr(one, name) for name in ("id", "rule", "key", "since", "until", "by", "note")}
        rows = pa.Table.from_pylist([row | {"recorded_at": now}], SILENCES)
        store.append(self._path, store.refresh(self._path, None), rows, description="{}", transactions={})


def silenced(silences: Sequence[Silence], alert: Mapping[str, object], now: datetime) -> Silence | None:
    """The silence that keeps an alert from being sent."""
    return next((s for s in silences if s.holds(alert, now)), None)
