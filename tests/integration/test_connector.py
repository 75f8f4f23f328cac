"""`cdc-lake connector` against the real PostgreSQL, Kafka, Connect and Debezium."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.cli.main import main
from cdc_lake.errors import ConnectorError
from cdc_lake.sqltext import ident
from tests.integration.conftest import Database, RunningStack

pytestmark = pytest.mark.stack

POS = Path(__file__).parents[2] / "connectors" / "pos.json"


class Shop:
    """A project folder whose source is a test's own database, captured by a connector of the same name."""

    def __init__(self, stack: RunningStack, database: Database, folder: Path) -> None:
        self.name, self.database, self.stack, self.folder = database.name, database, stack, folder
        self.role = f"cdc_lake_{self.name}"
        self.file = folder / "connectors" / f"{self.name}.json"
        self.file.parent.mkdir()
        self.settings = {
            **json.loads(POS.read_text())["config"],
            "topic.prefix": self.name,
            "slot.name": self.name,
            "publication.name": self.name,
            "heartbeat.interval.ms": "500",
        }
        self.write()
        self.configure()

    def configure(self, **changes: Any) -> None:
        config = {
            "source": {"name": self.name, "dsn": self.database.dsn},
            "kafka": {"bootstrap": self.stack.bootstrap},
            "connect": {"url": self.stack.connect_url},
        }
        (self.folder / "cdc-lake.yaml").write_text(yaml.safe_dump({**config, **changes}))

    def write(self, **changes: str) -> None:
        config = {**self.settings, **{k.replace("_", "."): v for k, v in changes.items()}}
        self.file.write_text(json.dumps({"name": self.name, "config": config}))

    def cli(self, *words: str) -> tuple[int, Any, str]:
        """Exit code, the JSON of stdout and the words of stderr of `cdc-lake --json connector …`."""
        out, err = io.StringIO(), io.StringIO()
        config = str(self.folder / "cdc-lake.yaml")
        # In this process: starting an interpreter for each of many short commands would take most of the time.
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as done:
            main(["--json", "--config", config, "connector", *words])
        answer = json.loads(out.getvalue()) if out.getvalue() else None
        return int(done.value.code or 0), answer, err.getvalue()

    def register(self) -> Any:
        code, answer, words = self.cli("register")
        assert code == 0, f"{answer}\n{words}"
        return answer

    def events(self, table: str) -> list[dict[str, Any]]:
        """Payloads of all events of a table's topic."""
        topic = f"{self.name}.{table}"
        consumer = KafkaConsumer(bootstrap_servers=self.stack.bootstrap, enable_auto_commit=False)
        try:
            parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            if not parts:
                return []
            end = consumer.end_offsets(parts)
            consumer.assign(parts)
            consumer.seek_to_beginning()
            found: list[dict[str, Any]] = []
            while any(consumer.position(p) < end[p] for p in parts):
                for records in consumer.poll(timeout_ms=500).values():
                    found += [{**json.loads(r.value)["payload"], "headers": r.headers} for r in records]
            return found
        finally:
            consumer.close()

    def remove(self) -> None:
        with ConnectClient(self.stack.connect_url) as connect:
            if connect.config(self.name) is not None:
                connect.delete(self.name)
                connect.wait(self.name, lambda status: status is None, seconds=30)
        kafka = KafkaAdminClient(bootstrap_servers=self.stack.bootstrap)
        try:
            mine = [t for t in kafka.list_topics() if self.name in t.split(".")]
            kafka.delete_topics(mine)
        finally:
            kafka.close()
        with self.database.connect() as admin:
            if admin.execute("select 1 from pg_roles where rolname = %s", [self.role]).fetchone():
                admin.execute(f"drop owned by {ident(self.role)}".encode())
        with psycopg.connect(self.stack.dsn, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [self.role])
            admin.execute(f"drop role if exists {ident(self.role)}".encode())


@pytest.fixture
def shop(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Shop]:
    database.execute(
        "create table orders (id int primary key, total numeric(10,2), doubled numeric generated always as (total * 2)"
        " stored, tripled numeric generated always as (total * 3) virtual)",
        "insert into orders select g, g from generate_series(1, 100) g",
    )
    found = Shop(stack, database, tmp_path)
    yield found
    found.remove()


Eventually = Callable[..., Any]


def test_registering_reads_existing_rows_and_changes_and_again_changes_nothing(
    shop: Shop, eventually: Eventually
) -> None:
    first = shop.register()
    assert (first["changed"], first["state"], first["streaming"]) == (True, "RUNNING", True)
    assert any(s.startswith("CREATE PUBLICATION") for s in first["statements"])
    again = shop.register()
    assert (again["changed"], again["statements"], again["difference"]) == (
        False,
        [],
        {"added": {}, "removed": {}, "changed": {}},
    )
    shop.database.execute("update orders set id = 1001, total = 7 where id = 1", "truncate orders")

    def operations() -> list[str]:
        found = [e["op"] for e in shop.events("public.orders")]
        return found if found[-1] == "t" else []

    assert eventually(operations, "the truncate") == ["r"] * 100 + ["d", "c", "t"]
    moved = shop.events("public.orders")[101]
    assert moved["after"] == {"id": 1001, "total": "7.00", "doubled": "14.00"}
    assert moved["headers"] == [("__debezium.oldkey", b'{"id":1}')]


