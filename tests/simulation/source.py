"""A source and its connector for the simulation: the model of `tests.lake_model`, sent to Kafka as Debezium does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random

from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import TableId
from tests.lake_model import FIELDS, SOURCE, Feed, Row, connect_schema

_VALUE_SCHEMA = connect_schema(FIELDS)
_KEY_SCHEMA = json.dumps({"type": "struct", "fields": [{"field": "id", "type": "int32", "optional": False}]})
TRANSACTIONS = f"{SOURCE}.transaction"


@dataclass
class KafkaFeed(Feed):
    """Records go to Kafka as they come, with what a connector and a broker may do to them, by chance."""

    kafka: MemoryKafka = field(default_factory=MemoryKafka)
    chance: Random = field(default_factory=Random)
    poison: int = 0

    def __post_init__(self) -> None:
        for table in (*self.tables, *self.bags):
            self.kafka.create_topic(f"{SOURCE}.{table}", self.partitions)
        self.kafka.create_topic(TRANSACTIONS)
        self.rows = {t: {} for t in self.tables}
        self.bag_rows = {t: [] for t in self.bags}

    def deliver(self, tx_id: str, events: list[tuple[TableId, Row]], counts: dict[str, int]) -> None:
        """BEGIN, the events, END; now and then a record comes twice, or poison comes with it."""
        self._mark("BEGIN", tx_id, {})
        for table, event in events:
            self.place(table, event)
            if self.chance.random() < 0.1:
                self.place(table, event)
            if self.chance.random() < 0.1:
                self._spoil(table)
        self._mark("END", tx_id, counts)

    def place(self, table: TableId, event: Row) -> None:
        """Send one event; a delete is followed by its tombstone."""
        topic, key = f"{SOURCE}.{table}", event["__key"]
        partition = sum((key or "").encode()) % self.partitions
        headers = [(n, v.encode()) for n, v in json.loads(event["__headers"] or "{}").items()]
        key_bytes = None if key is None else f'{{"schema":{_KEY_SCHEMA},"payload":{key}}}'.encode()
        # LSNs of a transaction's rows lie among those of others: nothing may be told from them.
        lsn = self.chance.randrange(10**6) if event["__tx_id"] else event["__lsn"]
        self.kafka.produce(topic, partition, key_bytes, _value(table, {**event, "__lsn": lsn}), headers=headers)
        if event["__op"] == "d" and key:
            self.kafka.produce(topic, partition, key_bytes, None)
        if self.chance.random() < 0.05:  # the marker of a Kafka transaction, or what compaction took
            self.kafka.skip(topic, partition, self.chance.randint(1, 3))

    def snapshot(self, table: TableId) -> None:
        """A snapshot of a table; perhaps it is torn, and begun again from the start."""
        if self.chance.random() < 0.5:
            whole = self.rows[table]
            self.rows[table] = dict(list(whole.items())[: self.chance.randrange(len(whole) + 1)])
            super().snapshot(table)
            self.rows[table] = whole
        super().snapshot(table)

    def _mark(self, status: str, tx_id: str, counts: dict[str, int]) -> None:
        value = {
            "status": status,
            "id": f"{tx_id}:{1000 + int(tx_id)}",
            "event_count": sum(counts.values()) if status == "END" else None,
            "data_collections": [{"data_collection": t, "event_count": n} for t, n in counts.items()] or None,
            "ts_ms": 1_764_000_000_000 + int(tx_id) * 1000,
        }
        self.kafka.produce(TRANSACTIONS, 0, json.dumps({"id": tx_id}).encode(), json.dumps(value).encode())

    def _spoil(self, table: TableId) -> None:
        self.poison += 1
        partition = self.chance.randrange(self.partitions)
        self.kafka.produce(
            f"{SOURCE}.{table}", partition, b'{"id":0}', self.chance.choice([b"{broken", b"\xff", b"[]"])
        )


def _value(table: TableId, event: Row) -> bytes:
    tx = event["__tx_id"]
    source = {"ts_ms": 1_764_000_000_000, "schema": table.schema, "table": table.name, "lsn": event["__lsn"]}
    source["snapshot"] = event["__snapshot"] or "false"
    transaction = {"id": f"{tx}:{event['__lsn']}", "total_order": event["__tx_order"]} if tx else None
    parts = {
        "before": event["__before"] or "null",
        "after": event["__after"] or "null",
        "source": json.dumps(source),
        "transaction": json.dumps(transaction),
        "op": json.dumps(event["__op"]),
    }
    payload = ",".join(f'"{n}":{v}' for n, v in parts.items())
    return f'{{"schema":{_VALUE_SCHEMA},"payload":{{{payload}}}}}'.encode()
