"""The overview counts what has landed and what Kafka still holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, Transaction, write_deltalake

from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land.append import transaction_id
from cdc_lake.land.layout import log_path
from cdc_lake.land.tables import LOG
from cdc_lake.query.overview import overview
from tests.lake_model import SOURCE, config, log_row

ORDERS = TableId("public", "orders")
TOPIC = f"{SOURCE}.{ORDERS}"


def land(folder: Path, rows: int, position: int) -> None:
    table = pa.Table.from_pylist([log_row(ORDERS, "r", i, key={"id": i}, after={"id": i}) for i in range(rows)], LOG)
    landed = Transaction(transaction_id(TopicPartition(TOPIC, 0)), position)
    path = log_path(str(folder / "lake"), SOURCE, ORDERS)
    write_deltalake(path, table, mode="append", commit_properties=CommitProperties(app_transactions=[landed]))


def test_lag_is_what_kafka_holds_behind_the_landed_position(tmp_path: Path) -> None:
    land(tmp_path, 3, position=5)

    (table,) = overview(config(tmp_path), {(TOPIC, 0): 9, ("other", 0): 100})["tables"]
    assert (table["table"], table["rows_landed"], table["lag_records"]) == ("public.orders", 3, 4)
    assert table["lag_seconds"] > 0


def test_a_table_that_is_caught_up_has_no_lag(tmp_path: Path) -> None:
    land(tmp_path, 3, position=5)

    (table,) = overview(config(tmp_path), {(TOPIC, 0): 5})["tables"]
    assert (table["lag_records"], table["lag_seconds"]) == (0, 0)


def test_without_kafka_the_lag_is_not_known_and_the_rest_is(tmp_path: Path) -> None:
    land(tmp_path, 3, position=5)
    found = overview(config(tmp_path))

    assert [(t["rows_landed"], t["lag_records"], t["lag_seconds"]) for t in found["tables"]] == [(3, None, None)]
    assert found["sources"] == [{"name": SOURCE, "tables": 1, "dead_letters": 0}]
    assert (found["cut"]["position"], found["cut"]["waits_for"]) == (0, [])


def test_an_empty_lake_has_an_overview(tmp_path: Path) -> None:
    found = overview(config(tmp_path))

    assert (found["tables"], found["cut"]["tx_id"]) == ([], None)
