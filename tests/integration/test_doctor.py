"""`cdc-lake doctor` on the real parts: silent about a healthy project; each thing that is broken is named with its fix.

The tests share one project, and each mends what it broke: mostly with the fix that doctor itself printed.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.sqltext import ident
from tests.integration.conftest import RunningStack, _drop_slots, wait_for
from tests.projects import Project, make_project

pytestmark = pytest.mark.stack
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def project(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A captured and landed table in a database of its own."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        admin.execute(f"create database {ident(name)}".encode())
    dsn = urlsplit(stack.dsn)._replace(path=f"/{name}").geturl()
    execute(dsn, "CREATE TABLE goods (id int PRIMARY KEY, name text, price numeric(8,2))")
    execute(dsn, "INSERT INTO goods SELECT i, 'good ' || i, i FROM generate_series(1, 50) i")
    folder = tmp_path_factory.mktemp("doctor") / "project"
    with make_project(folder, dsn, stack.bootstrap, stack.connect_url) as made:
        made.register()
        made.ok("sink", "run", "--until-caught-up")
        yield made
    with psycopg.connect(stack.dsn, autocommit=True) as admin:
        wait_for(lambda: _drop_slots(admin, name), f"the slots of {name} to be dropped")
        admin.execute(f"drop database {ident(name)} with (force)".encode())
        admin.execute(f"drop role if exists {ident(role_of(made))}".encode())


@pytest.fixture
def broker(stack: RunningStack) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap)
    yield admin
    admin.close()


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def role_of(project: Project) -> str:
    return f"cdc_lake_{project.name}"


def goods(project: Project) -> str:
    return f"{project.name}.public.goods"


def listed(project: Project) -> dict[str, Any]:
    """What `tables` says of the table."""
    found = json.loads(project.ok("tables", "--json"))["tables"]
    return next(dict(t) for t in found if t["table"] == "public.goods")


def examine(project: Project, *arguments: str) -> dict[str, dict[str, str]]:
    """Every check by name; the exit code says whether one failed."""
    done = project.run(*arguments, "--json", "doctor")
    assert "Traceback" not in done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    checks = {c["name"]: c for c in document["checks"]}
    assert len(checks) == len(document["checks"])
    fails = [c for c in checks.values() if c["status"] == "FAIL"]
    assert (done.returncode, document["ok"]) == ((3, False) if fails else (0, True)), done.stderr
    return checks


def failing(checks: dict[str, dict[str, str]]) -> set[str]:
    bad = {name: check for name, check in checks.items() if check["status"] == "FAIL"}
    print(*bad.values(), sep="\n")  # shown when the test fails
    return set(bad)


def warning(checks: dict[str, dict[str, str]]) -> set[str]:
    """WARNs, but for the sink's: none runs while the tests do."""
    return {name for name, check in checks.items() if check["status"] == "WARN"} - {"sink.lag"}


def fixed_by_sql(project: Project, fix: str) -> None:
    """Run the statements of a fix, up to the words for a person behind them."""
    execute(project.dsn, *(f"{s};" for s in fix.partition(";   ")[0].split(";") if s.strip()))


def edit(project: Project, settings: dict[str, str]) -> str:
    """Write settings into the connector file; what was there before."""
    file = project.folder / "connectors" / f"{project.name}.json"
    before = file.read_text()
    connector = json.loads(before)
    connector["config"] |= settings
    file.write_text(json.dumps(connector))
    return before


def restore(project: Project, text: str) -> None:
    (project.folder / "connectors" / f"{project.name}.json").write_text(text)


def test_a_healthy_project_has_nothing_to_mend(project: Project) -> None:
    checks = examine(project)
    assert (failing(checks), warning(checks)) == (set(), set())
    assert checks["connector.reads"]["found"] == "changes are read"
    assert checks["slot.reader"]["found"].startswith(f'read by "{role_of(project)}"')
    assert "Debezium 3." in checks["connect.plugin"]["found"]


