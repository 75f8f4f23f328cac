"""Streaming models and rules over events: by the event's own time, each event once, and beside tables as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from cdc_lake.config_source import Source
from cdc_lake.land.layout import stream_late_path, stream_path
from cdc_lake.query.merged import merge
from cdc_lake.query.placed import open_logs
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.run import Watch, open_connection
from cdc_lake.react.stream.explain import explain
from cdc_lake.react.stream.modelfile import ModelError, load_model, model_files
from cdc_lake.react.stream.replay import replay
from cdc_lake.react.stream.run import Streams
from cdc_lake.react.stream.shape import check
from cdc_lake.react.unread import find_unread
from tests.events import Warehouse, binary
from tests.lakes import end, event, make_sink

MINUTES = """-- window: tumbling 1 minute
-- lateness: 2 minutes
SELECT store_id, window_start, count(*) AS scans, sum(change) AS change
FROM events.scans WHERE type = 'retail.purchase' GROUP BY store_id, window_start
"""
NAMED = """SELECT e.id AS event, e.change, s.name, w.note
FROM events.scans e
LEFT JOIN current.stores s ON s.id = e.store_id
LEFT JOIN current.events.notes w ON w.store_id = e.store_id
"""
TWICE = """title: Store {store_id} returned {count} times
start: beginning
key: [store_id]
streams: {back: {table: events.scans, where: type = 'retail.return'}}
count: {of: back, window: 10 minutes, at_least: 2}
"""
BASE = int(datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp() * 1000)


def write(folder: Path, **models: str) -> None:
    (folder / "streams").mkdir(exist_ok=True)
    for name, text in models.items():
        (folder / "streams" / f"{name}.sql").write_text(text)


def scan(
    warehouse: Warehouse, name: str, minute: float, *, store: int = 3, sent: float | None = None, kind: str = "purchase"
) -> None:
    """A scan at a minute behind ten o'clock, which Kafka takes then or at the minute `sent`."""
    taken = BASE + int((minute if sent is None else sent) * 60_000)
    at = datetime.fromtimestamp((BASE + minute * 60_000) / 1000, UTC).isoformat().replace("+00:00", "Z")
    data = {"store_id": store, "change": -1}
    warehouse.put(binary(name, data, kind=f"retail.{kind}", time=at), partition=store % 2, at=taken)


def streams(warehouse: Warehouse) -> Streams:
    return Streams(warehouse.config, [load_model(f) for f in model_files(warehouse.folder / "streams")])


def rows(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(path).to_pyarrow_table().to_pylist()
    return found


def made(warehouse: Warehouse, model: str, *columns: str) -> list[tuple[Any, ...]]:
    found = rows(stream_path(warehouse.config.lake_uri, "warehouse", model))
    return sorted(tuple(r[c] for c in columns) for r in found)


def replayed_alike(warehouse: Warehouse, name: str) -> bool:
    con = open_connection()
    try:
        logs = open_logs(con, warehouse.config)
        model = load_model(warehouse.folder / "streams" / f"{name}.sql")
        shape = check(con, model, logs)
        found = replay(warehouse.config, merge(con, logs, shape.sources), shape, None, write=False)
        return found.rows > 0 and not found.differs
    finally:
        con.close()


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path)


@pytest.mark.parametrize("step_by_step", [True, False])
def test_windows_of_events_close_by_their_own_time(warehouse: Warehouse, *, step_by_step: bool) -> None:
    write(warehouse.folder, minutes=MINUTES)
    running = streams(warehouse)

    def land() -> None:
        warehouse.land()
        if step_by_step:
            running.round()

    scan(warehouse, "a", 0.1)
    scan(warehouse, "b", 0.9)
    scan(warehouse, "c", 0.2, store=4, kind="return")
    land()
    scan(warehouse, "a", 0.1, sent=1.5)  # sent again
    scan(warehouse, "d", 0.5, sent=2.5)  # late, and in time
    land()
    scan(warehouse, "e", 9)
    scan(warehouse, "f", 3000, sent=9)  # from a clock that is days ahead
    land()
    scan(warehouse, "g", 0.4, sent=9.5)  # too late
    scan(warehouse, "h", 12)
    land()
    running.round(final=True)
    found = made(warehouse, "minutes", "store_id", "scans", "change")
    assert found == [(3, 1, -1), (3, 3, -3)]
    late = rows(stream_late_path(warehouse.config.lake_uri, "warehouse", "minutes"))
    assert sorted((r["why"], json.loads(r["row"])["id"]) for r in late) == [("in the future", "f"), ("late", "g")]
    assert replayed_alike(warehouse, "minutes")


def test_nothing_is_late_because_its_partition_was_read_last(warehouse: Warehouse) -> None:
    write(warehouse.folder, minutes=MINUTES)
    for store in (3, 4, 3, 4):
        for minute in range(0, 90, 2):
            scan(warehouse, f"{store}-{minute}", minute, store=store)
    warehouse.land(max_records=20)
    scan(warehouse, "last", 200)
    warehouse.land()
    streams(warehouse).round(final=True)
    assert sum(scans for _, scans in made(warehouse, "minutes", "store_id", "scans")) == 90
    assert replayed_alike(warehouse, "minutes")


