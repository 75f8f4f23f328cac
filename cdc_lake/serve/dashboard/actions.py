"""What a page may do: look after alerts, and silence rules. Each leaves a row in `lake.audit`, done or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, UsageError, first_line
from cdc_lake.land.audit import Act, Audit
from cdc_lake.land.layout import list_sources
from cdc_lake.query.statements import pieces
from cdc_lake.react.alerts import ACKNOWLEDGED, RESOLVED, Alerts
from cdc_lake.react.durations import microseconds
from cdc_lake.react.silences import Silence, Silences

_LONGEST_NAME, _LONGEST_NOTE = 80, 500
_LONGEST_SILENCE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, by the name that they gave, and from where."""

    by: str
    address: str


class Actions:
    """Acts on the lake of a configuration, one at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._options = config.lake.options or None
        self._mutex = threading.Lock()

    def decide(self, id: str, change: str, note: str | None, actor: Actor) -> dict[str, Any]:
        """Acknowledge or resolve an alert; what it was and is. Raises UsageError for an unknown one."""
        alerts = Alerts(self._config)

        def act() -> tuple[str, dict[str, Any]]:
            before = alerts.decide(id, change, by=actor.by, note=_note(note))
            now = RESOLVED if before["state"] == RESOLVED else change
            return f"was {before['state']}", {"id": before["id"], "was": before["state"], "is": now}

        return self._audited("acknowledge" if change == ACKNOWLEDGED else "resolve", id, note or "", actor, act)

    def silence(self, rule: str, key: str | None, span: str, note: str | None, actor: Actor) -> dict[str, Any]:
        """Send nothing of a rule's alerts for a while. Raises UsageError for a span that is none."""

        def act() -> tuple[str, dict[str, Any]]:
            until = datetime.now(UTC) + _span(span)
            made = [
                one.add(rule, key, until, by=actor.by, note=_note(note), now=datetime.now(UTC))
                for one in self._silences().values()
            ]
            if not made:
                raise UsageError("There is nothing to silence.", why="The lake is empty.", next="cdc-lake sink run")
            return ", ".join(s.id for s in made), {"silences": [_shown(s) for s in made]}

        return self._audited("silence", rule, span, actor, act)

    def end_silence(self, id: str, actor: Actor) -> dict[str, Any]:
        """End a silence now. Raises UsageError for an unknown one."""

        def act() -> tuple[str, dict[str, Any]]:
            holders = [one for one in self._silences().values() if any(s.id == id for s in one.all())]
            if not holders:
                raise UsageError(f"There is no silence {id}.", why="It has ended, or never was.", code="no_silence")
            return "ended", {"silences": [_shown(holders[0].end(id, datetime.now(UTC)))]}

        return self._audited("end silence", id, "", actor, act)

    def silences(self) -> list[dict[str, Any]]:
        """Those that hold now, the newest first."""
        now = datetime.now(UTC)
        return [_shown(s) for one in self._silences().values() for s in one.all() if s.since <= now < s.until]

    def asked(self, sql: str, outcome: str, actor: Actor) -> None:
        """Note that SQL was asked: its words, without the values in it."""
        self._write("sql", "", without_values(sql), actor, outcome)

    def _audited(
        self, what: str, target: str, detail: str, actor: Actor, act: Callable[[], tuple[str, dict[str, Any]]]
    ) -> dict[str, Any]:
        with self._mutex:
            try:
                outcome, document = act()
            except CdcLakeError as error:
                self._write(what, target, detail, actor, f"refused: {first_line(error)}")
                raise
            self._write(what, target, detail, actor, outcome)
            return document

    def _write(self, what: str, target: str, detail: str, actor: Actor, outcome: str) -> None:
        source = next(iter(self._sources()), self._config.all_sources[0].name)
        audit = Audit(self._config.lake_uri, source, self._options)
        audit.write(Act(what, target, detail, actor.by, actor.address, outcome))

    def _silences(self) -> Mapping[str, Silences]:
        return {s: Silences(self._config.lake_uri, s, self._options) for s in self._sources()}

    def _sources(self) -> list[str]:
        return list_sources(self._config.lake_uri, self._options)


def actor_of(name: str | None, address: str, otherwise: str) -> Actor:
    """Who acts. Raises UsageError for a name that is none."""
    by = (name or "").strip() or otherwise
    if len(by) > _LONGEST_NAME or not by.isprintable():
        raise UsageError("The name is not one.", why=f"At most {_LONGEST_NAME} characters that can be seen.")
    return Actor(by, address)


def without_values(sql: str) -> str:
    """SQL with `?` in place of its texts and numbers, and without its comments."""
    shown = ("?" if p.kind == "string" or p.text[0].isdigit() else p.text for p in pieces(sql) if p.kind != "comment")
    return " ".join("".join(shown).split())


def _note(note: str | None) -> str | None:
    if note is not None and len(note) > _LONGEST_NOTE:
        raise UsageError("The note is too long.", why=f"At most {_LONGEST_NOTE} characters are kept.")
    return note or None


def _span(text: str) -> timedelta:
    try:
        span = timedelta(microseconds=microseconds(text))
    except (ValueError, OverflowError) as error:
        raise UsageError("The silence is not clear.", why=str(error), next="write it as 2h or 30 minutes") from None
    if not timedelta(0) < span <= _LONGEST_SILENCE:
        raise UsageError("A silence lasts up to 30 days.", why=f"{text} is not within them.")
    return span


def _shown(one: Silence) -> dict[str, Any]:
    times = {"since": one.since.isoformat(), "until": one.until.isoformat()}
    return {"id": one.id, "rule": one.rule, "key": one.key, **times, "by": one.by, "note": one.note}
