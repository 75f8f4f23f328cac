"""Alerts as people see them: found by id, listed, acknowledged, resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from cdc_lake.config import Config
from cdc_lake.errors import UsageError, suggest
from cdc_lake.land.layout import alerts_path, list_sources, open_delta, parquet_files
from cdc_lake.query.alert_views import alerts_sql
from cdc_lake.react.ledger import Ledger
from cdc_lake.react.records import decision

ACKNOWLEDGED, RESOLVED, OPEN = "acknowledged", "resolved", "open"


@dataclass(frozen=True, slots=True)
class Alerts:
    """The alerts of a lake, as they are at each call."""

    config: Config

    def all(self, where: str = "true", parameters: Sequence[object] = ()) -> list[dict[str, object]]:
        """Alerts that meet a condition, newest first. Raises LakeError when they cannot be read."""
        con = duckdb.connect()
        try:
            con.execute("SET TimeZone = 'UTC'")
            self._reach(con)
            query = f"SELECT * FROM ({alerts_sql(self._files())}) WHERE {where} ORDER BY opened_at DESC, id"
            found = con.execute(query, list(parameters))
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        finally:
            con.close()

    def find(self, id: str) -> dict[str, object]:
        """The alert of that id, or of the only one that begins so. Raises UsageError."""
        found = self.all("starts_with(id, ?)", [id]) if id else []
        exact = [a for a in found if a["id"] == id]
        if len(exact) == 1 or len(found) == 1:
            return (exact or found)[0]
        if found:
            shown = ", ".join(str(a["id"]) for a in found[:5])
            raise UsageError(
                f"{len(found)} alerts begin with {id}.", why=shown, next="type more of it", code="no_alert"
            )
        near = suggest(id, [str(a["id"]) for a in self.all()])
        why = near or "No rule has opened an alert of this id."
        raise UsageError(f"There is no alert {id}.", why=why, next="cdc-lake rules alerts", code="no_alert")

    def decide(self, id: str, change: str, *, by: str, note: str | None) -> dict[str, object]:
        """Acknowledge or resolve an alert; it, as it was before. What is decided already is not decided again."""
        alert = self.find(id)
        if alert["state"] == change or (alert["state"] == RESOLVED and change == ACKNOWLEDGED):
            return alert
        ledger = Ledger(self.config.lake_uri, str(alert["source"]), self.config.lake.options or None)
        ledger.add([decision(alert, change, by=by, note=note, now=datetime.now(UTC))])
        return alert

    def _files(self) -> dict[str, Sequence[str]]:
        options = self.config.lake.options or None
        found: dict[str, Sequence[str]] = {}
        for source in list_sources(self.config.lake_uri, options):
            table = open_delta(alerts_path(self.config.lake_uri, source), options)
            found[source] = parquet_files(table) if table is not None else ()
        return found

    def _reach(self, con: duckdb.DuckDBPyConnection) -> None:
        if "://" in self.config.lake_uri:
            from cdc_lake.land.remote_files import register

            register(con, self.config.lake_uri, self.config.lake.options or None)


def counts(alerts: Sequence[Mapping[str, object]]) -> dict[str, dict[str, int]]:
    """How many alerts each rule has in each state."""
    found: dict[str, dict[str, int]] = {}
    for alert in alerts:
        states = found.setdefault(str(alert["rule"]), {OPEN: 0, ACKNOWLEDGED: 0, RESOLVED: 0})
        states[str(alert["state"])] += 1
    return found
