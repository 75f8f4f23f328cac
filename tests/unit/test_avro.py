"""What was written in Avro reads as what Connect's JSON converter would have written, to the letter."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_lake.decode.avro import AvroCodec
from cdc_lake.decode.codecs import UnreadableError
from tests.registry_world import avro_bytes, avro_of, avro_value

SLOWLY = settings(deadline=None, max_examples=50)
RECORDED = json.loads((Path(__file__).parent / "data" / "type_events.json").read_text(encoding="utf-8"))["values"]


def codec(schema: Any, *references: Any, unescape: bool = False) -> AvroCodec:
    named = tuple((str(i), json.dumps(one)) for i, one in enumerate(references))
    return AvroCodec(json.dumps(schema), named, unescape=unescape)


def record(*fields: tuple[str, Any], name: str = "r", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields], **more}


def read(schema: Any, value: Any, *references: Any) -> str | None:
    return codec(schema, *references).payload(avro_bytes(schema, value))


@pytest.mark.parametrize("kind", [k for k, event in RECORDED.items() if event["field"] is not None])
def test_each_recorded_type_comes_back_as_json_had_it(kind: str) -> None:
    event = RECORDED[kind]
    row = {"type": "struct", "optional": False, "name": "pos.public.t.Value", "fields": [event["field"]]}
    schema = avro_of(row)
    there = codec(schema)
    # The order of two keys is all that may differ: the converter writes them in that of a hash table.
    assert json.loads(there.definition) == {**row, "fields": [event["field"]]}
    for value in (*event["snapshot"], *event["stream"]):
        text = there.payload(avro_bytes(schema, avro_value(row, {"v": value})))
        assert text is not None
        back = json.loads(text)
        assert back == {"v": value}
        # A float that is zero below nothing equals one above it.
        assert [str(v) for v in back.values()] == [str(json.loads(json.dumps(value)))]


def test_the_definition_is_written_as_the_json_converter_writes_it() -> None:
    """So that a topic which changes its format has the same version of its schema before and behind that."""
    connect = (
        '{"type":"struct","fields":[{"type":"int32","optional":false,"default":0,"field":"id"},'
        '{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,'
        '"parameters":{"scale":"2","connect.decimal.precision":"10"},"field":"price"},'
        '{"type":"array","items":{"type":"string","optional":true},"optional":true,"field":"tags"},'
        '{"type":"int16","optional":true,"parameters":{"__debezium.source.column.type":"INT2"},"field":"n"}],'
        '"optional":false,"name":"pos.public.t.Value"}'
    )
    assert codec(avro_of(json.loads(connect))).definition == connect


def test_decimals_and_binary_are_the_bytes_that_they_were() -> None:
    schema = record(
        ("d", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}),
        ("f", {"type": "fixed", "name": "f", "size": 3}),
    )
    unscaled = (-12345).to_bytes(2, signed=True)
    text = read(schema, {"d": unscaled, "f": b"\0\xff\x10"})
    assert json.loads(text or "") == {"d": base64.b64encode(unscaled).decode(), "f": "AP8Q"}


@SLOWLY
@given(st.floats(width=32))
def test_a_float_of_32_bits_is_written_as_shortly_as_it_can_be(number: float) -> None:
    text = read(record(("v", "float")), {"v": number})
    found = json.loads(text or "")["v"]
    if math.isfinite(number):
        assert np.float32(found) == np.float32(number)
        assert len(repr(found)) <= max(len(repr(number)), len("1.4e-45") + (number < 0))
    else:
        assert found == {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(number)]


@SLOWLY
@given(st.floats())
def test_a_double_is_itself_and_what_json_has_no_number_for_is_text(number: float) -> None:
    found = json.loads(read(record(("v", ["null", "double"])), {"v": number}) or "")["v"]
    assert found == number if math.isfinite(number) else found in ("NaN", "Infinity", "-Infinity")


@SLOWLY
@given(st.text())
def test_text_is_escaped_as_java_escapes_it(text: str) -> None:
    found = read(record(("v", "string")), {"v": text})
    assert found is not None
    assert json.loads(found) == {"v": text}
    assert not any(f"\\u00{code:02x}" in found.replace("\\\\", "") for code in (0x1A, 0x1B, 0x1F))


def test_a_map_with_keys_that_are_no_texts_is_a_list_of_pairs() -> None:
    entry = record(("key", "int"), ("value", "float"), name="MapEntry", namespace="io.confluent.connect.avro")
    schema = record(("m", {"type": "array", "items": entry}))
    there = codec(schema)
    assert there.payload(avro_bytes(schema, {"m": [{"key": 1, "value": 0.5}]})) == '{"m":[[1,0.5]]}'
    (field,) = json.loads(there.definition)["fields"]
    assert field["type"] == "map"
    assert field["keys"]["type"] == "int32"


def test_types_are_found_by_name_in_their_namespace_and_in_references() -> None:
    money = record(("cents", "long"), name="Money", namespace="shop.types")
    schema = record(
        ("a", record(("b", ["null", "Inner"]), ("c", record(("x", "int"), name="Inner")), name="Outer")),
        ("total", "shop.types.Money"),
        ("tax", ["null", "shop.types.Money"]),
        namespace="shop",
    )
    schema["fields"][0]["type"]["fields"].reverse()
    body = avro_bytes([money, schema], {"a": {"c": {"x": 1}, "b": None}, "total": {"cents": 5}, "tax": None})
    union_place = 1
    assert body[:union_place] == b"\x02"
    text = codec(schema, money).payload(body[union_place:])
    assert text == '{"a":{"c":{"x":1},"b":null},"total":{"cents":5},"tax":null}'


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (record(("u", ["int", "string"])), "union"),
        (record(("u", "nobody.Knows")), "nobody.Knows"),
        (record(("u", ["null", "r"])), "within itself"),
        ("nothing", "nothing"),
    ],
)
def test_a_schema_that_connect_has_no_word_for_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(UnreadableError, match=words) as refused:
        codec(schema)
    assert refused.value.error_class == "unsupported_schema"


@pytest.mark.parametrize("text", ["", "[", "{}", '{"type":"record"}', '{"type":"record","name":"r","fields":[7]}'])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        AvroCodec(text)


@SLOWLY
@given(st.binary(max_size=30))
def test_bytes_that_are_no_record_never_pass_for_one(body: bytes) -> None:
    schema = record(("id", "long"), ("note", ["null", "string"]), ("more", {"type": "array", "items": "double"}))
    there = codec(schema)
    try:
        text = there.payload(body)
    except UnreadableError as error:
        assert error.error_class == "not_its_schema"  # noqa: PT017
        return
    json.loads(text or "null")


def test_a_record_cut_short_or_with_bytes_behind_it_is_refused() -> None:
    schema = record(("id", "long"), ("note", "string"))
    body, there = avro_bytes(schema, {"id": 300, "note": "twelve chars"}), codec(schema)
    for wrong in (body[:-1], body + b"\0", body[:1], b""):
        with pytest.raises(UnreadableError):
            there.payload(wrong)


def test_names_that_debezium_escaped_are_the_sources_again() -> None:
    schema = record(("Order_u0020_u00e9", "int"), ("_ud83d_ude00", "int"), ("a_u005fb", "int"))
    there = codec(schema, unescape=True)
    body = avro_bytes(schema, {"Order_u0020_u00e9": 1, "_ud83d_ude00": 2, "a_u005fb": 3})
    assert there.payload(body) == '{"Order é":1,"😀":2,"a_b":3}'
    assert [f["field"] for f in json.loads(there.definition)["fields"]] == ["Order é", "😀", "a_b"]
    assert "_u0020" in (codec(schema).payload(body) or "")


LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "int8"},
        {"type": "int16"},
        {"type": "int32", "name": "io.debezium.time.Date", "version": 1},
        {"type": "int64", "name": "io.debezium.time.MicroTimestamp", "version": 1},
        {"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp", "version": 1},
        {"type": "double"},
        {"type": "float"},
        {"type": "bytes"},
        {"type": "string", "parameters": {"allowed": "a,b"}, "name": "io.debezium.data.Enum", "version": 1},
    ]
)


def _optional(pair: tuple[dict[str, Any], bool]) -> dict[str, Any]:
    return {**pair[0], "optional": pair[1]}


SCHEMAS = st.recursive(
    st.tuples(LEAVES, st.booleans()).map(_optional),
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "optional": False}),
        inner.map(
            lambda values: {
                "type": "map",
                "keys": {"type": "string", "optional": False},
                "values": values,
                "optional": True,
            }
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda fields: {"type": "struct", "optional": True, "all": fields}),
    ),
    max_leaves=6,
)
_RANGES = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


def named(schema: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
    """With a name for each struct, as each of Debezium's has one."""
    schema = dict(schema)
    for part in ("items", "values"):
        if part in schema:
            schema[part] = named(schema[part], numbers)
    if "all" in schema:
        numbers.append(len(numbers))
        schema["name"] = f"s.t{len(numbers)}"
        schema["fields"] = [{**named(f, numbers), "field": f"f{i}"} for i, f in enumerate(schema.pop("all"))]
    return schema


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    kind = schema["type"]
    found: st.SearchStrategy[Any]
    if kind in _RANGES:
        found = st.integers(-(2 ** _RANGES[kind]), 2 ** _RANGES[kind] - 1)
    elif kind in ("double", "float"):
        found = st.floats(allow_nan=False, allow_infinity=False, width=32 if kind == "float" else 64)
    elif kind == "struct":
        found = st.fixed_dictionaries({f["field"]: values(f) for f in schema["fields"]})
    elif kind == "array":
        found = st.lists(values(schema["items"]), max_size=3)
    elif kind == "map":
        found = st.dictionaries(st.text(max_size=3), values(schema["values"]), max_size=2)
    else:
        found = {
            "boolean": st.booleans(),
            "string": st.text(max_size=5),
            "bytes": st.binary(max_size=5).map(lambda b: base64.b64encode(b).decode()),
        }[kind]
    return st.none() | found if schema["optional"] else found


@SLOWLY
@given(st.data())
def test_any_connect_data_survives_the_way_through_avro(data: st.DataObject) -> None:
    fields = data.draw(st.lists(SCHEMAS, min_size=1, max_size=4))
    row = named({"type": "struct", "optional": False, "all": fields}, [])
    value = data.draw(values(row))
    schema = avro_of(row)
    there = codec(schema)
    assert json.loads(there.definition) == row
    text = there.payload(avro_bytes(schema, avro_value(row, value)))
    assert _rounded(row, json.loads(text or "null")) == _rounded(row, value)


def _rounded(schema: dict[str, Any], value: Any) -> Any:
    """With floats of 32 bits as such: their text is shorter than that of the double that holds them."""
    if value is None:
        return None
    match schema["type"]:
        case "float":
            return float(np.float32(value))
        case "struct":
            return {f["field"]: _rounded(f, value[f["field"]]) for f in schema["fields"]}
        case "array":
            return [_rounded(schema["items"], one) for one in value]
        case "map":
            return {k: _rounded(schema["values"], one) for k, one in value.items()}
    return value
