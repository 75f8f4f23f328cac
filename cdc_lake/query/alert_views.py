"""`lake.alerts`: one row per alert with its state, folded from what became of it; `lake.late_events` beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc_lake.land.tables import ALERTS, EVIDENCE
from cdc_lake.project.files import scan
from cdc_lake.sqltext import ident, literal

_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE"}


def alerts_sql(files: Mapping[str, Sequence[str]]) -> str:
    """A query over the alerts tables of sources: one row per alert. No order of its rows matters: an alert that the
    rule and a person resolved is resolved, at the earlier of the two."""
    return f"""SELECT source, id, any_value(rule) AS rule, any_value(key) AS key, any_value(severity) AS severity,
        coalesce(min(title) FILTER (change = 'opened'), any_value(title)) AS title,
        CASE WHEN bool_or(change = 'resolved') THEN 'resolved' WHEN bool_or(change = 'acknowledged') THEN 'acknowledged'
            ELSE 'open' END AS state,
        min("at") FILTER (change = 'opened') AS opened_at,
        min("at") FILTER (change = 'acknowledged') AS acknowledged_at,
        arg_min("by", "at") FILTER (change = 'acknowledged') AS acknowledged_by,
        min("at") FILTER (change = 'resolved') AS resolved_at,
        arg_min(coalesce("by", 'the rule'), "at") FILTER (change = 'resolved') AS resolved_by,
        string_agg(note, '; ' ORDER BY recorded_at) AS note,
        any_value(evidence) FILTER (change = 'opened') AS evidence,
        max(evidence_count) FILTER (change = 'opened') AS evidence_count,
        any_value(evidence) FILTER (change = 'resolved' AND "by" IS NULL) AS resolution,
        min(position) FILTER (change = 'opened') AS position,
        min(recorded_at) FILTER (change = 'opened') AS recorded_at
        FROM ({_all(files)}) WHERE change <> 'late' GROUP BY source, id"""


def late_sql(files: Mapping[str, Sequence[str]]) -> str:
    """A query: the events that rules could not count any more, and why."""
    return f"""SELECT source, rule, key, note AS why, "at", evidence[1] AS event, position, recorded_at
        FROM ({_all(files)}) WHERE change = 'late'"""


def _all(files: Mapping[str, Sequence[str]]) -> str:
    parts = [f"SELECT {literal(source)} AS source, * FROM {scan(paths)}" for source, paths in files.items() if paths]
    return " UNION ALL BY NAME ".join([*parts, f"SELECT NULL::VARCHAR AS source, {_nothing()} WHERE false"])


def _nothing() -> str:
    fields = ", ".join(f"{ident(f.name)} {_TYPES[str(f.type)]}" for f in EVIDENCE)
    others = {"evidence": f"STRUCT({fields})[]", "notify": "VARCHAR[]"}
    return ", ".join(f"CAST(NULL AS {others.get(f.name) or _TYPES[str(f.type)]}) AS {ident(f.name)}" for f in ALERTS)