class Stores:
    """A database with the table `stores`, whose changes land when they are told to."""

    def __init__(self, folder: Path) -> None:
        (folder / "connectors").mkdir()
        settings = {"connector.class": "x", "topic.prefix": "pos", "provide.transaction.metadata": "true"}
        (folder / "connectors" / "pos.json").write_text(json.dumps({"name": "pos", "config": settings}))
        source = Source(name="pos", connector="connectors/pos.json")
        self.warehouse = Warehouse(folder, {"retail.scans": 2, "retail.notes": 1}, databases=(source,))
        self.kafka = self.warehouse.kafka
        self.kafka.create_topic("pos.public.stores")
        self.kafka.create_topic("pos.transaction")
        self.number = 0

    def rename(self, name: str, *, row: bool = True) -> None:
        self.number += 1
        tx = f"{self.number:05d}"
        if row:
            self.kafka.produce("pos.public.stores", 0, *event("stores", {"id": 3, "name": name}, op="u", tx=(tx, 1)))
        self.kafka.produce("pos.transaction", 0, *end(tx, {"public.stores": 1}))
        make_sink(self.kafka, self.warehouse.folder).run(until_caught_up=True)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    made = Stores(tmp_path)
    made.warehouse.put(binary("note", {"store_id": 3, "note": "first"}), topic="retail.notes")
    return made


def test_an_event_meets_a_table_as_it_had_landed_then(stores: Stores) -> None:
    warehouse = stores.warehouse
    write(warehouse.folder, named=NAMED)
    stores.rename("North")
    scan(warehouse, "1", 0)
    warehouse.land()
    running = streams(warehouse)
    running.round()
    stores.rename("South")
    stores.rename("East")
    scan(warehouse, "2", 0)
    warehouse.land()
    stores.rename("West")
    running.round(final=True)
    expected = [("1", "North", "first"), ("2", "East", "first")]
    assert made(warehouse, "named", "event", "name", "note") == expected
    assert replayed_alike(warehouse, "named")
    (unread, *_) = [u for u in find_unread(warehouse.config) if u.source == "pos"]
    assert (str(unread.table), unread.position) == ("public.stores", 3)
    con = open_connection()
    shape = check(con, load_model(warehouse.folder / "streams" / "named.sql"), open_logs(con, warehouse.config))
    assert any("as it had landed from pos" in said for _, said in explain(shape))
    con.close()


def test_an_event_waits_for_what_it_meets_to_be_complete(stores: Stores) -> None:
    warehouse = stores.warehouse
    write(warehouse.folder, named=NAMED)
    stores.rename("North")
    scan(warehouse, "1", 0)
    warehouse.land()
    stores.rename("South", row=False)
    scan(warehouse, "2", 0)
    warehouse.land()
    running = streams(warehouse)
    running.round(final=True)
    assert made(warehouse, "named", "event", "name") == [("1", "North")]
    stores.kafka.produce("pos.public.stores", 0, *event("stores", {"id": 3, "name": "South"}, op="u", tx=("00002", 1)))
    make_sink(stores.kafka, warehouse.folder).run(until_caught_up=True)
    running.round(final=True)
    assert made(warehouse, "named", "event", "name") == [("1", "North"), ("2", "South")]


def test_what_has_no_order_is_refused(stores: Stores) -> None:
    warehouse = stores.warehouse
    stores.rename("North")
    scan(warehouse, "1", 0)
    warehouse.land()
    text = """-- within: 1 minute
    SELECT e.id FROM events.scans e JOIN changes.stores s ON s.id = e.store_id JOIN current.stores t ON t.id = s.id"""
    write(warehouse.folder, all=text)
    with duckdb.connect() as con, pytest.raises(ModelError, match="several sources"):
        check(con, load_model(warehouse.folder / "streams" / "all.sql"), open_logs(con, warehouse.config))


def test_events_and_changes_of_a_database_are_joined_by_time(stores: Stores) -> None:
    warehouse = stores.warehouse
    text = """-- within: 10 minutes
    SELECT e.id AS event, s.name FROM events.scans e JOIN changes.stores s ON s.id = e.store_id"""
    write(warehouse.folder, both=text)
    # The database's clock stands at this moment in all of its transactions.
    moment = (1_764_000_000_000 - BASE) / 60_000
    stores.rename("North")
    scan(warehouse, "1", moment + 1)
    scan(warehouse, "2", moment + 20)
    warehouse.land()
    stores.rename("South")
    scan(warehouse, "3", moment + 30)
    warehouse.land()
    running = streams(warehouse)
    running.round(final=True)
    assert made(warehouse, "both", "event", "name") == [("1", "North"), ("1", "South")]
    assert replayed_alike(warehouse, "both")


def test_a_rule_counts_an_event_once_and_by_its_own_time(warehouse: Warehouse) -> None:
    (warehouse.folder / "rules").mkdir()
    (warehouse.folder / "rules" / "twice.yaml").write_text(TWICE)
    scan(warehouse, "a", 0, kind="return")
    scan(warehouse, "a", 0, sent=0.1, kind="return")
    scan(warehouse, "b", 25, sent=25, kind="return")
    scan(warehouse, "c", 60)
    warehouse.land()
    watch = Watch(warehouse.config, load_rules(warehouse.folder / "rules"))
    watch.round(final=True)
    assert warehouse.ask("SELECT count(*) FROM lake.alerts") == [(0,)]
    scan(warehouse, "d", 61, kind="return")
    scan(warehouse, "e", 62, kind="return")
    scan(warehouse, "f", 120)
    warehouse.land()
    watch.round(final=True)
    assert warehouse.ask("SELECT title, evidence_count FROM lake.alerts") == [("Store 3 returned 2 times", 2)]
