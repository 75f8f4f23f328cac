"""What an instance answers: rows of its shards and of its peers', as of a position, with their age."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx

from cdc_lake.service.run import Runner
from cdc_lake.service.service import Route, Rows
from cdc_lake.service.state import read_only

# A question of a peer to this one: answer for yourself, and do not put the rows together.
ALONE = "x-cdc-lake-alone"
_PEER_SECONDS = 2.0
STALE_SECONDS = 10.0


@dataclass(slots=True)
class Answer:
    """Rows, and of when they are: `ages` by shard (None: it was never filled), `as_of` offsets and times."""

    rows: Rows = field(default_factory=list)
    ages: dict[str, float | None] = field(default_factory=dict)
    as_of: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)

    def document(self, missing: Sequence[str]) -> dict[str, Any]:
        """As JSON: `stale` when a shard is old, has never been filled, or nobody answers for it."""
        ages = list(self.ages.values())
        age = None if not ages or None in ages else max(a for a in ages if a is not None)
        return {
            "rows": self.rows,
            "age_seconds": age,
            "stale": bool(missing) or age is None or age > STALE_SECONDS,
            "as_of": self.as_of,
            **({"missing": list(missing)} if missing else {}),
            **({"unreachable": self.unreachable} if self.unreachable else {}),
        }


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers the routes of a service, of an instance and its peers."""

    runner: Runner
    peers: Sequence[str] = ()

    def ask(self, route: Route, asked: Mapping[str, str], *, alone: bool) -> dict[str, Any]:
        """The answer of all shards that can be reached, or of those of this instance."""
        answer = self._own(route, asked)
        if alone:
            return answer.document([])
        known = {str(tp) for tp in self.runner.partitions}
        for peer in self.peers:
            if not known or not known <= answer.ages.keys():
                self._add(answer, peer, route.path, asked)
        if route.combine is not None:
            answer.rows = route.combine(asked, answer.rows)
        return answer.document(sorted(known - answer.ages.keys()))

    def _own(self, route: Route, asked: Mapping[str, str]) -> Answer:
        answer = Answer()
        for tp, held in list(self.runner.held.items()):
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(read_only(held.shard.file)) as db:
                db.execute("BEGIN")  # rows and position are of one moment
                offset, at = db.execute("SELECT next, at FROM _position").fetchone()
                answer.rows += route.answer(asked, db)
                answer.ages[str(tp)] = self.runner.age(held)
                time = datetime.fromtimestamp(at / 1000, UTC).isoformat() if at else None
                answer.as_of[str(tp)] = {"offset": offset, "time": time}
        return answer

    def _add(self, answer: Answer, peer: str, path: str, asked: Mapping[str, str]) -> None:
        url = f"{peer.rstrip('/')}{path}?{urlencode(asked)}"
        try:
            found = httpx.get(url, headers={ALONE: "1"}, timeout=_PEER_SECONDS).raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            answer.unreachable.append(peer)
            return
        new = found["as_of"].keys() - answer.ages.keys()
        if new:
            answer.rows += found["rows"]
            answer.as_of |= {tp: found["as_of"][tp] for tp in new}
            answer.ages |= dict.fromkeys(new, found["age_seconds"])


def letters(runner: Runner) -> Rows:
    """The dead letters of the shards held, newest first, at most a thousand; what the records say stays hidden."""
    found: Rows = []
    for tp, held in list(runner.held.items()):
        with contextlib.closing(read_only(held.shard.file)) as db:
            rows = db.execute(
                "SELECT at_offset AS offset, at, code, reason FROM _letters ORDER BY at_offset DESC LIMIT 1000"
            )
            found += [{"topic": tp.topic, "partition": tp.partition, **dict(row)} for row in rows.fetchall()]
    return sorted(found, key=lambda row: row["at"], reverse=True)[:1000]


def checks(runner: Runner) -> list[dict[str, Any]]:
    """What readiness depends on."""
    behind = [str(tp) for tp, held in list(runner.held.items()) if not held.caught_up]
    stopped = [f"{error.message} {error.why} Next: {error.next}" for error in runner.problems.values()]
    return [
        {"name": "joined", "ok": runner.ready, "found": "in the group" if runner.ready else runner.state},
        {"name": "filled", "ok": not behind, "found": f"filling {', '.join(sorted(behind))}" if behind else "filled"},
        {"name": "partitions", "ok": not stopped, "found": "; ".join(stopped) or f"{len(runner.held)} held"},
        {"name": "broker", "ok": runner.state == "connected", "found": runner.state},
    ]
