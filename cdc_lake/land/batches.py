"""Batches of events: what one flush of a source of events landed, written down as a transaction of that source.

Events have no transactions that could say what comes first. So the order in which they landed is written down: each
flush is a transaction, whose END stands in the table of transactions behind the one before it. Whoever reads the log
later, or reads it twice, finds the same order. A batch without events says that time has passed and nothing came.

The END is written when all rows of its batch have landed, so no reader ever waits for one: it is there, or its events
are not shown yet. What a sink landed that was killed before the END, the next owner of its partitions ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake.exceptions import CommitFailedError, DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.events import TopicPartition
from cdc_lake.land import tables
from cdc_lake.land.append import RETRY_SECONDS, Span, transaction_id
from cdc_lake.land.layout import transactions_path
from cdc_lake.land.reading import read_rows
from cdc_lake.land.store import DeltaStore, Snapshot, Store
from cdc_lake.land.store_errors import store_error

# The app transaction that counts the batches, and the topic that their ENDs bear: Kafka's own names hold no colon.
_COUNT = "batches"


def batch_topic(source: str) -> str:
    """The topic that the ends of a source's batches bear."""
    return f"{source}:batches"


@dataclass(slots=True)
class Batches:
    """The batches of one source of events. `beside` are other sources of the lake with the topic of their transactions:
    what has landed of them when a batch ends is written down with it, so that an event can meet their tables.

    Order: a batch stands behind all that were ended before, whoever ended them. Idempotence: a batch that is ended
    twice stands where it was ended first.
    """

    root: str
    source: str
    beside: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] | None = None
    store: Store | None = None

    @property
    def _store(self) -> Store:
        if self.store is None:
            self.store = DeltaStore(self.options)
        return self.store

    @property
    def path(self) -> str:
        """Where they are."""
        return transactions_path(self.root, self.source)

    def take_over(self, tp: TopicPartition, logs: Sequence[Any]) -> None:
        """End what a former owner of `tp` landed in `logs` (handles, None where there is none) and did not end."""
        snapshot = self._store.refresh(self.path, None)
        ended = snapshot.transaction_version(transaction_id(tp)) if snapshot is not None else None
        for log in logs:
            landed = log.transaction_version(transaction_id(tp)) if log is not None else None
            if landed is None or landed <= (ended or 0):
                continue
            within = (ds.field("__topic") == tp.topic) & (ds.field("__partition") == tp.partition)
            rows = read_rows(
                log, ["__tx_id", "__offset", "__source_ts"], within & (ds.field("__offset") >= (ended or 0))
            )
            for end in _ends_of(rows):
                self.end(end, [Span(tp, ended or 0, landed)])

    def end(self, ends: pa.Table, spans: Sequence[Span]) -> None:
        """Write the END of a batch (a row of `decode.cloudevents`), behind all others.

        1. Look how many batches there are, and what has landed of other sources.
        2. Append the row and the count in one commit, which fails when somebody else ended a batch meanwhile.
        3. Then look again.
        """
        deadline, delay = time.monotonic() + RETRY_SECONDS, 0.1
        while True:
            try:
                snapshot = self._store.refresh(self.path, None)
                self._append(snapshot, ends, spans)
            except (DeltaError, OSError, UnavailableError) as error:
                passing = isinstance(error, (CommitFailedError, UnavailableError))
                if not passing or time.monotonic() > deadline:
                    raise error if isinstance(error, CdcLakeError) else store_error(self.path, error) from error
                self._store.pause(delay)
                delay = min(delay * 2, 5.0)
                continue
            reach("land:after-batch-end")
            return

    def beat(self, at: datetime) -> None:
        """End a batch without events: up to `at` all has landed that will come in time."""
        row = {"tx_id": f"idle:{int(at.timestamp() * 1_000_000)}", "event_count": 0, "source_ts": at}
        self.end(_end(row, datetime.now(UTC)), [])

    def _append(self, snapshot: Snapshot | None, ends: pa.Table, spans: Sequence[Span]) -> None:
        count = snapshot.transaction_version(_COUNT) if snapshot is not None else None
        number, held = count or 0, dict[str, int]()
        for span in spans:
            name = transaction_id(span.tp)
            known = snapshot.transaction_version(name) if snapshot is not None else None
            held[name] = max(span.end, known or 0)
        size = ends.num_rows
        seen = json.dumps([{"source": s, "position": p} for s, p in sorted(self._beside().items())])
        rows = {
            **{name: ends[name] for name in ends.schema.names},
            "data_collections": pa.array([seen] * size),
            "__topic": pa.repeat(batch_topic(self.source), size),
            "__partition": pa.repeat(pa.scalar(0, pa.int32()), size),
            "__offset": pa.array(range(number, number + size), pa.int64()),
        }
        fitting = pa.table(rows).select(tables.TRANSACTIONS.names).cast(tables.TRANSACTIONS)
        transactions = {**held, _COUNT: number + size}
        self._store.append(self.path, snapshot, fitting, description="", transactions=transactions)

    def _beside(self) -> dict[str, int]:
        """Of each other source, the position up to which its transactions have landed."""
        found = {}
        for source, topic in self.beside.items():
            table = self._store.open(transactions_path(self.root, source))
            version = table.transaction_version(transaction_id(TopicPartition(topic, 0))) if table is not None else None
            found[source] = version or 0
        return found


def _ends_of(rows: pa.Table) -> list[pa.Table]:
    """The ENDs of batches by their landed rows, in the order in which these begin."""
    named = rows.filter(pa.compute.is_valid(rows["__tx_id"]))
    if not named.num_rows:
        return []
    groups = named.group_by("__tx_id").aggregate([("__offset", "min"), ("__offset", "count"), ("__source_ts", "max")])
    now, found = datetime.now(UTC), []
    for row in groups.sort_by("__offset_min").to_pylist():
        at = min(row["__source_ts_max"] or now, now)
        found.append(_end({"tx_id": row["__tx_id"], "event_count": row["__offset_count"], "source_ts": at}, now))
    return found


def _end(row: Mapping[str, Any], now: datetime) -> pa.Table:
    return pa.table(
        {
            "status": ["END"],
            "tx_id": [row["tx_id"]],
            "lsn": pa.nulls(1, pa.int64()),
            "event_count": pa.array([row["event_count"]], pa.int64()),
            "source_ts": pa.array([row["source_ts"]], pa.timestamp("us", tz="UTC")),
            "__ingested_at": pa.array([now], pa.timestamp("us", tz="UTC")),
        }
    )
