"""Each check of `doctor` judges facts: what is as it should be is OK, what is not is named with what mends it."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdc_lake import check_machine
from cdc_lake.capture.checks import connector, publication, role, server, settings, slot, tables
from cdc_lake.capture.checks.publication import Captured, PublicationFacts
from cdc_lake.capture.checks.role import RoleFacts
from cdc_lake.capture.checks.server import EnumDomain, ServerFacts
from cdc_lake.capture.checks.slot import SlotFacts
from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.checks.tables import TableFacts
from cdc_lake.capture.connect import ConnectorStatus, TaskStatus
from cdc_lake.capture.health import Health
from cdc_lake.capture.preflight import SourceTable
from cdc_lake.capture.submit import differ
from cdc_lake.checks import Check, Findings, Skipped, Status, size, span
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.consume import check_topics
from cdc_lake.consume.broker import PartitionInfo
from cdc_lake.consume.check_topics import Landed, Unlanded
from cdc_lake.consume.topics import TopicFacts, TopicSettings
from cdc_lake.errors import OffsetsExpired, SourceError, TopicRecreated
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import check_store
from cdc_lake.land.layout import list_tables
from cdc_lake.land.probe import Probe, probe, unsafe_switch
from cdc_lake.local.check_stack import check_stack
from cdc_lake.project.check_columns import check_columns
from cdc_lake.query.check_cut import check_cut

ROOT = Path(__file__).parents[2]
POS = load_connector(ROOT / "connectors" / "pos.json")
SUBJECT = Subject(POS, "connectors/pos.json")
REGISTER = "cdc-lake connector register connectors/pos.json"
ANEW = "cdc-lake connector delete pos --drop-slot"
GIB = 1 << 30


def changed(**config: str | None) -> Subject:
    """pos.json with other settings (dots written as underscores twice); None removes one."""
    given = {k.replace("__", "."): v for k, v in config.items()}
    merged = {**POS.config, **given}
    return Subject(ConnectorFile("pos", {k: v for k, v in merged.items() if v is not None}), "connectors/pos.json")


def by_name(checks: list[Check]) -> dict[str, Check]:
    found = {c.name: c for c in checks}
    assert len(found) == len(checks), "two checks of one name"
    for check in checks:
        assert (check.status is Status.OK) == (check.why == "") == (check.fix == ""), check
    return found


def bad(checks: list[Check]) -> dict[str, Status]:
    return {c.name: c.status for c in by_name(checks).values() if c.status is not Status.OK}


# --- the server

SERVER = ServerFacts("18.1", 180001, "logical", False, False, 20, 3, 20, 2)


def test_a_server_that_can_be_captured_is_ok() -> None:
    assert bad(server.check_server(SERVER, slot_exists=True)) == {}


@pytest.mark.parametrize(
    ("facts", "name", "status", "fix"),
    [
        (
            replace(SERVER, wal_level="replica"),
            "source.wal_level",
            Status.FAIL,
            "ALTER SYSTEM SET wal_level = 'logical';",
        ),
        (replace(SERVER, wal_level="replica", wal_level_pending=True), "source.wal_level", Status.FAIL, "restart"),
        (replace(SERVER, number=120005, version="12.5"), "source.version", Status.FAIL, "pg_upgrade"),
        (replace(SERVER, standby=True), "source.primary", Status.FAIL, "source.dsn"),
        (replace(SERVER, used_slots=20), "source.replication_slots", Status.FAIL, "pg_drop_replication_slot"),
        (replace(SERVER, used_senders=20), "source.wal_senders", Status.WARN, "max_wal_senders = 30"),
        (replace(SERVER, clock=-7.0), "source.clock", Status.WARN, "timedatectl"),
    ],
)
def test_what_is_wrong_with_a_server_is_named(facts: ServerFacts, name: str, status: Status, fix: str) -> None:
    checks = server.check_server(facts, slot_exists=False)
    assert bad(checks) == {name: status}
    assert fix in by_name(checks)[name].fix


def test_no_free_slot_is_no_failure_for_a_connector_that_has_one() -> None:
    full = replace(SERVER, used_slots=20)
    assert bad(server.check_server(full, slot_exists=True)) == {"source.replication_slots": Status.WARN}


def test_a_domain_over_an_enum_comes_with_the_statements_that_remove_it() -> None:
    domain = EnumDomain('"public"."mood"', "mood_kind", (("public", "people", "Mood"),))
    check = by_name(server.check_server(replace(SERVER, enum_domains=(domain,)), slot_exists=True))[
        "source.enum_domains"
    ]
    assert check.status is Status.FAIL
    assert check.fix == (
        'ALTER TABLE "public"."people" ALTER COLUMN "Mood" TYPE mood_kind; DROP DOMAIN "public"."mood";'
    )


# --- the slot

SLOT = SlotFacts("pos", "pgoutput", 42, "cdc_lake_pos", "reserved", "", 1000, 5000, 8 * GIB, 100 * GIB)


def check_slot(facts: SlotFacts) -> list[Check]:
    return slot.check_slot(SUBJECT, facts, database="pos", user="cdc_lake_pos")


def test_a_slot_that_its_connector_reads_is_ok() -> None:
    assert bad(check_slot(SLOT)) == {}


@pytest.mark.parametrize(
    ("facts", "name", "status", "fix"),
    [
        (replace(SLOT, wal_status="lost"), "slot.state", Status.FAIL, ANEW),
        (replace(SLOT, invalidation="wal_removed"), "slot.state", Status.FAIL, ANEW),
        (replace(SLOT, wal_status="unreserved"), "slot.state", Status.FAIL, "max_slot_wal_keep_size"),
        (replace(SLOT, database="other"), "slot.state", Status.FAIL, "slot.name"),
        (replace(SLOT, pid=None, reader=""), "slot.reader", Status.WARN, "cdc-lake connector status pos"),
        (replace(SLOT, reader="somebody"), "slot.reader", Status.FAIL, "pg_terminate_backend(42)"),
        (replace(SLOT, held=5 * GIB), "slot.wal", Status.WARN, "pg_stat_activity"),
        (replace(SLOT, held=7 * GIB), "slot.wal", Status.FAIL, "pg_stat_activity"),
        (replace(SLOT, held=2 * GIB, limit=None), "slot.wal", Status.WARN, "pg_stat_activity"),
        (replace(SLOT, held=GIB // 2, limit=None, free=GIB // 4), "slot.wal", Status.FAIL, "pg_stat_activity"),
        (replace(SLOT, held=GIB, free=GIB // 2), "slot.wal", Status.FAIL, "pg_stat_activity"),
    ],
)
def test_what_is_wrong_with_a_slot_is_named(facts: SlotFacts, name: str, status: Status, fix: str) -> None:
    checks = check_slot(facts)
    assert bad(checks) == {name: status}
    assert fix in by_name(checks)[name].fix


def test_wal_that_an_abandoned_slot_holds_is_freed_by_its_reader_or_by_dropping_it() -> None:
    check = by_name(check_slot(replace(SLOT, pid=None, held=7 * GIB)))["slot.wal"]
    assert "cdc-lake connector restart pos" in check.fix
    assert "pg_drop_replication_slot('cdc_lake_pos')" in check.fix


@pytest.mark.parametrize(("pid", "ahead"), [(None, 1), (42, 1 << 27)])
def test_an_offset_ahead_of_the_source_tells_of_a_restored_backup(pid: int | None, ahead: int) -> None:
    offsets = [{"partition": {"server": "pos"}, "offset": {"lsn_proc": 9000 + ahead}}]
    check = slot.check_offset(SUBJECT, replace(SLOT, pid=pid, now=9000), offsets)
    assert check.status is Status.FAIL
    assert "restored from a backup" in check.why
    assert "a source of its own" in check.fix
    busy = replace(SLOT, now=9000 + ahead - 1)
    assert slot.check_offset(SUBJECT, busy, offsets).status is Status.OK, "it was written to between the two looks"


def test_an_offset_behind_the_slot_fails_and_names_the_gap() -> None:
    offsets = [{"partition": {"server": "pos"}, "offset": {"lsn_proc": 4000}}]
    idle = replace(SLOT, pid=None)
    gap = slot.check_offset(SUBJECT, idle, offsets)
    assert gap.status is Status.FAIL
    assert slot.lsn(4000) in gap.found
    assert slot.lsn(5000) in gap.found
    assert ANEW in gap.fix
    assert slot.check_offset(SUBJECT, SLOT, offsets).status is Status.OK, "a reader has been let in by PostgreSQL"
    assert slot.check_offset(SUBJECT, idle, [{"offset": {"lsn_proc": 5000}}]).status is Status.OK
    assert slot.check_offset(SUBJECT, idle, [{"offset": None}]).status is Status.OK


def test_an_lsn_is_printed_as_postgresql_prints_it() -> None:
    assert slot.lsn(0x1_458C0F40) == "1/458C0F40"


def test_two_connectors_on_one_slot_are_named() -> None:
    server_a = {"database.hostname": "a", "database.port": "5432"}
    mine = ("pos", {**server_a, "slot.name": "cdc_lake_pos"})
    other = ("pos2", {**server_a, "slot.name": "cdc_lake_pos"})
    elsewhere = ("far", {"database.hostname": "b", "database.port": "5432", "slot.name": "cdc_lake_pos"})
    shared = slot.check_sharing(SUBJECT, [mine, other, elsewhere])
    assert shared.status is Status.FAIL
    assert "pos2" in shared.found
    assert "far" not in shared.found
    assert slot.check_sharing(SUBJECT, [mine, elsewhere, ("sink", {"slot.name": "cdc_lake_pos"})]).status is Status.OK


# --- publication, tables, role

ORDERS, ITEMS = TableId("public", "orders"), TableId("public", "items")
HEARTBEAT = TableId("cdc_lake", "heartbeat")
ALL = frozenset({"insert", "update", "delete", "truncate"})
CAPTURED = Captured(
    frozenset({ORDERS, ITEMS}), frozenset({HEARTBEAT}), partitioned=False, generated=False, server=180001
)
PUBLISHED = PublicationFacts(ALL, True, True, False, frozenset({ORDERS, ITEMS, HEARTBEAT}))


def test_a_publication_of_all_that_is_captured_is_ok() -> None:
    assert bad(publication.check_publication(SUBJECT, PUBLISHED, CAPTURED)) == {}


@pytest.mark.parametrize(
    ("facts", "captured", "expected", "fix"),
    [
        (
            replace(PUBLISHED, tables=frozenset({ORDERS, HEARTBEAT})),
            CAPTURED,
            {"publication.tables": Status.FAIL},
            f'{REGISTER}   (it runs ALTER PUBLICATION "cdc_lake_pos" ADD TABLE ONLY "public"."items")',
        ),
        (
            replace(PUBLISHED, tables=PUBLISHED.tables | {TableId("x", "y")}),
            CAPTURED,
            {"publication.others": Status.WARN},
            'ALTER PUBLICATION "cdc_lake_pos" DROP TABLE ONLY "x"."y";',
        ),
        (
            replace(PUBLISHED, operations=ALL - {"truncate"}),
            CAPTURED,
            {"publication.options": Status.FAIL},
            'ALTER PUBLICATION "cdc_lake_pos" SET (publish = ',
        ),
        (replace(PUBLISHED, via_root=False), CAPTURED, {"publication.options": Status.WARN}, "via_partition_root"),
        (
            replace(PUBLISHED, via_root=False),
            replace(CAPTURED, partitioned=True),
            {"publication.options": Status.FAIL},
            "publish_via_partition_root = true",
        ),
        (
            replace(PUBLISHED, generated=False),
            replace(CAPTURED, generated=True),
            {"publication.options": Status.FAIL},
            "publish_generated_columns = stored",
        ),
        (replace(PUBLISHED, generated=False), replace(CAPTURED, server=170002), {}, ""),
        (replace(PUBLISHED, sweeping=True), CAPTURED, {"publication.exists": Status.WARN}, "DROP PUBLICATION"),
        (replace(PUBLISHED, narrowed=(ITEMS,)), CAPTURED, {"publication.filters": Status.WARN}, REGISTER),
    ],
)
def test_what_a_publication_lacks_is_named(
    facts: PublicationFacts, captured: Captured, expected: dict[str, Status], fix: str
) -> None:
    checks = publication.check_publication(SUBJECT, facts, captured)
    assert bad(checks) == expected
    assert all(fix in by_name(checks)[name].fix for name in expected)


def table(name: str = "orders", oid: int = 1, **facts: Any) -> SourceTable:
    usual: dict[str, Any] = {
        "kind": "r", "permanent": True, "identity": "d", "has_key": True, "has_identity_index": False,
        "ancestors": (), "generated_stored": (), "generated_virtual": (),
    }  # fmt: skip
    return SourceTable(id=TableId("public", name), oid=oid, **{**usual, **facts})


def facts_of(*found: SourceTable, **more: Any) -> TableFacts:
    usual: dict[str, Any] = {
        "partitions": (), "unlogged": (), "deferrable": frozenset(), "own": (HEARTBEAT,), "absent": (), "server": 180001
    }  # fmt: skip
    return TableFacts(tables=found, **{**usual, **more})


def test_tables_with_keys_are_ok() -> None:
    assert bad(tables.check_tables(SUBJECT, facts_of(table()))) == {}


@pytest.mark.parametrize(
    ("facts", "name", "status", "found", "fix"),
    [
        (
            facts_of(table(identity="n")), "tables.identity", Status.FAIL, "REPLICA IDENTITY NOTHING",
            'ALTER TABLE "public"."orders" REPLICA IDENTITY DEFAULT;',
        ),
        (
            facts_of(table(has_key=False)), "tables.identity", Status.FAIL, "no primary key",
            'ALTER TABLE "public"."orders" REPLICA IDENTITY FULL;',
        ),
        (
            facts_of(table(has_key=False), deferrable=frozenset({ORDERS})), "tables.identity", Status.FAIL,
            "DEFERRABLE", 'ALTER TABLE "public"."orders" REPLICA IDENTITY FULL;',
        ),
        (
            facts_of(table(kind="p", has_key=False), partitions=(table("part", 2, ancestors=(1,), has_key=False),)),
            "tables.identity", Status.FAIL, "public.part", '"public"."part" REPLICA IDENTITY FULL;',
        ),
        (
            facts_of(table(identity="f", generated_virtual=("v",))), "tables.virtual_columns", Status.FAIL, "orders",
            "REPLICA IDENTITY DEFAULT;",
        ),
        (
            facts_of(table(), unlogged=(table("cache", 3),)), "tables.unlogged", Status.WARN, "public.cache",
            'ALTER TABLE "public"."cache" SET LOGGED;',
        ),
        (
            facts_of(table(generated_stored=("total",)), server=170000), "tables.generated_columns", Status.WARN,
            "public.orders.total", "PostgreSQL 18",
        ),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_captured_whole_is_named(
    facts: TableFacts, name: str, status: Status, found: str, fix: str
) -> None:
    checks = tables.check_tables(SUBJECT, facts)
    assert bad(checks) == {name: status}
    assert found in by_name(checks)[name].found
    assert fix in by_name(checks)[name].fix


def test_a_missing_heartbeat_table_fails() -> None:
    assert tables.check_own(SUBJECT, facts_of(table())).status is Status.OK
    missing = tables.check_own(SUBJECT, facts_of(table(), absent=(HEARTBEAT,)))
    assert (missing.status, missing.fix) == (Status.FAIL, REGISTER)


def test_a_partitioned_table_is_full_only_when_every_partition_is() -> None:
    root = table(kind="p", identity="d")
    full, other = (table(n, oid, ancestors=(1,), identity="f") for n, oid in (("a", 2), ("b", 3)))
    assert facts_of(root, partitions=(full, other)).full == {ORDERS}
    assert facts_of(root, partitions=(full, replace(other, identity="d"))).full == frozenset()


ROLE = RoleFacts("cdc_lake_pos", superuser=False, replication=True, login=True)


def test_a_role_with_least_rights_is_ok_and_anything_else_is_named() -> None:
    assert bad(role.check_role(SUBJECT, ROLE)) == {}
    assert bad(role.check_role(SUBJECT, replace(ROLE, superuser=True))) == {"role.superuser": Status.WARN}
    lame = role.check_role(SUBJECT, replace(ROLE, replication=False))
    assert bad(lame) == {"role.attributes": Status.FAIL}
    assert by_name(lame)["role.attributes"].fix == 'ALTER ROLE "cdc_lake_pos" REPLICATION;'
    grant = 'GRANT SELECT ON "public"."orders" TO "cdc_lake_pos";'
    poor = role.check_role(SUBJECT, replace(ROLE, missing=(("SELECT on public.orders", grant),)))
    assert bad(poor) == {"role.rights": Status.FAIL}
    assert grant in by_name(poor)["role.rights"].fix


# --- columns


def entry(*columns: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "public", "table": "orders", "columns": [{"base_type": None, **c} for c in columns]}


def test_columns_that_are_never_sent_are_named_with_the_statement_that_mends_them() -> None:
    virtual = {"name": "v", "type": "integer", "generated": "v"}
    checks = by_name(check_columns([entry({"name": "prices", "type": "money[]"}, virtual)], frozenset()))
    unsent = checks["columns.unsent"]
    assert unsent.status is Status.WARN
    assert "public.orders.prices" in unsent.found
    assert 'ALTER COLUMN "prices" TYPE text[] USING "prices"::text[];' in unsent.fix
    assert 'DROP COLUMN "v"' in unsent.fix
    assert checks["columns.unchanged"].status is Status.OK


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("text", Status.OK), ("text[]", Status.OK), ("integer[]", Status.OK), ("bytea", Status.OK),
        ("bit(1)", Status.OK), ("bit(9)", Status.WARN), ("bit varying(9)", Status.WARN), ("numeric[]", Status.WARN),
        ("smallint[]", Status.WARN), ("timestamp with time zone[]", Status.WARN), ("uuid[]", Status.OK),
    ],
)  # fmt: skip
def test_columns_whose_unchanged_values_arrive_as_null_want_full_identity(type_: str, status: Status) -> None:
    catalogue = [entry({"name": "x", "type": type_})]
    check = by_name(check_columns(catalogue, frozenset()))["columns.unchanged"]
    assert check.status is status
    if status is Status.WARN:
        assert check.fix == 'ALTER TABLE "public"."orders" REPLICA IDENTITY FULL;'
    assert by_name(check_columns(catalogue, {ORDERS}))["columns.unchanged"].status is Status.OK


# --- settings


def test_the_projects_own_connector_is_as_it_should_be() -> None:
    assert bad(settings.check_settings(SUBJECT)) == {}
    assert settings.worst(POS.config) is Status.OK


@pytest.mark.parametrize(
    ("setting", "value", "status"),
    [
        ("plugin.name", None, Status.FAIL),
        ("skipped.operations", None, Status.FAIL),
        ("skipped.operations", "t", Status.FAIL),
        ("offset.mismatch.strategy", None, Status.FAIL),
        ("slot.drop.on.stop", "true", Status.FAIL),
        ("publication.autocreate.mode", None, Status.WARN),
        ("provide.transaction.metadata", None, Status.WARN),
        ("snapshot.mode", "when_needed", Status.WARN),
        ("heartbeat.interval.ms", None, Status.WARN),
        ("heartbeat.action.query", None, Status.WARN),
        ("decimal.handling.mode", None, Status.WARN),
        ("decimal.handling.mode", "double", Status.FAIL),
        ("interval.handling.mode", None, Status.WARN),
        ("time.precision.mode", "connect", Status.FAIL),
        ("include.unknown.datatypes", None, Status.WARN),
        ("errors.tolerance", "all", Status.FAIL),
        ("event.processing.failure.handling.mode", "skip", Status.FAIL),
        ("value.converter.replace.null.with.default", None, Status.FAIL),
        ("topic.creation.default.cleanup.policy", "compact", Status.WARN),
        ("column.propagate.source.type", None, Status.WARN),
        ("unavailable.value.placeholder", None, Status.WARN),
        ("database.password", "hunter2", Status.FAIL),
    ],
)
def test_a_setting_that_harms_the_lake_is_named_with_what_to_write(
    setting: str, value: str | None, status: Status
) -> None:
    subject = changed(**{setting.replace(".", "__"): value})
    checks = settings.check_settings(subject)
    name = "settings.secrets" if setting == "database.password" else f"settings.{setting}"
    assert bad(checks) == {name: status}
    check = by_name(checks)[name]
    assert f'write "{setting}": ' in check.fix
    assert check.fix.count(REGISTER) == 1
    assert "hunter2" not in str(check)


def test_weaker_promises_without_transaction_metadata_are_told() -> None:
    check = by_name(settings.check_settings(changed(provide__transaction__metadata="false")))
    assert "there is no cut" in check["settings.provide.transaction.metadata"].why


def test_flattened_records_fail() -> None:
    flat = changed(transforms="u", transforms__u__type="io.debezium.transforms.ExtractNewRecordState")
    found = {"settings.transforms": Status.FAIL, "settings.beginnings": Status.WARN}
    assert bad(settings.check_settings(flat)) == found


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("transforms", None),
        ("transforms", "dropBegin"),
        ("predicates.isTransaction.pattern", "("),
        ("topic.prefix", "a.b"),
    ],
)
def test_a_connector_that_may_restart_at_the_beginning_of_a_transaction_is_warned_of(
    setting: str, value: str | None
) -> None:
    subject = changed(**{setting.replace(".", "__"): value})
    check = by_name(settings.check_settings(subject))["settings.beginnings"]
    assert check.status is Status.WARN
    assert str(subject.connector.transaction_topic) in check.fix
    assert REGISTER in check.fix


def test_plain_json_needs_no_propagated_types() -> None:
    plain = changed(column__propagate__source__type=None, value__converter__schemas__enable="false")
    assert bad(settings.check_settings(plain)) == {}


def test_a_converter_that_does_not_replace_nulls_need_not_be_told_so() -> None:
    avro = changed(
        value__converter="io.confluent.connect.avro.AvroConverter", value__converter__replace__null__with__default=None
    )
    assert "settings.value.converter.replace.null.with.default" not in by_name(settings.check_settings(avro))


def test_every_judged_setting_is_explained_beside_the_connector() -> None:
    page = (ROOT / "connectors" / "README.md").read_text(encoding="utf-8")
    assert [r.setting for r in settings._RULES if f"`{r.setting}`" not in page] == []


# --- the connector


def status(state: str, task: str | None = "RUNNING", trace: str = "") -> ConnectorStatus:
    return ConnectorStatus("pos", state, "w", () if task is None else (TaskStatus(0, task, "w", trace),))


def test_a_connector_is_judged_as_connect_and_the_source_see_it() -> None:
    read = Health(status("RUNNING"), connector_slot(42), None)
    assert bad(connector.check_state(read)) == {}
    assert bad(connector.check_state(Health(status("PAUSED", "PAUSED"), None, None))) == {
        "connector.state": Status.WARN
    }
    assert bad(connector.check_state(Health(status("UNASSIGNED", None), None, None))) == {
        "connector.state": Status.WARN
    }
    wrong = SourceError("The slot is gone.", why="Somebody dropped it.", next=ANEW)
    problem = connector.check_state(Health(status("RUNNING"), None, wrong))
    assert bad(problem) == {"connector.reads": Status.FAIL}
    trace = "java.lang.Exception\nCaused by: org.postgresql.util.PSQLException: FATAL: wal_level"
    dead = connector.check_state(Health(status("RUNNING", "FAILED", trace), None, None))
    assert bad(dead) == {"connector.state": Status.FAIL}
    assert "wal_level" in dead[0].fix


def connector_slot(pid: int | None) -> Any:
    from cdc_lake.capture.preflight import Slot

    return Slot("cdc_lake_pos", pid, "pos", "pgoutput", "reserved", 0)


def test_a_running_config_that_loses_data_fails_though_the_file_is_mended() -> None:
    mild = {**POS.config, "poll.interval.ms": "500"}
    harmful = {**POS.config, "skipped.operations": "t"}
    judged = [connector.check_difference(SUBJECT, c, differ(POS.config, c)) for c in (POS.config, mild, harmful)]
    assert [c.status for c in judged] == [Status.OK, Status.WARN, Status.FAIL]
    assert judged[2].fix == REGISTER
    assert "skipped.operations" in judged[2].found


def test_the_plugin_and_its_version_are_judged() -> None:
    class_ = POS.config["connector.class"]
    assert connector.check_plugin(SUBJECT, [{"class": class_, "version": "3.7.0.Final"}]).status is Status.OK
    assert connector.check_plugin(SUBJECT, [{"class": class_, "version": "3.6.3.Final"}]).status is Status.WARN
    assert connector.check_plugin(SUBJECT, [{"class": "other", "version": "1"}]).status is Status.FAIL


# --- topics

TP, TX = TopicPartition("pos.public.orders", 0), TopicPartition("pos.transaction", 0)
INFOS = [PartitionInfo(TP, 10, 110, "id1"), PartitionInfo(TX, 0, 50, "id2")]
KEPT = TopicSettings(frozenset({"delete"}), 604_800_000, None)
TOPICS = TopicFacts("kafka:9092", (4, 3), {TP.topic: KEPT, TX.topic: KEPT}, {TP: 1_000_000})
LANDED = Landed({TP: 110, TX: 50}, {}, (TP.topic, TX.topic), 3.0)


def judge_topics(
    infos: list[PartitionInfo] = INFOS, facts: TopicFacts = TOPICS, landed: Landed = LANDED
) -> list[Check]:
    return check_topics.check_topics(POS, infos, facts, landed)


def test_topics_that_are_landed_are_ok() -> None:
    assert bad(judge_topics()) == {}
    assert check_topics.check_broker(TOPICS).status is Status.OK
    assert check_topics.check_broker(replace(TOPICS, version=(2, 7))).status is Status.WARN


def test_a_compacted_topic_warns_with_the_command_for_it() -> None:
    compact = replace(TOPICS, settings={**TOPICS.settings, TP.topic: replace(KEPT, policies=frozenset({"compact"}))})
    checks = judge_topics(facts=compact)
    assert bad(checks) == {"topics.cleanup": Status.WARN}
    fix = by_name(checks)["topics.cleanup"].fix
    assert f"--bootstrap-server kafka:9092 --alter --entity-type topics --entity-name {TP.topic}" in fix
    assert fix.endswith("cleanup.policy=delete")


def test_topics_that_a_sink_would_stop_at_fail_with_its_own_words() -> None:
    recreated = replace(LANDED, positions={TX: 50}, stopped={TP: TopicRecreated("It is another.", why="w", next="n")})
    assert bad(judge_topics(landed=recreated)) == {"topics.recreated": Status.FAIL}
    expired = replace(LANDED, positions={TX: 50}, stopped={TP: OffsetsExpired("Gone.", why="w", next="n")})
    checks = judge_topics(landed=expired)
    assert bad(checks) == {"topics.expired": Status.FAIL}
    assert by_name(checks)["topics.expired"].fix == "n"


def test_absent_topics_warn() -> None:
    assert bad(judge_topics([], landed=Landed({}))) == {"topics.exist": Status.WARN}
    assert bad(judge_topics(INFOS[:1], landed=Landed({}))) == {"topics.exist": Status.WARN}
    assert bad(judge_topics(INFOS[1:])) == {"topics.landed": Status.WARN}


def test_partitions_that_were_added_warn() -> None:
    more = [*INFOS, PartitionInfo(TopicPartition(TP.topic, 1), 0, 0, "id1")]
    checks = judge_topics(more)
    assert bad(checks) == {"topics.partitions": Status.WARN}
    assert f"{TP.topic} has 2" in by_name(checks)["topics.partitions"].found


@pytest.mark.parametrize(
    ("aged", "filled", "status"),
    [(0.0, 0.1, Status.OK), (0.5, 0.1, Status.WARN), (0.8, 0.0, Status.FAIL), (0.0, 0.9, Status.FAIL)],
)
def test_records_that_kafka_deletes_soon_are_told_in_time(aged: float, filled: float, status: Status) -> None:
    check = check_topics.check_retention([Unlanded(TP.topic, 7, aged, filled)], TOPICS)
    assert check.status is status
    if status is not Status.OK:
        assert check.fix.startswith("cdc-lake sink run")
        assert TP.topic in check.found


class Clockwork:
    """Offsets by time: record `n` was written at `n` hundredths of the retention, the newest now."""

    def offsets_at(self, instants: dict[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        import time

        now = time.time() * 1000
        return {tp: 110 - round((now - at) / 6_048_000) for tp, at in instants.items()}


@pytest.mark.parametrize(("position", "aged"), [(110, None), (100, 0.0), (55, 0.5), (20, 0.8)])
def test_the_age_of_what_waits_is_found_without_reading_it(position: int, aged: float | None) -> None:
    landed = Landed({TP: position, TX: 50})
    found = check_topics.measure(Clockwork(), INFOS, TOPICS, landed)  # type: ignore[arg-type]
    assert [u.aged for u in found] == ([] if aged is None else [aged])


def test_what_waits_is_measured_against_retention_by_size() -> None:
    small = replace(TOPICS, settings={TP.topic: TopicSettings(frozenset({"delete"}), None, 1_000_000)})
    found = check_topics.measure(Clockwork(), INFOS, small, Landed({TP: 60, TX: 50}))  # type: ignore[arg-type]
    assert [(u.records, u.filled) for u in found] == [(50, 0.5)]


def test_waiting_records_beside_a_lake_that_nobody_writes_warn() -> None:
    behind = replace(LANDED, positions={TP: 50, TX: 50})
    assert check_topics.check_lag(INFOS, behind, flush_seconds=5).status is Status.OK
    assert check_topics.check_lag(INFOS, replace(behind, newest_age=120), flush_seconds=5).status is Status.WARN
    assert check_topics.check_lag(INFOS, replace(LANDED, newest_age=1e6), flush_seconds=5).status is Status.OK
    assert check_topics.check_lag(INFOS, Landed({}), flush_seconds=5).fix == "cdc-lake sink run"


# --- the lake


def test_a_local_disk_keeps_two_writers_apart_and_the_probe_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "lake"
    assert probe(str(root), "pos") == Probe()
    assert list(tmp_path.iterdir()) == []
    (root / "pos").mkdir(parents=True)
    assert probe(str(root), "pos") == Probe()
    assert list((root / "pos").iterdir()) == []
    assert list_tables(str(root), "pos") == []


def test_a_store_that_overwrites_commits_is_found_out(tmp_path: Path) -> None:
    options = {"allow_unsafe_rename": "true"}
    found = probe(str(tmp_path / "lake"), "pos", options)
    assert found.doubled
    assert bad(check_store.check_probe("lake", found)) == {"lake.put_if_absent": Status.FAIL}


def test_a_switch_that_lets_commits_overwrite_fails_whatever_the_probe_saw() -> None:
    assert unsafe_switch({"allow_unsafe_rename": "True"}, {}) == "allow_unsafe_rename"
    assert unsafe_switch(None, {"AWS_S3_ALLOW_UNSAFE_RENAME": "1"}) == "AWS_S3_ALLOW_UNSAFE_RENAME"
    assert unsafe_switch({"allow_unsafe_rename": "false", "region": "x"}, {}) == ""
    checks = check_store.check_probe("lake", Probe(), "allow_unsafe_rename")
    assert bad(checks) == {"lake.put_if_absent": Status.FAIL}
    assert "remove allow_unsafe_rename" in by_name(checks)["lake.put_if_absent"].fix


def test_a_lake_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    root = str(tmp_path / "file" / "lake")
    found = probe(root, "pos")
    assert found.error
    checks = check_store.check_probe(root, found)
    assert bad(checks) == {"lake.writable": Status.FAIL}
    assert root in checks[0].found
    assert (tmp_path / "file").read_text() == "in the way"


def test_tables_are_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    from cdc_lake.land import layout

    root = str(tmp_path)
    write_deltalake(layout.dead_letters_path(root, "pos"), pa.table({"id": ["a", "b"]}))
    log = layout.log_path(root, "pos", ORDERS)
    write_deltalake(log, pa.table({"x": [1]}), description='{"topics": ["pos.public.orders"]}')
    found = check_store.read_tables(root, "pos")
    assert bad(check_store.check_tables(found)) == {}
    assert [t.topics for t in found] == [(), ("pos.public.orders",)]
    age = check_store.newest_age(found)
    assert age is not None
    assert 0 <= age < 60
    assert check_store.count_dead_letters(root, "pos") == 2
    write_deltalake(layout.decisions_path(root, "pos"), pa.table({"id": ["a"], "decision": ["dropped"]}))
    assert check_store.count_dead_letters(root, "pos") == 1, "what was decided waits no more"
    dead = check_store.check_dead_letters(2)
    assert (dead.status, dead.fix) == (Status.WARN, "cdc-lake dlq list")
    (Path(log) / "_delta_log" / "00000000000000000000.json").write_text("{")
    checks = check_store.check_tables(check_store.read_tables(root, "pos"))
    assert bad(checks) == {"lake.tables": Status.FAIL}
    assert log in checks[0].found


def test_a_long_delta_log_warns_and_maintenance_is_the_way_out() -> None:
    checks = check_store.check_tables([check_store.TableFacts("a", log_files=9_000, log_bytes=5)])
    assert bad(checks) == {"lake.log_size": Status.WARN}
    assert by_name(checks)["lake.log_size"].fix == "cdc-lake maintain"


def test_a_file_that_no_commit_names_is_named_when_no_writer_can_be_at_work_on_it(tmp_path: Path) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    from cdc_lake.land import layout

    log = Path(layout.log_path(str(tmp_path), "pos", ORDERS))
    for x in range(2):
        write_deltalake(str(log), pa.table({"x": [x]}), mode="overwrite")  # the first one's file waits for vacuum
    (log / "notes é.txt").write_text("mine")
    (log / "part-0.zstd.parquet").write_text("of a writer")
    young = check_store.check_tables(check_store.read_tables(str(tmp_path), "pos"))
    assert bad(young) == {}
    for file in log.iterdir():
        os.utime(file, (1, 1))
    checks = check_store.check_tables(check_store.read_tables(str(tmp_path), "pos"))
    assert bad(checks) == {"lake.strays": Status.WARN}
    found = by_name(checks)["lake.strays"].found
    assert found == f"2 files of no commit, 15 B: {log}/notes é.txt, {log}/part-0.zstd.parquet"
    assert len(list(log.glob("*.*"))) == 4


def test_a_file_that_a_commit_names_and_that_is_gone_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    from cdc_lake.land import layout

    log = Path(layout.log_path(str(tmp_path), "pos", ORDERS))
    for x in range(2):
        write_deltalake(str(log), pa.table({"x": [x]}), mode="append")
    (file, _) = sorted(log.glob("*.parquet"))
    file.unlink()
    checks = check_store.check_tables(check_store.read_tables(str(tmp_path), "pos"))
    assert bad(checks) == {"lake.files": Status.FAIL}
    assert by_name(checks)["lake.files"].found == f"1 file gone: {file}"


@pytest.mark.parametrize(
    ("free", "status"), [(None, Status.OK), (10 * GIB, Status.OK), (GIB, Status.WARN), (1000, Status.FAIL)]
)
def test_a_disk_is_full_before_the_sink_stops(free: int | None, status: Status) -> None:
    assert check_store.check_disk("/lake", free).status is status


CUT: dict[str, Any] = {"position": 5, "tx_id": "7", "age_seconds": 2.0, "waits_for": []}


def test_a_cut_that_stands_says_what_it_waits_for() -> None:
    waits = [{"tx_id": "8", "table": "public.orders", "missing": 2, "expected": 3}]
    assert check_cut(CUT, waiting_records=0).status is Status.OK
    assert check_cut({**CUT, "waits_for": waits}, waiting_records=9).status is Status.OK
    for waiting in (0, None):
        stalled = check_cut({**CUT, "waits_for": waits}, waiting_records=waiting)
        assert stalled.status is Status.WARN
        assert "transaction 8: 2 of 3 events of public.orders" in stalled.found


# --- this machine, the stack, and what findings are


def test_libraries_outside_of_their_bounds_warn() -> None:
    wanted = ["deltalake<2,>=1.6.6", "psycopg[binary]>=3.3", 'confluent-kafka>=2.16; extra == "fast"']
    assert check_machine.judge(wanted, {"deltalake": "1.6.10", "psycopg": "3.3.0"}).status is Status.OK
    old = check_machine.judge(wanted, {"deltalake": "1.6.5", "psycopg": "3.10"})
    assert old.status is Status.WARN
    assert "deltalake 1.6.5" in old.found
    assert "psycopg" not in old.found
    assert check_machine.judge(wanted, {"deltalake": "2.0.0"}).status is Status.WARN
    assert [c.status for c in check_machine.check_versions()] == [Status.OK, Status.OK]


def test_only_embedded_parts_that_are_used_are_judged() -> None:
    parts = {"postgres": {"state": "running"}, "kafka": {"state": "dead"}, "connect": {"state": "stopped"}}
    checks = check_stack(parts, ("postgres", "kafka"))
    assert bad(checks) == {"stack.kafka": Status.FAIL}
    assert checks[1].fix == "cdc-lake up"


def test_findings_carry_their_source() -> None:
    findings = Findings("pos")
    findings.add(Check("a.b", Status.OK, "x"))
    findings.skip(["topics"], "broker.reachable")
    assert findings.checks[0].as_dict()["source"] == "pos"
    assert findings.skipped == [Skipped("topics", "broker.reachable", "pos")]


def test_sizes_and_durations_are_for_people() -> None:
    assert [size(n) for n in (512, 1536, 3 * GIB, 1 << 45)] == ["512 B", "1.5 KiB", "3.0 GiB", "32.0 TiB"]
    assert [span(s) for s in (2, 300, 10_000, 864_000)] == ["2.0 s", "5 min", "3 h", "10 d"]


# --- the page


def test_every_check_is_in_the_table_of_the_docs() -> None:
    page = (ROOT / "docs" / "how-to" / "doctor.md").read_text(encoding="utf-8")
    documented = {name for row in re.findall(r"^\| (`[^|]*) \|", page, re.M) for name in re.findall(r"`([^`]+)`", row)}
    assert documented - {"settings.*"} == check_names()


def check_names() -> set[str]:
    """Every constant in the modules of checks that looks like a check's name."""
    package = ROOT / "cdc_lake"
    files = [
        *(package / "capture" / "checks").glob("*.py"), *package.glob("**/check_*.py"), *package.glob("**/check.py"),
        *(package / "cli").glob("doctor*.py"), *(package / "init").glob("*.py"),
    ]  # fmt: skip
    parts = (
        "machine|stack|connect|connector|source|slot|publication|tables|columns|role|broker|topics|sink|lake|doctor"
        "|traces|lineage|serve|registry"
    )
    constants = {
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    debezium_settings = {"connector.class", "publication.name", "slot.name", "connector.json"}
    return {c for c in constants if re.fullmatch(rf"({parts})\.[a-z_]+", c)} - debezium_settings
