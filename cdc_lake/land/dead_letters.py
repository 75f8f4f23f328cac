"""Dead letters: records that could not become change events, what became of them, and the way back into the log.

A letter is never changed or deleted by a person's decision: `replayed` and `dropped` are rows of a table beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from cdc_lake.errors import LakeError, UsageError, suggest
from cdc_lake.events import RecordBatch, TableId, TopicPartition
from cdc_lake.land import layout, tables
from cdc_lake.land.append import AppendTable
from cdc_lake.land.erasures import Screen
from cdc_lake.land.reading import read_rows
from cdc_lake.land.starts import kept_from
from cdc_lake.land.store import DeltaStore

WAITING = "waiting"
REPLAYED = "replayed"
DROPPED = "dropped"
# The class of letters whose contents retention took away.
EXPIRED_LETTER = "expired"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and its state: `waiting`, `replayed` or `dropped`."""

    id: str
    tp: TopicPartition
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes | None
    headers: str | None
    error_class: str
    reason: str
    ingested_at: datetime
    state: str

    def as_batch(self, value: bytes | None) -> RecordBatch:
        """The record as it came from Kafka, with `value` in place of its own."""
        return RecordBatch(
            self.tp,
            self.offset,
            self.offset + 1,
            pa.array([self.offset], pa.int64()),
            pa.array([int(self.timestamp.timestamp() * 1000)], pa.int64()),
            pa.array([self.key], pa.binary()),
            pa.array([value], pa.binary()),
            pa.array([self.headers], pa.string()) if self.headers is not None else None,
        )


class DeadLetters:
    """The dead letters of one source."""

    def __init__(self, root: str, source: str, options: Mapping[str, str] | None = None) -> None:
        self._root, self._source, self._options = root, source, options
        self._letters = layout.dead_letters_path(root, source)
        self._decisions = AppendTable(
            layout.decisions_path(root, source), tables.DECISIONS, store=DeltaStore(options), contiguous=False
        )

    def all(self) -> list[Letter]:
        """All letters, oldest first."""
        table = layout.open_delta(self._letters, self._options)
        if table is None:
            return []
        states = self._states()
        letters = [
            Letter(
                row["id"],
                TopicPartition(row["topic"], row["partition"]),
                row["offset"],
                row["timestamp"],
                row["key"],
                row["value"],
                row["headers"],
                row["error_class"],
                row["reason"],
                row["ingested_at"],
                states.get(row["id"], WAITING),
            )
            for row in read_rows(table).to_pylist()
        ]
        return sorted(letters, key=lambda letter: (letter.ingested_at, letter.tp, letter.offset))

    def waiting(self) -> Counter[str]:
        """How many letters of each topic wait for a decision, without reading what is in them."""
        table = layout.open_delta(self._letters, self._options)
        if table is None:
            return Counter()
        decided = self._states()
        rows = read_rows(table, ["id", "topic"]).to_pylist()
        return Counter(row["topic"] for row in rows if row["id"] not in decided)

    def find(self, ids: Sequence[str]) -> list[Letter]:
        """The letters named by `ids`. Raises UsageError for one that does not exist."""
        known = {letter.id: letter for letter in self.all()}
        for one in ids:
            if one not in known:
                raise UsageError(
                    f"There is no dead letter {one}.",
                    why=suggest(one, known) or "An id is topic/partition/offset.",
                    next="cdc-lake dlq list",
                    code="no_such_letter",
                )
        return [known[one] for one in ids]

    def decide(self, letters: Sequence[Letter], decision: str) -> None:
        """Write down that `letters` were replayed or dropped."""
        now = datetime.now(UTC)
        rows = [{"id": letter.id, "decision": decision, "decided_at": now} for letter in letters]
        self._decisions.append(pa.Table.from_pylist(rows, schema=tables.DECISIONS), [])

    def put_back(self, letter: Letter, table: TableId, rows: pa.Table) -> bool:
        """Append a letter's event to the log of `table`, once and for all; False when it was there already.

        Its coordinates are those of the record, so it takes its own place in the order. The app transaction that says
        so is in the same commit: replayed twice, or killed in between, it is still there once.
        Raises LakeError when retention has taken away what stood around it.
        """
        path, store = layout.log_path(self._root, self._source, table), DeltaStore(self._options)
        held = store.open(path)
        if held is not None and letter.offset < kept_from(held, letter.tp):
            raise LakeError(
                f"The letter {letter.id} stands before what is kept of {table}.",
                why="By the retention of its class the log begins later, with what the table was then.",
                next=f"cdc-lake verify --repair {table}  when its row should differ",
                code="letter_before_kept",
            )
        screen = Screen(store, self._root, self._source, table)
        log = AppendTable(path, tables.LOG, store=store, screen=screen)
        return log.append(rows, [], once=f"dead-letter:{letter.id}") > 0

    def _states(self) -> dict[str, str]:
        table = self._decisions.open()
        if table is None:
            return {}
        rows = sorted(read_rows(table).to_pylist(), key=lambda r: r["decided_at"])
        return {r["id"]: r["decision"] for r in rows}
