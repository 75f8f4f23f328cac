"""Put dead letters back: decode them again and append them to the log at their own place in the order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cdc_lake.connector_file import ConnectorFile
from cdc_lake.crashpoints import reach
from cdc_lake.decode.debezium import Decoder
from cdc_lake.decode.records import Decoded, TableRows
from cdc_lake.decode.wire import wire_format
from cdc_lake.events import RecordBatch, TableId
from cdc_lake.land.dead_letters import EXPIRED_LETTER, REPLAYED, DeadLetters, Letter
from cdc_lake.land.erasures import ERASED_LETTER
from cdc_lake.registry.schemas import Schemas


class EventReplay(Protocol):
    """Decodes letters of a source of events, and makes what was put back count: behind all that has landed."""

    def decode(self, letter: Letter, batch: RecordBatch) -> Decoded:
        """Decode one letter's record: the same each time."""

    def end(self, decoded: Decoded) -> None:
        """End the batch that was put back; a second time, nothing happens."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a letter: `replayed`, `present` (it was put back before), `skipped` or `dead`, with the reason."""

    id: str
    outcome: str
    table: TableId | None = None
    reason: str = ""


def replay(
    letters: DeadLetters,
    chosen: list[Letter],
    connector: ConnectorFile | None,
    *,
    events: EventReplay | None = None,
    schemas: Schemas | None = None,
    value: bytes | None = None,
    dry_run: bool = False,
    rebuild: Callable[[TableId], None] = lambda _: None,
) -> list[Replayed]:
    """Replay `chosen` letters; `value` stands in for the record's own when a person mended it.

    A letter that still cannot be decoded stays dead, with the reason of today. `events` is for those of such a source,
    `schemas` what a schema registry gives, which raises UnavailableError when it is away.

    1. Put each event back at its place in the log.
    2. `rebuild` each table that got one: a fold that has passed a letter's offset would never look at it again.
    3. Write down that the letters were replayed. Killed before that, they still wait, and the next replay does all of
       it again, which counts each event once.
    """
    decode = events.decode if events is not None else _decoder(connector, schemas)
    done = []
    for letter in chosen:
        gone = letter.error_class in (ERASED_LETTER, EXPIRED_LETTER)
        decoded = None if gone else decode(letter, letter.as_batch(letter.value if value is None else value))
        if decoded is None or decoded.dead or not decoded.tables:
            done.append(Replayed(letter.id, "dead", reason=_why_dead(letter, decoded)))
            continue
        (part,) = decoded.tables
        if dry_run:
            done.append(Replayed(letter.id, "would replay", part.table))
            continue
        fresh = _put_back(letters, letter, part, decoded, events)
        done.append(Replayed(letter.id, "replayed" if fresh else "present", part.table))
    if not dry_run:
        _settle(letters, chosen, done, rebuild)
    return done


def _put_back(
    letters: DeadLetters, letter: Letter, part: TableRows, decoded: Decoded, events: EventReplay | None
) -> bool:
    reach("dlq:before-put-back")
    fresh = letters.put_back(letter, part.table, part.rows)
    reach("dlq:after-put-back")
    if events is not None:
        events.end(decoded)
    return fresh


def _why_dead(letter: Letter, decoded: Decoded | None) -> str:
    if decoded is None:
        return letter.reason
    return decoded.dead[0].reason if decoded.dead else "the record holds no change event"


def _decoder(connector: ConnectorFile | None, schemas: Schemas | None) -> Callable[[Letter, RecordBatch], Decoded]:
    """What decodes letters of a database."""
    topic = connector.transaction_topic if connector is not None else None
    wire = wire_format(schemas, connector.config if connector is not None else {})
    decoder = Decoder(transaction_topic=topic, threads=1, wire=wire)
    return lambda _, batch: decoder.decode([batch])


def _settle(
    letters: DeadLetters, chosen: list[Letter], done: list[Replayed], rebuild: Callable[[TableId], None]
) -> None:
    back = {r.id: r.table for r in done if r.table is not None}
    if not back:
        return
    for table in sorted(set(back.values())):
        rebuild(table)
    reach("dlq:before-decision")
    letters.decide([x for x in chosen if x.id in back], REPLAYED)
    reach("dlq:after-decision")
