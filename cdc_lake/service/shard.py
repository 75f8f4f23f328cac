"""One partition of a service: records go in, in order; tables, position and events to be sent come out as one commit.

::

    record ─▶ decode ─▶ handled before? ─▶ handler ─▶ tables
                │               │             ├─▶ outbox
                ▼               ▼             ▼
           dead letter       dropped     dead letter (refused, failed)

**Sameness.** What a shard holds at an offset is a function of the log before it and of the handlers, so a shard may be
thrown away, or carried elsewhere, at any time.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cdc_lake.crashpoints import reach
from cdc_lake.errors import PartitionError
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.context import Context, Rejected, Temporary, Timer
from cdc_lake.service.event import MERGED_FROM, Event, Malformed, Outgoing, Place, decode
from cdc_lake.service.service import Service
from cdc_lake.service.state import copy, explained, is_fatal, open_state

# The floor of a shard that sends nothing at all: no offset is behind it.
NEVER = (1 << 63) - 1


class Record(NamedTuple):
    """A record of a batch."""

    offset: int
    at: int
    key: bytes | None
    value: bytes | None
    headers: str | None


class Waiting(NamedTuple):
    """An event that is to be sent: its number, and the offset of what caused it."""

    n: int
    cause: int
    record: Outgoing


class Handled(NamedTuple):
    """An event that was handled between two times of `time.monotonic`: what became of it, what it sent, its failure."""

    event: Event
    outcome: str
    begun: float
    done: float
    sent: tuple[Outgoing, ...]
    error: Exception | None


@dataclass(slots=True)
class Applied:
    """What became of a batch: how many events, by type and outcome; `retry` when it stopped before its end.

    `told` are some of them, as many as the shard was asked to tell of.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    retry: Temporary | None = None
    told: list[Handled] = field(default_factory=list)


def records(batch: RecordBatch) -> Iterator[Record]:
    """The records of a batch, one by one."""
    headers = batch.headers.to_pylist() if batch.headers is not None else [None] * len(batch)
    columns = (
        batch.offsets.to_pylist(),
        batch.timestamps.to_pylist(),
        batch.keys.to_pylist(),
        batch.values.to_pylist(),
    )
    for offset, at, key, value, header in zip(*columns, headers, strict=True):
        yield Record(offset, at, key, value if value is None else batch.prefix + value, header)