def test_a_table_that_left_the_publication_is_named_and_register_brings_it_back(project: Project) -> None:
    execute(project.dsn, f"ALTER PUBLICATION {ident(project.name)} DROP TABLE goods")
    checks = examine(project)
    assert failing(checks) == {"publication.tables"}
    assert "public.goods" in checks["publication.tables"]["found"]
    project.ok(*checks["publication.tables"]["fix"].partition("   (")[0].split()[1:])
    assert failing(examine(project)) == set()


def test_a_publication_without_truncate_is_mended_by_the_statement_it_comes_with(project: Project) -> None:
    execute(project.dsn, f"ALTER PUBLICATION {ident(project.name)} SET (publish = 'insert, update, delete')")
    checks = examine(project)
    assert failing(checks) == {"publication.options"}
    assert "TRUNCATE is not published" in checks["publication.options"]["found"]
    fixed_by_sql(project, checks["publication.options"]["fix"])
    assert failing(examine(project)) == set()


def test_a_table_without_identity_and_an_enum_domain_are_mended_by_their_statements(project: Project) -> None:
    execute(
        project.dsn,
        "ALTER TABLE goods REPLICA IDENTITY NOTHING",
        "CREATE SCHEMA aside",
        "CREATE TYPE aside.mood_kind AS ENUM ('good', 'bad')",
        "CREATE DOMAIN aside.mood AS aside.mood_kind",
        "CREATE DOMAIN aside.deep_mood AS aside.mood",
        "CREATE TABLE aside.people (id int PRIMARY KEY, how aside.deep_mood)",
    )
    checks = examine(project)
    assert failing(checks) == {"tables.identity", "source.enum_domains"}
    assert checks["tables.identity"]["found"] == "public.goods has REPLICA IDENTITY NOTHING"
    for name in ("tables.identity", "source.enum_domains"):
        fixed_by_sql(project, checks[name]["fix"])
    assert failing(examine(project)) == set()


def test_columns_that_the_connector_loses_are_named(project: Project) -> None:
    execute(project.dsn, "CREATE TABLE odd (id int PRIMARY KEY, prices money[], flags bit(2000), late int)")
    execute(project.dsn, "ALTER TABLE odd DROP CONSTRAINT odd_pkey, ADD PRIMARY KEY (id) DEFERRABLE")
    try:
        checks = examine(project)
        assert "public.odd.prices" in checks["columns.unsent"]["found"]
        assert checks["columns.unchanged"]["found"] == "public.odd.flags"
        assert "DEFERRABLE" in checks["tables.identity"]["found"]
        assert {"tables.identity", "publication.tables"} <= failing(checks)
        for name in ("tables.identity", "columns.unchanged", "columns.unsent"):
            fixed_by_sql(project, checks[name]["fix"])
        mended = examine(project)
        assert {mended[n]["status"] for n in ("tables.identity", "columns.unchanged", "columns.unsent")} == {"OK"}
    finally:
        execute(project.dsn, "DROP TABLE odd")


def test_a_superuser_and_missing_rights_are_named(project: Project) -> None:
    role = ident(role_of(project))
    execute(project.dsn, f"ALTER ROLE {role} SUPERUSER")
    assert warning(examine(project)) == {"role.superuser"}
    execute(project.dsn, f"ALTER ROLE {role} NOSUPERUSER", f"REVOKE SELECT ON goods FROM {role}")
    checks = examine(project)
    assert failing(checks) == {"role.rights"}
    assert "SELECT on public.goods" in checks["role.rights"]["found"]
    execute(project.dsn, f"GRANT SELECT ON goods TO {role}")
    assert failing(examine(project)) == set()


