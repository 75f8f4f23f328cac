"""Put dead letters back: decode them again and append them to the log at their own place in the order."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_lake.connector_file import ConnectorFile
from cdc_lake.crashpoints import reach
from cdc_lake.decode.debezium import Decoder
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import REPLAYED, DeadLetters, Letter


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
) -> list[Replayed]:
    """Replay `chosen` letters; `value` stands in for the record's own when a person mended it.

    A letter that still cannot be decoded stays dead, with the reason of today.
    """
    decoder = Decoder(transaction_topic=connector.transaction_topic, threads=1)
    done = []
    for letter in chosen:
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
        letters.decide([letter], REPLAYED)
        reach("dlq:after-decision")
        done.append(Replayed(letter.id, "replayed" if fresh else "present", part.table))
    return done
