"""What is submitted: references filled in, tables named one by one, differences told without secrets."""

from __future__ import annotations

import re

import pytest

from cdc_lake.capture.preflight import Server, SourceTable, Survey, choose_tables
from cdc_lake.capture.submit import differ, fill_in, misspelt, name_tables, table_pattern, unescaped
from cdc_lake.connector_file import ConnectorFile, split_list
from cdc_lake.errors import ConfigError, SourceError
from cdc_lake.events import TableId

SERVER = Server(180001, "logical", False, 10, 0, False)


def table(name: str, *, oid: int = 0, schema: str = "public", **changes: object) -> SourceTable:
    values: dict[str, object] = {
        "id": TableId(schema, name),
        "oid": oid or sum(name.encode()),
        "kind": "r",
        "permanent": True,
        "identity": "d",
        "has_key": True,
        "has_identity_index": False,
        "ancestors": (),
        "generated_stored": (),
        "generated_virtual": (),
    }
    return SourceTable(**{**values, **changes})  # type: ignore[arg-type]


def connector(**settings: str) -> ConnectorFile:
    return ConnectorFile("pos", {"topic.prefix": "pos", **{k.replace("_", "."): v for k, v in settings.items()}})


def test_references_are_filled_in_and_those_of_connect_stay() -> None:
    file = ConnectorFile("pos", {"a": "${dsn:host}:${dsn:port}", "b": "${env:X}", "c": "${capture:password}"})
    values = {"dsn:host": "db", "dsn:port": "5432", "capture:password": "${file:/x:password}"}
    assert fill_in(file, values) == {"a": "db:5432", "b": "${env:X}", "c": "${file:/x:password}"}


def test_a_misspelt_reference_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError) as error:
        fill_in(ConnectorFile("pos", {"a": "${dsn:hots}"}), {"dsn:host": "db"})
    assert error.value.why == 'Did you mean "dsn:host"?'


def test_include_and_exclude_lists_are_applied_together_and_to_whole_names() -> None:
    pool = [table("orders"), table("orders_audit"), table("preorders"), table("ORDERS2")]
    file = connector(table_include_list=r"public\.orders.*", table_exclude_list=r"public\..*_audit")
    tables, _, _ = choose_tables(pool, file)
    assert [t.id.name for t in tables] == ["orders", "ORDERS2"]


def test_partitions_are_kept_out_beside_their_root_and_kept_in_alone() -> None:
    root = table("sales", oid=1, kind="p")
    part = table("sales_24", oid=2, ancestors=(1,))
    tables, partitions, _ = choose_tables([root, part], connector(table_include_list=r"public\.sales.*"))
    assert (tables, partitions) == ([root], [part])
    tables, partitions, _ = choose_tables([root, part], connector(table_include_list=r"public\.sales_24"))
    assert (tables, partitions) == ([part], [])


def test_unlogged_tables_are_told_and_not_captured() -> None:
    tables, _, skipped = choose_tables([table("a"), table("b", permanent=False)], connector())
    assert ([t.id.name for t in tables], [t.id.name for t in skipped]) == (["a"], ["b"])


def test_the_connectors_own_tables_do_not_count_as_captured_tables() -> None:
    file = ConnectorFile("pos", {"heartbeat.action.query": "UPDATE cdc_lake.heartbeat SET beat = now()"})
    with pytest.raises(SourceError, match="No table of the source matches"):
        choose_tables([table("heartbeat", schema="cdc_lake")], file)


def test_a_broken_pattern_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"table\.include\.list"):
        choose_tables([table("a")], connector(table_include_list="public.("))


@pytest.mark.parametrize("name", ["orders", "Order Lines, all", 'a"b', "a.b", "größe", "a$b\\c", "x|y(z)"])
def test_a_pattern_matches_its_table_alone_and_survives_the_list(name: str) -> None:
    pattern = table_pattern(TableId("public", name))
    assert split_list(f"{pattern},{pattern}") == [pattern, pattern]
    assert re.fullmatch(pattern, f"public.{name}")
    assert not re.fullmatch(pattern, f"public.{name}x")
    assert not re.fullmatch(pattern, f"publicx{name}")
    assert unescaped(pattern) == f"public.{name}"


def test_tables_are_named_one_by_one_and_stale_columns_left_out() -> None:
    file = ConnectorFile(
        "pos",
        {
            "table.include.list": r"public\..*,cdc_lake\.signals",
            "table.exclude.list": r"public\.b",
            "signal.data.collection": "cdc_lake.signals",
            "column.exclude.list": r"public\.a\.secret",
        },
    )
    found = Survey(SERVER, None, (table("a"),), (), ((TableId("public", "a"), "total"),), ())
    config = name_tables(file.config, file, found)
    assert config["table.include.list"] == r"public\.a,cdc_lake\.signals"
    assert config["column.exclude.list"] == r"public\.a\.secret,public\.a\.total"
    assert "table.exclude.list" not in config


def test_equal_configs_do_not_differ_whatever_their_order() -> None:
    assert not differ({"a": "1", "b": "2"}, {"name": "pos", "b": "2", "a": "1"})


def test_differences_name_settings_and_hide_secrets() -> None:
    wanted = {"a": "1", "b": "new", "database.password": "${file:/x:password}"}
    found = differ(wanted, {"b": "old", "c": "3", "database.password": "hunter2"})
    assert (found.added, found.removed, found.changed["b"]) == ({"a": "1"}, {"c": "3"}, ("old", "new"))
    assert "hunter2" not in repr(found)
    assert found.changed["database.password"] == ("********", "${file:/x:password}")


def test_misspelt_settings_are_found_and_suggested() -> None:
    config = {"skipped.opertions": "none", "slot.name": "x", "transforms.a.type": "T", "zz.top": "1"}
    assert misspelt(config, {"skipped.operations", "slot.name", "transforms"}) == [
        ("skipped.opertions", 'Did you mean "skipped.operations"?'),
        ("zz.top", ""),
    ]


def test_settings_with_names_of_ones_own_are_not_misspelt() -> None:
    config = {
        "converters": "iso, money",
        "iso.type": "x.Y",
        "topic.creation.default.partitions": "1",
        "producer.override.linger.ms": "5",
        "column.truncate.to.20.chars": "public.a.b",
        "offset.mismatch.strategy": "trust_offset",
    }
    assert misspelt(config, {"converters"}) == []