def test_the_heartbeat_moves_the_lake_forward_with_one_row(shop: Shop, eventually: Eventually) -> None:
    shop.register()
    eventually(lambda: len(shop.events("cdc_lake.heartbeat")) >= 3, "three heartbeats")
    with shop.database.connect() as admin:
        assert admin.execute("select count(*) from cdc_lake.heartbeat").fetchone() == (1,)


def test_the_shipped_connector_passes_connects_own_check(shop: Shop) -> None:
    assert shop.cli("validate") == (0, {"file": str(shop.file), "ok": True, "problems": []}, "")
    shop.register()
    code, answer, _ = shop.cli("validate")
    assert (code, answer["problems"]) == (0, [])


def test_the_password_is_in_no_output_and_not_in_connect(shop: Shop) -> None:
    code, answer, words = shop.cli("register")
    assert code == 0
    secrets = shop.folder / ".cdc-lake" / "secrets" / f"{shop.name}.properties"
    password = secrets.read_text().split("password=")[1].strip()
    with ConnectClient(shop.stack.connect_url) as connect:
        config = connect.config(shop.name) or {}
    assert config["database.password"] == f"${{file:{secrets}:password}}"
    assert password not in f"{answer}{words}{config}"


def test_a_rehearsal_prints_the_sql_and_changes_nothing(shop: Shop) -> None:
    code, answer, _ = shop.cli("register", "--dry-run")
    assert (code, answer["state"]) == (0, "ABSENT")
    assert any("CREATE ROLE" in s and "'********'" in s for s in answer["statements"])
    with shop.database.connect() as admin:
        assert admin.execute("select 1 from pg_publication").fetchone() is None
    assert shop.cli("status", shop.name)[0] == 1


def test_a_rehearsal_needs_no_connect(shop: Shop) -> None:
    shop.configure(connect={"url": "http://127.0.0.1:1"})
    code, answer, _ = shop.cli("register", "--dry-run")
    assert (code, answer["state"]) == (0, "UNKNOWN")


def test_without_connect_nothing_is_prepared(shop: Shop) -> None:
    shop.configure(connect={"url": "http://127.0.0.1:1"})
    code, answer, _ = shop.cli("register")
    assert (code, answer["error"]["code"]) == (1, "connect_unavailable")
    with shop.database.connect() as admin:
        assert admin.execute("select 1 from pg_publication").fetchone() is None


def test_a_misspelt_setting_is_refused_before_anything_is_prepared(shop: Shop) -> None:
    shop.write(skipped_opertions="none")
    code, answer, _ = shop.cli("register")
    assert (code, answer["error"]["code"]) == (1, "refused_setting")
    assert 'Did you mean "skipped.operations"?' in answer["error"]["message"]
    with shop.database.connect() as admin:
        assert admin.execute("select 1 from pg_publication").fetchone() is None
    code, answer, _ = shop.cli("validate")
    assert (code, [p["setting"] for p in answer["problems"]]) == (3, ["skipped.opertions"])


def test_a_value_that_connect_refuses_is_told_by_setting(shop: Shop) -> None:
    shop.write(decimal_handling_mode="sting")
    code, answer, _ = shop.cli("register")
    assert (code, "decimal.handling.mode" in answer["error"]["message"]) == (1, True)


def test_files_that_cannot_be_submitted_are_usage_errors(shop: Shop) -> None:
    shop.write(database_password="hunter2")
    code, answer, words = shop.cli("register")
    assert (code, answer["error"]["code"]) == (2, "literal_secret")
    assert "hunter2" not in f"{answer}{words}"
    shop.file.write_text('{"name": "x",')
    code, answer, _ = shop.cli("register")
    assert (code, answer["error"]["code"]) == (2, "not_json")


def test_a_wrong_password_and_a_missing_database_are_told_apart(shop: Shop) -> None:
    dsn = urlsplit(shop.database.dsn)
    for bad, reason in (
        (dsn._replace(netloc=f"postgres:wrong@{dsn.hostname}:{dsn.port}"), "wrong_password"),
        (dsn._replace(path="/nowhere"), "no_database"),
        (dsn._replace(netloc=f"postgres:wrong@{dsn.hostname}:1"), "source_unavailable"),
    ):
        shop.configure(source={"name": shop.name, "dsn": bad.geturl()})
        code, answer, words = shop.cli("register")
        assert (code, answer["error"]["code"]) == (1, reason)
        assert "wrong@" not in f"{answer}{words}"


def test_a_table_without_key_is_refused_with_the_statement(shop: Shop) -> None:
    shop.database.execute("create table log (line text)")
    code, answer, _ = shop.cli("register")
    assert (code, answer["error"]["code"]) == (1, "no_replica_identity")
    assert 'ALTER TABLE "public"."log" REPLICA IDENTITY FULL;' in answer["error"]["next"]