class Shard:
    """The state of one partition, at a position.

    `floor` is the offset from which on the events that it causes are to be sent: those before were sent already.
    """

    def __init__(self, service: Service, tp: TopicPartition, file: Path, *, topic_id: str = "", floor: int = 0) -> None:
        self.service, self.tp, self.file, self.floor = service, tp, file, floor
        self.db = open_state(file, service, tp, topic_id)
        self.position, self.at = map(int, self.db.execute("SELECT next, at FROM _position").fetchone())
        self._remember = max(1, int(service.remember.total_seconds() * 1000))
        self._generation = -1
        # Of each batch: how many events that their traces record are told of; and what is told of the one in hand.
        self.tells = 0
        self._sent: tuple[Outgoing, ...] = ()
        self._error: Exception | None = None
        self._own = f"/services/{service.name}"
        self.prune(floor)

    def apply(self, batch: RecordBatch) -> Applied:
        """Handle the records of a batch that are behind the position, and commit.

        An event that fails for a while ends it: `retry` is set, and the position is that event's. Raises LakeError when
        the disk fails: nothing of the batch is kept then.
        """
        if batch.start > self.position:
            raise PartitionError(
                f"{self.tp}: records from {self.position} to {batch.start} were not read.",
                why="A shard takes every record of its partition.",
                next="start the service again",
                code="service_gap",
            )
        before, applied = (self.position, self.at, self._generation), Applied()
        with explained(self.file):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self.position = self._handle_all(batch, applied)
                self.db.execute("UPDATE _position SET next = ?, at = ?", (self.position, self.at))
                reach("service:before-commit")
                self.db.execute("COMMIT")
            except BaseException:
                self.position, self.at, self._generation = before
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        reach("service:after-commit")
        return applied

    def _handle_all(self, batch: RecordBatch, applied: Applied) -> int:
        """Handle record after record; the position behind the last."""
        for record in records(batch):
            if record.offset < self.position:
                continue
            try:
                applied.counts[self._handle(record, applied)] += 1
            except Temporary as error:
                applied.retry = error
                return record.offset
        return max(batch.end, self.position)

    def _handle(self, record: Record, applied: Applied) -> tuple[str, str]:
        """Handle one record: the type of its event, and what became of it."""
        place = Place(self.tp.topic, self.tp.partition, record.offset, datetime.fromtimestamp(record.at / 1000, UTC))
        self._move_time(record.at)
        if record.value is None and not record.headers:
            return "", "tombstone"
        try:
            event = decode(record.headers, record.value, place)
        except Malformed as error:
            return self._malformed(record, str(error))
        if event.type not in self.service.handlers:
            return event.type, "passed"
        if event.time is not None and event.time - place.at > self.service.ahead:
            return self._letter(record, event.type, "future_dated", f"its time is {event.time}, it came at {place.at}")
        if len(applied.told) >= self.tells or record.offset < self.floor or event.traceparent.endswith("-00"):
            return self._once(record, event)
        begun, self._sent, self._error = time.monotonic(), (), None
        outcome = self._once(record, event)
        applied.told.append(Handled(event, outcome[1], begun, time.monotonic(), self._sent, self._error))
        return outcome

    def _once(self, record: Record, event: Event) -> tuple[str, str]:
        """Handle an event unless it was: all that is done for it, or nothing."""
        self.db.execute("SAVEPOINT event")
        known = self._known(event)
        if known is not None:
            self.db.execute("ROLLBACK TO event")
            self.db.execute("RELEASE event")
            if known == event.content:
                return event.type, "duplicate"
            return self._letter(
                record, event.type, "id_reused", f"{event.source} {event.id} said something else before"
            )
        try:
            self._call(event, record.offset)
        except BaseException as error:
            if not self.db.in_transaction:  # a full disk ends the transaction by itself
                raise
            self.db.execute("ROLLBACK TO event")
            self.db.execute("RELEASE event")
            if not isinstance(error, Exception) or isinstance(error, Temporary | MemoryError):
                raise
            if isinstance(error, sqlite3.Error) and is_fatal(error):
                raise
            self._error = error
            code, why = (error.code, error.why) if isinstance(error, Rejected) else ("failed", _words(error))
            return self._letter(record, event.type, code, why)
        self.db.execute("RELEASE event")
        return event.type, "handled"

    def _call(self, event: Event, offset: int) -> None:
        context = Context(event, self.service.name, self.db)
        if event.source == self._own:
            self.db.execute("DELETE FROM _timers WHERE id = ?", (event.id,))
        self.service.handlers[event.type](event, context)
        self._sent = tuple(context.sent)
        for record in context.sent:
            self._put(record, offset)
        for timer in context.timers:
            self._wind(timer)

    def _known(self, event: Event) -> bytes | None:
        """What an event of this identity said; None, and it is noted, when there was none."""
        identity = event.identity
        new = self.db.execute(
            f"INSERT OR IGNORE INTO _seen_{self._generation} VALUES (?, ?)", (identity, event.content)
        ).rowcount
        tables = (self._generation - 1,) if new else (self._generation,)
        for generation in tables:
            row = self.db.execute(f"SELECT content FROM _seen_{generation} WHERE id = ?", (identity,)).fetchone()
            if row is not None:
                return bytes(row[0])
        return None

    def _malformed(self, record: Record, reason: str) -> tuple[str, str]:
        """What has no identity has that of the record that it was merged from, if any: a merge may repeat it."""
        came_from = json.loads(record.headers or "{}").get(MERGED_FROM)
        if came_from and self._known(Event(came_from, MERGED_FROM, "", {})) is not None:
            return "", "duplicate"
        return self._letter(record, "", "malformed", reason)

    def _move_time(self, at: int) -> None:
        """Follow the broker's clock: identities are kept by spans of it, and the spans before the last are dropped."""
        self.at = max(self.at, at)
        generation = self.at // self._remember
        if generation == self._generation:
            return
        for number in (generation - 1, generation):
            self.db.execute(
                f"CREATE TABLE IF NOT EXISTS _seen_{number} (id BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID"
            )
        names = self.db.execute("SELECT name FROM sqlite_schema WHERE name GLOB '_seen_[0-9]*'").fetchall()
        for (name,) in names:
            if int(name.removeprefix("_seen_")) < generation - 1:
                self.db.execute(f"DROP TABLE {name}")
        self._generation = generation

    def _letter(self, record: Record, type: str, code: str, reason: str) -> tuple[str, str]:
        """Keep a record that cannot be handled, here and in the topic of dead letters."""
        self.db.execute(
            "INSERT OR REPLACE INTO _letters VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.offset, record.at, code, reason, record.headers, record.key, record.value),
        )
        told = {"topic": self.tp.topic, "partition": self.tp.partition, "offset": record.offset}
        headers = [(k, str(v).encode()) for k, v in json.loads(record.headers or "{}").items() if v is not None]
        headers += [(f"dlq_{k}", str(v).encode()) for k, v in {**told, "code": code, "reason": reason}.items()]
        self._put(Outgoing(self.service.letters, record.key, record.value, tuple(headers)), record.offset)
        return type, f"dead letter: {code}"

    def _put(self, out: Outgoing, cause: int) -> None:
        if cause >= self.floor:
            self.db.execute(
                "INSERT INTO _outbox (cause, topic, key, value, headers) VALUES (?, ?, ?, ?, ?)", (cause, *_row(out))
            )

    def _wind(self, timer: Timer) -> None:
        due = int(timer.due.timestamp() * 1000)
        self.db.execute(
            "INSERT OR REPLACE INTO _timers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (timer.name, timer.id, due, *_row(timer.record)),
        )

    def waiting(self, most: int = 1_000) -> list[Waiting]:
        """The next events to be sent, in order."""
        rows = self.db.execute("SELECT * FROM _outbox ORDER BY n LIMIT ?", (most,)).fetchall()
        return [Waiting(row["n"], row["cause"], _outgoing(row)) for row in rows]

    def was_sent(self, last: int) -> None:
        """Forget what has been sent, up to a number."""
        with explained(self.file):
            self.db.execute("DELETE FROM _outbox WHERE n <= ?", (last,))

    def prune(self, floor: int) -> None:
        """Forget what is to be sent for offsets below `floor`: another instance, or version, has sent it."""
        self.floor = max(self.floor, floor)
        with explained(self.file):
            self.db.execute("DELETE FROM _outbox WHERE cause < ?", (self.floor,))

    @property
    def mark(self) -> int:
        """Up to which offset all that was caused has been sent."""
        row = self.db.execute("SELECT cause FROM _outbox ORDER BY n LIMIT 1").fetchone()
        return max(self.floor, self.position if row is None else int(row[0]))

    def due(self, now: int) -> list[tuple[str, Outgoing]]:
        """Timers whose moment (ms) has come, with their ids."""
        rows = self.db.execute("SELECT * FROM _timers WHERE due <= ? ORDER BY due, name", (now,)).fetchall()
        return [(row["id"], _outgoing(row)) for row in rows]

    def copy(self, file: Path) -> None:
        """A copy of the state as it is now."""
        copy(self.db, file)

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _row(out: Outgoing) -> tuple[str, bytes | None, bytes | None, str]:
    return out.topic, out.key, out.value, json.dumps([[k, v.decode("utf-8", "replace")] for k, v in out.headers])


def _outgoing(row: sqlite3.Row) -> Outgoing:
    headers = tuple((name, value.encode()) for name, value in json.loads(row["headers"]))
    return Outgoing(row["topic"], row["key"], row["value"], headers)
