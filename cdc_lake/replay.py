"""Put dead letters back: decode them again and append them to the log at their own place in the order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cdc_lake.connector_file import ConnectorFile
from cdc_lake.crashpoints import reach
from cdc_lake.decode.debezium import Decoder
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import EXPIRED_LETTER, REPLAYED, DeadLetters, Letter
from cdc_lake.land.erasures import ERASED_LETTER


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
    connector: ConnectorFile,
    *,
    value: bytes | None = None,
    dry_run: bool = False,
    rebuild: Callable[[TableId], None] = lambda _: None,
) -> list[Replayed]:
    """Replay `chosen` letters; `value` stands in for the record's own when a person mended it.

    A letter that still cannot be decoded stays dead, with the reason of today.

    1. Put each event back at its place in the log.
    2. `rebuild` each table that got one: a fold that has passed a letter's offset would never look at it again.
    3. Write down that the letters were replayed. Killed before that, they still wait, and the next replay does all of
       it again, which counts each event once.
    """
    decoder = Decoder(transaction_topic=connector.transaction_topic, threads=1)
    done = []
    for letter in chosen:
        if letter.error_class in (ERASED_LETTER, EXPIRED_LETTER):
            done.append(Replayed(letter.id, "dead", reason=letter.reason))
            continue
        decoded = decoder.decode([letter.as_batch(letter.value if value is None else value)])
        if decoded.dead or not decoded.tables:
            reason = decoded.dead[0].reason if decoded.dead else "the record holds no change event"
            done.append(Replayed(letter.id, "dead", reason=reason))
            continue
        (part,) = decoded.tables
        if dry_run:
            done.append(Replayed(letter.id, "would replay", part.table))
            continue
        reach("dlq:before-put-back")
        fresh = letters.put_back(letter, part.table, part.rows)
        reach("dlq:after-put-back")
        done.append(Replayed(letter.id, "replayed" if fresh else "present", part.table))
    if not dry_run:
        _settle(letters, chosen, done, rebuild)
    return done


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