def test_a_new_table_joins_with_the_rows_it_holds(shop: Shop, eventually: Eventually) -> None:
    shop.register()
    shop.database.execute("create table late (id int primary key)", "insert into late values (1), (2)")
    joined = shop.register()
    assert (joined["snapshots"], list(joined["difference"]["changed"])) == (["public.late"], ["table.include.list"])
    eventually(lambda: len(shop.events("public.late")) == 2, "the two rows")


def test_rows_are_read_again_on_request(shop: Shop, eventually: Eventually) -> None:
    shop.register()
    code, answer, _ = shop.cli("snapshot", shop.name, "orders")
    assert (code, answer["tables"]) == (0, ["public.orders"])
    eventually(lambda: len(shop.events("public.orders")) == 200, "the rows for the second time")
    code, answer, _ = shop.cli("snapshot", shop.name, "public.oders")
    assert (code, answer["error"]["why"]) == (2, 'Did you mean "public.orders"?')


def test_a_failed_task_is_told_in_words_and_registering_mends_it(shop: Shop) -> None:
    shop.register()
    shop.database.execute(f"drop publication {ident(shop.name)}")
    code, answer, _ = shop.cli("restart", shop.name)
    assert (code, answer["error"]["code"]) == (1, "no_publication")
    code, answer, _ = shop.cli("status", shop.name)
    assert (code, answer["error"]["code"]) == (3, "no_publication")
    assert shop.register()["streaming"]


def test_trouble_that_connect_calls_running_is_found_in_the_source(shop: Shop) -> None:
    shop.register()
    shop.database.execute(f"alter role {ident(shop.role)} password 'other'")
    code, answer, _ = shop.cli("restart", shop.name)
    assert (code, answer["error"]["code"]) == (1, "wrong_password")
    code, answer, _ = shop.cli("status", shop.name)
    assert (code, answer["state"], answer["error"]["code"]) == (3, "RUNNING", "wrong_password")
    assert shop.register()["streaming"]


def test_a_slot_that_somebody_else_reads_is_told_apart(shop: Shop) -> None:
    shop.register()
    assert shop.cli("stop", shop.name)[0] == 0
    options = f"proto_version '1', publication_names '{shop.name}'"
    reader = psycopg.connect(shop.database.dsn, autocommit=True, replication="database")
    with contextlib.closing(reader) as thief:
        thief.pgconn.send_query(f"START_REPLICATION SLOT {ident(shop.name)} LOGICAL 0/0 ({options})".encode())
        while thief.pgconn.is_busy():
            thief.pgconn.consume_input()
        code, answer, _ = shop.cli("resume", shop.name)
    assert (code, answer["error"]["code"]) == (1, "slot_in_use")


def test_pausing_stopping_and_resuming_are_waited_for(shop: Shop) -> None:
    shop.register()
    for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("stop", "STOPPED")):
        code, answer, words = shop.cli(verb, shop.name)
        assert (code, answer["state"]) == (0, state), words
    assert shop.register()["state"] == "STOPPED"
    code, answer, _ = shop.cli("offsets", shop.name)
    assert (code, answer["offsets"][0]["partition"]) == (0, {"server": shop.name})
    code, answer, _ = shop.cli("offsets", shop.name, "--reset")
    assert (code, answer["offsets"]) == (0, [])


def test_deleting_with_its_slot_allows_a_new_beginning(shop: Shop) -> None:
    shop.register()
    code, answer, _ = shop.cli("delete", shop.name, "--drop-slot")
    assert (code, answer["slot_dropped"]) == (0, True)
    assert any("DROP PUBLICATION" in left["sql"] for left in answer["left"])
    assert shop.register()["streaming"]


def test_deleting_alone_names_the_slot_that_stays(shop: Shop) -> None:
    shop.register()
    code, dry, _ = shop.cli("delete", shop.name, "--dry-run")
    assert (code, dry["deleted"]) == (0, False)
    code, answer, _ = shop.cli("delete", shop.name)
    assert (code, answer["slot_dropped"]) == (0, False)
    assert answer == dry | {"deleted": True}
    assert f"SELECT pg_drop_replication_slot('{shop.name}');" in [left["sql"] for left in answer["left"]]
    assert shop.register()["changed"], "the next registration goes on from the slot"


def test_lists_and_suggestions(shop: Shop) -> None:
    shop.register()
    code, answer, _ = shop.cli("list")
    assert code == 0
    assert {"name": shop.name, "state": "RUNNING"}.items() <= next(c for c in answer if c["name"] == shop.name).items()
    code, answer, _ = shop.cli("status", shop.name + "x")
    assert (code, answer["error"]["why"]) == (1, f'Did you mean "{shop.name}"?')
    code, answer, _ = shop.cli("plugins")
    assert "io.debezium.connector.postgresql.PostgresConnector" in [p["class"] for p in answer]


def test_the_client_refuses_what_connect_refuses(shop: Shop) -> None:
    shop.register()
    with ConnectClient(shop.stack.connect_url) as connect, pytest.raises(ConnectorError, match="refused DELETE"):
        connect.reset_offsets(shop.name)