def test_a_table_that_is_gone_from_the_source_or_was_made_anew_is_named(project: Project) -> None:
    execute(project.dsn, "ALTER TABLE goods RENAME TO goods_before")
    assert listed(project)["note"] == "no longer in the source: its last rows are shown"
    gone = examine(project)["lake.sources"]
    assert (gone["status"], gone["found"]) == ("WARN", "no longer in the source: public.goods")
    execute(project.dsn, "CREATE TABLE goods (LIKE goods_before INCLUDING ALL)")
    anew = examine(project)["lake.sources"]
    assert (anew["status"], anew["found"]) == ("WARN", "dropped and made anew in the source: public.goods")
    assert anew["fix"].endswith("cdc-lake verify --repair public.goods")
    assert listed(project)["next"] == "cdc-lake verify --repair public.goods"
    execute(project.dsn, "DROP TABLE goods", "ALTER TABLE goods_before RENAME TO goods")
    checks = examine(project)
    assert (failing(checks), warning(checks)) == (set(), set())


def test_a_wrong_setting_is_named_in_the_file_and_in_what_runs(project: Project, stack: RunningStack) -> None:
    before = edit(project, {"skipped.operations": "t"})
    checks = examine(project)
    assert (failing(checks), warning(checks)) == ({"settings.skipped.operations"}, {"connector.differs"})
    project.register()
    restore(project, before)
    checks = examine(project)
    assert failing(checks) == {"connector.differs"}, "the file is right, and Connect still runs the wrong setting"
    assert "skipped.operations" in checks["connector.differs"]["found"]
    project.ok(*checks["connector.differs"]["fix"].split()[1:])
    assert failing(examine(project)) == set()


def test_a_second_connector_on_the_slot_is_named(project: Project, stack: RunningStack) -> None:
    twin = f"{project.name}_twin"
    with ConnectClient(stack.connect_url) as client:
        config = client.config(project.name)
        assert config is not None
        client.put_config(twin, {**config, "name": twin, "topic.prefix": twin})
        client.stop(twin)
        try:
            checks = examine(project)
            assert failing(checks) == {"slot.connectors"}
            assert twin in checks["slot.connectors"]["found"]
        finally:
            client.delete(twin)


def test_a_paused_connector_and_the_idle_slot_of_a_stopped_one_are_named(project: Project) -> None:
    project.ok("connector", "pause", project.name)
    assert warning(examine(project)) == {"connector.state"}, "a paused task keeps its slot"
    project.ok("connector", "stop", project.name)
    wait_for(lambda: "slot.reader" in warning(examine(project)), "the slot to be left alone")
    checks = examine(project)
    assert warning(checks) == {"connector.state", "slot.reader"}
    project.ok(*checks["connector.state"]["fix"].split()[1:])
    wait_for(lambda: not warning(examine(project)), "the connector to read again")


def test_a_compacted_topic_is_named(project: Project, broker: KafkaAdminClient) -> None:
    def policy(value: str) -> None:
        broker.alter_configs([ConfigResource(ConfigResourceType.TOPIC, goods(project), {"cleanup.policy": value})])

    policy("compact")
    checks = wait_for(lambda: c if warning(c := examine(project)) else None, "the policy to be seen")
    assert checks is not None
    assert warning(checks) == {"topics.cleanup"}
    assert goods(project) in checks["topics.cleanup"]["found"]
    policy("delete")


def test_records_that_grow_old_unlanded_fail_and_become_dead_letters_when_the_sink_comes(
    project: Project, broker: KafkaAdminClient
) -> None:
    topic = f"{project.name}.public.garbage"
    broker.create_topics([NewTopic(topic, 1, 1, topic_configs={"retention.ms": str(7 * DAY_MS)})])
    producer = KafkaProducer(bootstrap_servers=project.bootstrap)
    producer.send(topic, b"no envelope", timestamp_ms=int(time.time() * 1000) - 6 * DAY_MS)
    producer.flush()
    producer.close()
    checks = examine(project)
    assert failing(checks) == {"topics.retention"}
    assert topic in checks["topics.retention"]["found"]
    assert checks["topics.retention"]["fix"].startswith("cdc-lake sink run ")
    project.ok("sink", "run", "--until-caught-up")
    checks = examine(project)
    assert failing(checks) == set()
    assert (warning(checks), checks["lake.dead_letters"]["fix"]) == ({"lake.dead_letters"}, "cdc-lake dlq list")
    project.ok("dlq", "drop", f"{topic}/0/0")
    assert warning(examine(project)) == set()


