"""A model's rows go to its topic once each, in order, however often a sender starts anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cdc_lake.errors import UnavailableError
from cdc_lake.react.stream.run import table_of
from cdc_lake.react.stream.topic import Record, deliver
from tests.lake_model import Feed, config
from tests.unit.test_rules_run import SALES, go_on
from tests.unit.test_stream_run import streams, write

SENT = "-- topic: shop.low\n-- key: id\nSELECT id, qty, qty / 4 AS share FROM changes.sales WHERE qty > 0\n"


@dataclass
class Memory:
    """A topic in memory. With `away`, it takes nothing; with `forgets`, it no longer knows its position."""

    records: list[Record] = field(default_factory=list)
    transactions: list[int] = field(default_factory=list)
    away: bool = False
    forgets: bool = False

    def position(self) -> int | None:
        return self.transactions[-1] if self.transactions and not self.forgets else None

    def send(self, records: Iterable[Record], position: int) -> None:
        if self.away:
            raise UnavailableError("Kafka is away.")
        self.records += records
        self.transactions.append(position)


def send(folder: Path, topic: Memory, most: int = 3) -> int:
    one = streams(folder)
    one.round(final=True)
    shape = one.running["low"].shape
    return deliver(shape, table_of(config(folder), shape), topic, most=most)


def test_rows_are_sent_once_in_order_as_cloud_events(tmp_path: Path) -> None:
    feed, topic = Feed(tmp_path, (SALES,)), Memory(away=True)
    write(tmp_path, low=SENT)
    go_on(feed, 8)
    with pytest.raises(UnavailableError):
        send(tmp_path, topic)
    topic.away = False
    assert send(tmp_path, topic) == 8
    assert len(topic.transactions) == 3
    assert send(tmp_path, topic) == 0
    topic.forgets = True
    go_on(feed, 2)
    assert send(tmp_path, topic) == 2, "what Kafka forgot is written down"
    keys = [json.loads(key or b"") for key, _, _ in topic.records]
    assert keys == [{"id": 100 + n} for n in range(1, 11)]
    _, value, headers = topic.records[0]
    assert json.loads(value) == {"id": 101, "qty": 7, "share": 1.75}
    known = dict(headers)
    assert (known["ce_specversion"], known["ce_source"]) == (b"1.0", b"/cdc-lake/pos/streams/low")
    assert (known["ce_time"], known["ce_position"]) == (b"2026-11-24T00:01:00.000000Z", b"1")
    assert len({dict(h)["ce_id"] for _, _, h in topic.records}) == 10
