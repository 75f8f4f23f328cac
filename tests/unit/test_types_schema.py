"""Where schemas come from, what they agree on, and how rows of one are read as another."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.project.limits import caveats, unchanged_as_null, unsent
from cdc_lake.project.pgtypes import PgType, lake_type, parse_propagated, parse_type
from cdc_lake.project.types import (
    TableSchema,
    merged,
    raw_spec,
    schema_from_catalogue,
    schema_from_connect,
    schema_from_images,
    typed_columns,
    unchanged_expression,
)
from cdc_lake.sqltext import literal

TABLE = TableId("public", "orders")


def catalogue(*columns: dict[str, Any], settings: dict[str, str] | None = None) -> TableSchema:
    entry = {"schema": "public", "table": "orders", "columns": [{"typtype": "b", **c} for c in columns]}
    return schema_from_catalogue(entry, settings or {})


def connect(*fields: dict[str, Any], key: str | None = None) -> TableSchema:
    images = [{"type": "struct", "fields": list(fields), "field": name} for name in ("before", "after")]
    return schema_from_connect(TABLE, json.dumps({"type": "struct", "fields": images}), key, {})


def field(name: str, type_: str, semantic: str | None = None, source: str | None = None, **more: str) -> dict[str, Any]:
    parameters = {f"__debezium.source.column.{k}": v for k, v in {"type": source, **more}.items() if v is not None}
    found: dict[str, Any] = {"type": type_, "optional": True, "field": name}
    return {**found, **({"name": semantic} if semantic else {}), **({"parameters": parameters} if source else {})}


def rows(sql_from: TableSchema, *images: Any, target: TableSchema | None = None) -> list[tuple[Any, ...]]:
    """The statement that `cdc_lake.project.types` documents."""
    spec = literal(raw_spec(sql_from))
    columns = ", ".join(typed_columns(sql_from, "__image", target))
    with duckdb.connect() as engine:
        engine.execute("CREATE TABLE changes (__after VARCHAR)")
        engine.executemany("INSERT INTO changes VALUES (?)", [[json.dumps(i)] for i in images])
        found = engine.execute(
            f"SELECT {columns} FROM (SELECT json_transform(__after, {spec}) AS __image, * FROM changes) AS log"
        )
        assert [d[0] for d in found.description or ()] == [c.name for c in (target or sql_from).columns]
        return found.fetchall()


@pytest.mark.parametrize(
    ("spelling", "parsed"),
    [
        ("numeric(10,2)", PgType("numeric", (10, 2))),
        ("numeric(3,-2)", PgType("numeric", (3, -2))),
        ("character varying(20)[]", PgType("character varying", (20,), array=True)),
        ("timestamp(3) with time zone", PgType("timestamp with time zone", (3,))),
        ("interval year to month", PgType("interval")),
        ("interval(3)", PgType("interval", (3,))),
        ("integer[]", PgType("integer", array=True)),
        ('"My (3) type"', PgType('"My (3) type"')),
        ('sales."Order [1]"[]', PgType('sales."Order [1]"', array=True)),
        ("bpchar", PgType("character")),
        ('"char"', PgType('"char"')),
    ],
)
def test_a_spelling_of_the_catalogue_is_understood(spelling: str, parsed: PgType) -> None:
    assert parse_type(spelling) == parsed


@pytest.mark.parametrize(
    "spelling", ["numeric(10,2)", "timestamp(3) with time zone", "character varying(20)[]", "integer"]
)
def test_a_type_is_spelt_as_it_was_read(spelling: str) -> None:
    assert str(parse_type(spelling)) == spelling


@pytest.mark.parametrize(
    ("name", "length", "scale", "spelling"),
    [
        ("NUMERIC", 10, 2, "numeric(10,2)"),
        ("NUMERIC", 0, None, "numeric"),
        ("NUMERIC", 131089, 0, "numeric"),
        ("NUMERIC", 3, 2046, "numeric(3,-2)"),
        ("_INT4", 10, 0, "integer[]"),
        ("SERIAL", 10, 0, "integer"),
        ("VARCHAR", 2147483647, 0, "character varying"),
        ("_VARCHAR", 10, 0, "character varying(10)[]"),
        ("CHAR", 1, 0, '"char"'),
        ("TIMESTAMPTZ", 35, 6, "timestamp with time zone"),
    ],
)
def test_a_propagated_type_is_spelt_as_the_catalogue_spells_it(
    name: str, length: int | None, scale: int | None, spelling: str
) -> None:
    assert str(parse_propagated(name, length, scale)) == spelling


@pytest.mark.parametrize(
    ("spelling", "lake"),
    [
        ("numeric(38,38)", "DECIMAL(38,38)"),
        ("numeric(39,2)", "VARCHAR"),
        ("numeric(3,-2)", "DECIMAL(5,0)"),
        ("numeric(38,-2)", "VARCHAR"),
        ("numeric(2,5)", "DECIMAL(5,5)"),
        ("numeric", "VARCHAR"),
        ("numeric(10,2)[]", "DECIMAL(10,2)[]"),
        ("money", "DECIMAL(19,2)"),
        ("oid", "BIGINT"),
        ("xml", "VARCHAR"),
        ("anything_else", "VARCHAR"),
    ],
)
def test_no_type_is_shown_in_one_that_would_round_it(spelling: str, lake: str) -> None:
    assert lake_type(parse_type(spelling)) == lake


STRANGE = ['a"b', "dot.ted", "new\nline", "😀", "x" * 63, "__op", "__image", "select", "back\\slash", "it's", " ", "v"]


def test_a_column_may_have_any_name() -> None:
    schema = catalogue(*({"name": name, "type": "integer"} for name in STRANGE))
    assert rows(schema, {name: i for i, name in enumerate(STRANGE)}) == [tuple(range(len(STRANGE)))]


def test_columns_that_differ_only_in_case_are_refused_by_name() -> None:
    with pytest.raises(LakeError, match='"Total" and "total"'):
        catalogue({"name": "Total", "type": "integer"}, {"name": "total", "type": "integer"})
    with pytest.raises(LakeError, match='"Total" and "total"'):
        connect(field("Total", "int32"), field("total", "int32"))
    with pytest.raises(LakeError, match='"Total" and "total"'):
        schema_from_images(TABLE, ['{"Total": 1, "total": 2}'], [])


def test_key_columns_come_in_the_order_of_the_key() -> None:
    key = json.dumps({"type": "struct", "fields": [{"field": "b"}, {"field": "a"}]})
    wire = connect(field("a", "int32"), field("b", "int32"), field("c", "int32"), key=key)
    assert [c.name for c in wire.key_columns] == ["b", "a"]
    known = catalogue(
        {"name": "a", "type": "integer", "key_position": 2}, {"name": "b", "type": "integer", "key_position": 1}
    )
    assert [c.name for c in known.key_columns] == ["b", "a"]
    assert wire.columns[0].key_position == known.columns[0].key_position == 2


@pytest.mark.parametrize(
    "schema", ['{"type": "struct", "fields": [{"field": "id", "type": "int32"}]}', "[]", "{", "null"]
)
def test_a_schema_that_is_no_envelope_is_refused(schema: str) -> None:
    with pytest.raises(LakeError) as caught:
        schema_from_connect(TABLE, schema, None, {})
    assert caught.value.code == "not_an_envelope"


def test_without_propagated_types_the_wire_still_tells_what_it_can() -> None:
    wire = connect(
        field("id", "int64"),
        field("price", "string"),
        field("at", "int64", "io.debezium.time.MicroTimestamp"),
        field("ref", "string", "io.debezium.data.Uuid"),
        field("doc", "string", "io.debezium.data.Json"),
        field("photo", "bytes"),
        field("page", "string", "io.debezium.data.Xml"),
        field("attributes", "map"),
    )
    types = [c.lake_type for c in wire.columns]
    assert types == ["BIGINT", "VARCHAR", "TIMESTAMP", "UUID", "JSON", "BLOB", "VARCHAR", "JSON"]


def test_bytes_written_as_text_are_read_in_the_mode_of_the_connector() -> None:
    images = [{"type": "struct", "fields": [field("b", "string", source="BYTEA")], "field": "after"}]
    schema = schema_from_connect(TABLE, json.dumps({"fields": images}), None, {"binary.handling.mode": "hex"})
    assert rows(schema, {"b": "00ff"}) == [(b"\x00\xff",)]


def test_precise_decimals_say_their_own_scale() -> None:
    decimal = {**field("price", "bytes", "org.apache.kafka.connect.data.Decimal"), "parameters": {"scale": "2"}}
    decimal["parameters"]["connect.decimal.precision"] = "10"
    schema = connect(decimal)
    assert schema.columns[0].lake_type == "DECIMAL(10,2)"
    assert [str(v) for (v,) in rows(schema, {"price": "/w=="}, {"price": "AfQ="})] == ["-0.01", "5.00"]


def test_the_catalogue_tells_a_domain_and_a_scale_that_the_wire_leaves_out() -> None:
    wire = connect(field("price", "string"), field("age", "int32"), field("gone", "int32"))
    known = catalogue(
        {"name": "age", "type": "positive", "typtype": "d", "base_type": "integer"},
        {"name": "price", "type": "numeric(10,2)"},
        settings={"decimal.handling.mode": "string"},
    )
    both = merged(wire, known)
    assert [(c.name, c.lake_type) for c in both.columns] == [
        ("age", "VARCHAR"),
        ("price", "DECIMAL(10,2)"),
        ("gone", "INTEGER"),
    ]
    assert [tuple(map(str, row)) for row in rows(both, {"age": 7, "price": "1.50", "gone": 1})] == [("7", "1.50", "1")]


def test_the_wire_decides_how_a_value_was_written_whatever_the_settings_are_now() -> None:
    wire = connect(field("at", "int64", "io.debezium.time.Timestamp", source="TIMESTAMP", length="26", scale="3"))
    known = catalogue({"name": "at", "type": "timestamp without time zone"})
    ((at,),) = rows(merged(wire, known), {"at": 1})
    assert at.microsecond == 1000


@pytest.mark.parametrize(
    ("old", "sent", "new", "shown"),
    [
        (field("v", "int32", source="INT4"), 7, "bigint", 7),
        (field("v", "int32", source="INT4"), 7, "text", "7"),
        (field("v", "int32", source="INT4"), 7, "numeric(10,2)", "7.00"),
        (field("v", "string", source="VARCHAR"), "7", "integer", 7),
        (field("v", "string", source="NUMERIC", length="10", scale="2"), "1.50", "numeric(12,4)", "1.5000"),
        (field("v", "string", source="NUMERIC", length="10", scale="2"), "1.50", "text", "1.50"),
        (
            field("v", "int32", "io.debezium.time.Date", source="DATE"),
            1,
            "timestamp without time zone",
            "1970-01-02 00:00:00",
        ),
        (field("v", "int32", "io.debezium.time.Date", source="DATE"), 1, "text", "1970-01-02"),
        (field("v", "boolean", source="BOOL"), True, "text", "t"),
        (field("v", "string", source="TEXT"), "no number", "integer", None),
    ],
)
def test_a_row_of_an_older_type_reads_in_the_newer(old: dict[str, Any], sent: Any, new: str, shown: Any) -> None:
    target = catalogue({"name": "v", "type": new}, settings={"decimal.handling.mode": "string"})
    for written in (connect(old), merged(connect(old), target)):
        ((value,),) = rows(written, {"v": sent}, target=target)
        assert value == shown or str(value) == shown


def test_a_column_that_a_row_was_written_without_is_null_in_the_newer_schema() -> None:
    target = catalogue({"name": "id", "type": "integer"}, {"name": "added", "type": "integer[]"})
    assert rows(connect(field("id", "int32", source="INT4")), {"id": 1}, target=target) == [(1, None)]


def test_plain_json_shows_the_types_it_has() -> None:
    images = [
        '{"id": 9007199254740993, "price": 1.5, "ok": true, "name": "x", "doc": {"a": 1}, "list": [1], "none": null}',
        '{"id": 2, "price": 2, "mixed": 1}',
        '{"id": 3, "mixed": "x"}',
    ]
    schema = schema_from_images(TABLE, images, ['{"id": 1}'])
    assert {c.name: c.lake_type for c in schema.columns} == {
        "id": "BIGINT",
        "price": "DOUBLE",
        "ok": "BOOLEAN",
        "name": "VARCHAR",
        "doc": "JSON",
        "list": "JSON",
        "none": "VARCHAR",
        "mixed": "VARCHAR",
    }
    assert [c.name for c in schema.key_columns] == ["id"]
    assert rows(schema, json.loads(images[0]))[0] == (9007199254740993, 1.5, True, "x", '{"a":1}', "[1]", None, None)
    assert rows(schema, {"mixed": 1})[0][-1] == "1"


def test_a_virtual_column_is_left_out_with_its_reason() -> None:
    columns = [{"name": "a", "type": "integer"}, {"name": "b", "type": "integer", "generated": "v"}]
    assert [c.name for c in catalogue(*columns).columns] == ["a"]
    assert list(unsent({"columns": columns})) == ["b"]


@pytest.mark.parametrize(
    ("spelling", "as_null"),
    [
        ("text[]", False),
        ("uuid[]", False),
        ("real[]", True),
        ("mood[]", True),
        ("bit(9)", True),
        ("bit(1)", False),
        ("text", False),
    ],
)
def test_it_is_known_which_large_values_arrive_as_null(spelling: str, *, as_null: bool) -> None:
    assert unchanged_as_null(parse_type(spelling)) is as_null
    assert any("REPLICA IDENTITY FULL" in words for words in caveats(spelling)) is as_null


def test_most_types_arrive_without_loss() -> None:
    assert caveats("text") == caveats("numeric(10,2)") == caveats("timestamp with time zone") == ()
    assert "UTC" in caveats("time with time zone")[0]


def test_a_small_fixed_type_can_never_be_unchanged() -> None:
    schema = catalogue(*({"name": t, "type": t} for t in ("integer", "boolean", "date", "uuid", "interval", "point")))
    assert {unchanged_expression(c, "x", "mark") for c in schema.columns} == {None}