def test_a_lake_that_cannot_be_written_or_whose_store_overwrites_fails(project: Project) -> None:
    text = (project.folder / "cdc-lake.yaml").read_text()
    (project.folder / "in-the-way").write_text("")
    blocked = project.folder / "blocked.yaml"
    blocked.write_text(text + "lake: {uri: ./in-the-way/lake}\n")
    checks = examine(project, "--config", str(blocked))
    assert "lake.writable" in failing(checks)
    assert str(project.folder / "in-the-way" / "lake") in checks["lake.writable"]["fix"]
    unsafe = project.folder / "unsafe.yaml"
    unsafe.write_text(text + 'lake: {options: {allow_unsafe_rename: "true"}}\n')
    checks = examine(project, "--config", str(unsafe))
    assert failing(checks) == {"lake.put_if_absent"}
    assert "allow_unsafe_rename" in checks["lake.put_if_absent"]["fix"]


def test_records_that_kafka_deleted_before_they_were_landed_are_named(
    project: Project, broker: KafkaAdminClient
) -> None:
    execute(project.dsn, "UPDATE goods SET price = price + 1")
    tp = TopicPartition(goods(project), 0)

    def end() -> int:
        return int(broker.list_partition_offsets({tp: -1})[tp].offset)

    landed = int(project.query("SELECT max(__offset) AS n FROM changes.public.goods")[0]["n"]) + 1
    wait_for(lambda: end() >= landed + 50, "the changes to arrive in Kafka")
    broker.delete_records({tp: end()})
    checks = examine(project)
    assert failing(checks) == {"topics.expired"}
    assert f"Records {landed} to {end() - 1} of {goods(project)}[0] are gone" in checks["topics.expired"]["found"]
    assert f"cdc-lake sink run --accept-gap {goods(project)}" in checks["topics.expired"]["fix"]


def test_a_topic_that_was_made_anew_with_more_partitions_is_named(project: Project, broker: KafkaAdminClient) -> None:
    broker.delete_topics([goods(project)])
    wait_for(lambda: goods(project) not in broker.list_topics(), "the topic to be gone")
    checks = examine(project)
    assert goods(project) in checks["topics.landed"]["found"]
    broker.create_topics([NewTopic(goods(project), 2, 1)])
    checks = examine(project)
    assert failing(checks) == {"topics.recreated"}
    assert "topics.partitions" in warning(checks)


def test_a_slot_that_is_gone_or_was_made_again_fails_with_the_way_to_begin_anew(project: Project) -> None:
    project.ok("connector", "stop", project.name)
    drop = f"SELECT pg_drop_replication_slot('{project.name}')"

    def dropped() -> bool:
        try:
            execute(project.dsn, drop)
        except psycopg.errors.ObjectInUse:
            return False
        return True

    wait_for(dropped, "the slot to be dropped")
    checks = examine(project)
    assert "slot.exists" in failing(checks)
    assert checks["slot.exists"]["fix"].startswith(f"cdc-lake connector delete {project.name} --drop-slot")
    execute(
        project.dsn,
        "UPDATE goods SET price = price + 1",
        f"SELECT pg_create_logical_replication_slot('{project.name}', 'pgoutput')",
    )
    checks = examine(project)
    assert "slot.exists" not in failing(checks)
    assert "slot.offset" in failing(checks)
    assert "what lies between is lost" in checks["slot.offset"]["why"]
