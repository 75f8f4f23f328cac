"""What rules found and people decided, as rows of the alerts table."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cdc_lake.react.engine import Finding
from cdc_lake.react.rulefile import Rule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TITLE = 300


def moment(micros: int | None) -> datetime | None:
    """An event time; None when there is none, or none that a timestamp can hold."""
    try:
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None


def row_of(rule: Rule, found: Finding, position: int, now: datetime) -> dict[str, object]:
    """A finding as a row."""
    return {
        "id": found.id,
        "change": found.change,
        "rule": rule.name,
        "key": found.key,
        "severity": rule.severity,
        "title": title_of(rule, found) if found.change != "late" else f"An event came {found.why}, and was not counted",
        "at": moment(found.at),
        "position": position,
        "evidence": [dict(e) for e in found.evidence],
        "evidence_count": found.total,
        "notify": list(rule.notify) if rule.notify is not None else None,
        "by": None,
        "note": found.why or None,
        "recorded_at": now,
    }


def decision(
    alert: Mapping[str, object], change: str, *, by: str, note: str | None, now: datetime
) -> dict[str, object]:
    """What a person decided about an alert, as a row."""
    kept = {name: alert[name] for name in ("id", "rule", "key", "severity", "title")}
    nothing: dict[str, object] = {"evidence": [], "evidence_count": 0, "position": None, "notify": alert.get("notify")}
    return {**kept, **nothing, "change": change, "at": now, "by": by, "note": note, "recorded_at": now}


class _Kept(dict[str, object]):
    def __missing__(self, name: str) -> str:
        # A name that the events do not have stays as it was written.
        return "{" + name + "}"


def title_of(rule: Rule, found: Finding) -> str:
    """The rule's title with the values of the key and of the events, the last one's where several have one."""
    values: dict[str, object] = {}
    for evidence in found.evidence:
        values |= _object(evidence.get("values"))
    values |= _object(found.key) | {"count": found.total, "rule": rule.name}
    try:
        text = string.Formatter().vformat(rule.title, (), _Kept(values))
    except (ValueError, IndexError, AttributeError, KeyError, TypeError):
        text = rule.title
    return text if len(text) <= _TITLE else text[: _TITLE - 1] + "…"


def _object(text: object) -> dict[str, object]:
    found = json.loads(text) if isinstance(text, str) and text else {}
    return found if isinstance(found, dict) else {}
