"""Every type, from the real PostgreSQL through the real connector, reads as the source prints it.

`CDC_LAKE_RECORD_TYPES=1` also writes what arrived to tests/unit/data/type_events.json, for the fast tests.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import psycopg
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from cdc_lake.capture.catalogue import read_catalogue
from cdc_lake.capture.connect import ConnectClient
from cdc_lake.connector_file import load_connector
from cdc_lake.project.limits import unchanged_as_null, unsent
from cdc_lake.project.pgtypes import parse_type
from cdc_lake.sqltext import ident
from tests.integration.conftest import RunningStack, wait_for
from tests.type_cases import CASES, LARGE, SETUP, Case
from tests.type_reading import column_of, is_unchanged, printed_and_lossy, schemas

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
CONNECTOR = load_connector(ROOT / "connectors" / "pos.json")
RECORDING = ROOT / "tests" / "unit" / "data" / "type_events.json"
SETTINGS = (
    "binary.handling.mode",
    "decimal.handling.mode",
    "include.unknown.datatypes",
    "interval.handling.mode",
    "time.precision.mode",
    "unavailable.value.placeholder",
)
STREAMED = 1000  # added to the id of the row that is written while the connector streams


def _config(name: str, dsn: str) -> dict[str, str]:
    """The connector of the project for another database, with the events of all tables in one topic."""
    parts = urlsplit(dsn)
    own = ("signal", "heartbeat", "database.sslmode")
    return {
        **{k: v for k, v in CONNECTOR.config.items() if not k.startswith(own)},
        "topic.prefix": name,
        "database.hostname": str(parts.hostname),
        "database.port": str(parts.port),
        "database.dbname": name,
        "database.user": unquote(parts.username or ""),
        "database.password": unquote(parts.password or ""),
        "slot.name": name,
        "publication.name": name,
        "table.include.list": r"public\..*",
        "errors.max.retries": "0",
        "transforms": "one",
        "transforms.one.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.one.regex": rf"{name}\.public\..*",
        "transforms.one.replacement": f"{name}.all",
    }


@contextmanager
def _connector(
    stack: RunningStack, name: str, dsn: str, settings: Mapping[str, str] | None = None
) -> Iterator[ConnectClient]:
    with ConnectClient(stack.connect_url) as client:
        client.put_config(name, {**_config(name, dsn), **(settings or {})})
        try:
            yield client
        finally:
            client.stop(name)
            client.wait(name, lambda status: status is not None and status.reached("STOPPED"), seconds=60)
            client.reset_offsets(name)
            client.delete(name)
            admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap)
            admin.delete_topics([t for t in admin.list_topics() if t.startswith(f"{name}.")])
            admin.close()


@contextmanager
def _database(stack: RunningStack, name: str) -> Iterator[str]:
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {ident(name)}".encode())
        try:
            yield urlsplit(stack.dsn)._replace(path=f"/{name}").geturl()
        finally:
            wait_for(lambda: _slot_gone(admin, name), f"the slot {name} to be dropped")
            admin.execute(f"DROP DATABASE {ident(name)} WITH (FORCE)".encode())


def _slot_gone(admin: psycopg.Connection[Any], name: str) -> bool:
    admin.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active",
        [name],
    )
    left = admin.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [name]).fetchone()
    return left == (0,)


class _Events:
    """Events of the one topic by table and row, in the order they arrived."""

    def __init__(
        self, stack: RunningStack, client: ConnectClient, name: str, read: Callable[[bytes], Any] = json.loads
    ) -> None:
        self._client, self._name, self._read = client, name, read
        self._consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap, enable_auto_commit=False)
        partition = TopicPartition(f"{name}.all", 0)
        wait_for(lambda: self._running() and partition.topic in self._consumer.topics(), partition.topic)
        self._consumer.assign([partition])
        self._consumer.seek_to_beginning(partition)
        self.fields: dict[str, dict[str, Any] | None] = {}
        self.rows: dict[tuple[str, int], list[Any]] = {}
        self.count = 0

    def until(self, count: int) -> None:
        """Read until `count` events have been seen in all."""
        wait_for(lambda: self._poll() >= count, f"{count} events", seconds=180)

    def close(self) -> None:
        self._consumer.close()

    def _running(self) -> bool:
        failure = self._client.status(self._name).failure
        if failure:
            pytest.fail(f"the connector failed: {failure[:2000]}")
        return True

    def _poll(self) -> int:
        self._running()
        for records in self._consumer.poll(timeout_ms=500).values():
            for record in records:
                self._add(self._read(record.value))
        return self.count

    def _add(self, event: dict[str, Any]) -> None:
        self.count += 1
        payload, images = event["payload"], {f["field"]: f for f in event["schema"]["fields"]}
        table = payload["source"]["table"]
        self.fields[table] = next((f for f in images["after"]["fields"] if f["field"] == "v"), None)
        self.rows.setdefault((table, payload["after"]["id"]), []).append(payload["after"].get("v"))


@pytest.fixture(scope="module")
def events(stack: RunningStack) -> dict[str, Any]:
    """What the source prints and what arrived."""
    recorded = record(stack)
    if os.environ.get("CDC_LAKE_RECORD_TYPES"):
        RECORDING.write_text(_one_line_a_type(recorded), encoding="utf-8")
    return recorded


def record(
    stack: RunningStack, settings: Mapping[str, str] | None = None, read: Callable[[bytes], Any] = json.loads
) -> dict[str, Any]:
    """What the source prints and what arrived: `{"values": {type: …}, "large": {type: …}}`. `settings` are more of the
    connector's, `read` makes `{"schema", "payload"}` of a record's value."""
    name = f"types_{uuid.uuid4().hex[:8]}"
    with _database(stack, name) as dsn, psycopg.connect(dsn, autocommit=True) as source:
        source.execute(SETUP)
        source.execute("SET timezone = 'UTC'")
        _create(source, name)
        with _connector(stack, name, dsn, settings) as client:
            client.wait(name, lambda status: status is not None and status.running, seconds=60)
            arrived = _Events(stack, client, name, read)
            total = sum(len(case.values) for case in CASES)
            arrived.until(total)
            _stream(source)
            arrived.until(2 * total + 2 * len(LARGE))
            arrived.close()
        return _recorded(source, dsn, arrived)


def _create(source: psycopg.Connection[Any], name: str) -> None:
    for i, case in enumerate(CASES):
        source.execute(f"CREATE TABLE v{i} (id integer PRIMARY KEY, v {case.type})".encode())
        for j, value in enumerate(case.values):
            source.execute(f"INSERT INTO v{i} VALUES ({j}, {value})".encode())
    for i, large in enumerate(LARGE):
        source.execute(f"CREATE TABLE large{i} (id integer PRIMARY KEY, n integer, v {large})".encode())
        source.execute(f"ALTER TABLE large{i} ALTER v SET STORAGE EXTERNAL".encode())
    source.execute(f"CREATE PUBLICATION {ident(name)} FOR ALL TABLES".encode())


def _stream(source: psycopg.Connection[Any]) -> None:
    for i, case in enumerate(CASES):
        for j, value in enumerate(case.values):
            source.execute(f"INSERT INTO v{i} VALUES ({j + STREAMED}, {value})".encode())
    for i, value in enumerate(LARGE.values()):
        source.execute(f"INSERT INTO large{i} VALUES (0, 1, {value})".encode())
        source.execute(f"UPDATE large{i} SET n = 2".encode())


def _recorded(source: psycopg.Connection[Any], dsn: str, arrived: _Events) -> dict[str, Any]:
    catalogue = {e["table"]: e["columns"][-1] for e in read_catalogue(dsn)}
    values, large = {}, {}
    for i, case in enumerate(CASES):
        # The source's own output function; money is shown as the number it is.
        shown = "v::numeric" if case.type == "money" else "v"
        rows = source.execute(f"SELECT format('%s', {shown}) FROM v{i} ORDER BY id".encode()).fetchall()
        values[case.type] = {
            "column": catalogue[f"v{i}"],
            "field": arrived.fields[f"v{i}"],
            "printed": [row[0] for row in rows[: len(case.values)]],
            "snapshot": [arrived.rows[f"v{i}", j][0] for j in range(len(case.values))],
            "stream": [arrived.rows[f"v{i}", j + STREAMED][0] for j in range(len(case.values))],
        }
    for i, type_ in enumerate(LARGE):
        inserted, updated = arrived.rows[f"large{i}", 0]
        large[type_] = {
            "column": catalogue[f"large{i}"],
            "field": arrived.fields[f"large{i}"],
            "inserted": json.dumps(inserted)[:60],
            "unchanged": updated,
        }
    settings = {k: v for k, v in CONNECTOR.config.items() if k in SETTINGS}
    return {"settings": settings, "values": values, "large": large}


def _one_line_a_type(recorded: dict[str, Any]) -> str:
    parts = []
    for kind, entries in recorded.items():
        lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in entries.items()]
        parts.append(f"{json.dumps(kind)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.type)
@pytest.mark.parametrize("origin", ["connect", "catalogue", "merged"])
def test_a_value_reads_as_the_source_prints_it(
    case: Case, origin: str, events: dict[str, Any], engine: duckdb.DuckDBPyConnection
) -> None:
    event = events["values"][case.type]
    schema = schemas(event, CONNECTOR.config)[origin]
    column = column_of(schema)
    assert (column is not None) == case.sent
    if column is None:
        assert unsent({"columns": [event["column"]]}).keys() == {"v"}
        return
    if (origin, case.type) == ("connect", "blob"):
        return  # bytes of a user's type: the wire cannot tell a domain over bytea from a composite
    for phase, lost in (("snapshot", {*case.lost, *case.lost_in_snapshot}), ("stream", set(case.lost))):
        for i, (printed, lossy, type_) in enumerate(printed_and_lossy(engine, schema, column, event[phase])):
            assert type_ == column.lake_type
            assert (printed == event["printed"][i]) == (i not in lost), (phase, i, printed, event["printed"][i])
            assert not lossy or i in lost


@pytest.mark.parametrize("type_", LARGE)
def test_an_unchanged_large_value_is_recognised_or_known_to_arrive_as_null(
    type_: str, events: dict[str, Any], engine: duckdb.DuckDBPyConnection
) -> None:
    event = events["large"][type_]
    for schema in schemas(event, CONNECTOR.config).values():
        column = column_of(schema)
        assert column is not None
        answer = is_unchanged(engine, schema, column, [event["unchanged"]], CONNECTOR.placeholder)
        if unchanged_as_null(parse_type(column.source_type)):
            assert event["unchanged"] is None
            assert not any(answer or ())
        else:
            assert answer == [True]


def test_the_stack_speaks_the_types_that_were_recorded(events: dict[str, Any]) -> None:
    """The fast tests replay a recording: what the connector sends today must still be that."""
    recorded = json.loads(RECORDING.read_text(encoding="utf-8"))
    assert events["settings"] == recorded["settings"]
    for kind in ("values", "large"):
        for type_, event in recorded[kind].items():
            assert events[kind][type_] == event, type_
