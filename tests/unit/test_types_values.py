"""Any value, encoded as the connector encodes it, reads back as itself: nothing is rounded."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import struct
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_lake.project.schema import TableSchema, schema_from_catalogue
from cdc_lake.project.types import lossy_expression, raw_spec
from tests.type_reading import TABLE, column_of, read

_ENGINE = duckdb.connect()
_ENGINE.execute("SET TimeZone = 'UTC'")
MAX_REAL = 3.4028234663852886e38
DAY = 86_400_000_000
EPOCH = dt.datetime(1970, 1, 1)
STRING_MODES = {"decimal.handling.mode": "string", "interval.handling.mode": "string"}

many = settings(max_examples=30, deadline=None)


def schema_of(type_: str, modes: dict[str, str] | None = None) -> TableSchema:
    """A table with the one column `v`."""
    entry = {"schema": TABLE.schema, "table": TABLE.name, "columns": [{"name": "v", "type": type_, "typtype": "b"}]}
    return schema_from_catalogue(entry, modes or {})


def read_back(type_: str, sent: Sequence[Any], modes: dict[str, str] | None = None, sql: str = "{typed}") -> list[Any]:
    """What the lake shows for values as they were sent."""
    schema = schema_of(type_, modes)
    column = column_of(schema)
    assert column is not None
    return read(_ENGINE, schema, column, sent, sql)


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def big_endian(number: int) -> bytes:
    """Java's BigInteger.toByteArray."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


integers = {"smallint": 15, "integer": 31, "bigint": 63}


@pytest.mark.parametrize("type_", integers)
@many
@given(data=st.data())
def test_an_integer_is_exact(type_: str, data: st.DataObject) -> None:
    bound = 2 ** integers[type_]
    sent = data.draw(st.lists(st.integers(-bound, bound - 1), min_size=1))
    assert read_back(type_, sent) == sent
    assert read_back(f"{type_}[]", [[*sent, None]]) == [[*sent, None]]


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    context = Context(prec=60)
    return st.integers(-(10**precision) + 1, 10**precision - 1).map(lambda n: Decimal(n).scaleb(-scale, context))


shapes = [(10, 2), (38, 0), (38, 38), (38, 10), (1, 0), (18, 4), (19, 4)]


@pytest.mark.parametrize(("precision", "scale"), shapes)
@many
@given(data=st.data())
def test_a_decimal_is_exact_in_every_mode_that_keeps_it(precision: int, scale: int, data: st.DataObject) -> None:
    sent = data.draw(st.lists(decimals(precision, scale), min_size=1))
    type_ = f"numeric({precision},{scale})"
    assert read_back(type_, [f"{d:f}" for d in sent], STRING_MODES) == sent
    assert read_back(f"{type_}[]", [[f"{d:f}" for d in sent]], STRING_MODES) == [sent]
    unscaled = [int(d.scaleb(scale, Context(prec=60))) for d in sent]
    assert read_back(type_, [in_base64(big_endian(n)) for n in unscaled], {}) == sent


@many
@given(st.lists(st.tuples(st.integers(-(2**120), 2**120), st.integers(0, 40)), min_size=1))
def test_a_numeric_without_scale_is_exact_text(numbers: list[tuple[int, int]]) -> None:
    texts = [f"{Decimal(n).scaleb(-s, Context(prec=60)):f}" for n, s in numbers]
    assert read_back("numeric", texts, STRING_MODES) == texts
    variable = [{"scale": s, "value": in_base64(big_endian(n))} for n, s in numbers]
    assert [Decimal(t) for t in read_back("numeric", variable)] == [Decimal(t) for t in texts]


@many
@given(st.lists(st.floats(), min_size=1))
def test_a_double_is_exact_with_infinities_and_nan(sent: list[float]) -> None:
    assert [repr(v) for v in read_back("double precision", _floats(sent))] == [repr(v) for v in sent]


@many
@given(st.lists(st.floats(width=32), min_size=1))
def test_a_real_is_exact(sent: list[float]) -> None:
    shortest = [_shortest(v) for v in sent]
    got = read_back("real", _floats(shortest))
    assert [struct.pack("<f", v) for v in got if not math.isnan(v)] == [
        struct.pack("<f", v) for v in sent if not math.isnan(v)
    ]


def _floats(values: list[float]) -> list[Any]:
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return ["NaN" if math.isnan(v) else names.get(v, v) for v in values]


def _shortest(value: float) -> float:
    """The decimal text of a 32-bit float as Java writes it: the fewest digits that give it back."""
    if not math.isfinite(value):
        return value
    for digits in range(1, 18):
        text = f"{value:.{digits}g}"
        if abs(float(text)) <= MAX_REAL and struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
            return float(text)
    return value


@many
@given(st.lists(st.text(), min_size=1))
def test_text_is_exact(sent: list[str]) -> None:
    assert read_back("text", sent) == sent
    assert read_back("text[]", [[*sent, None]]) == [[*sent, None]]


@many
@given(st.lists(st.binary(), min_size=1))
def test_bytes_are_exact_in_every_mode(sent: list[bytes]) -> None:
    assert read_back("bytea", [in_base64(b) for b in sent]) == sent
    assert read_back("bytea", [b.hex() for b in sent], {"binary.handling.mode": "hex"}) == sent
    safe = [base64.urlsafe_b64encode(b).decode() for b in sent]
    assert read_back("bytea", safe, {"binary.handling.mode": "base64-url-safe"}) == sent
    assert read_back("bytea[]", [[in_base64(b) for b in sent]]) == [sent]


@many
@given(st.lists(st.uuids(), min_size=1))
def test_a_uuid_is_exact(sent: list[UUID]) -> None:
    assert read_back("uuid", [str(u) for u in sent]) == sent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@many
@given(st.lists(json_values.map(lambda v: json.dumps(v, ensure_ascii=False)), min_size=1))
def test_json_keeps_its_text(sent: list[str]) -> None:
    assert read_back("jsonb", sent) == sent
    assert read_back("json[]", [sent]) == [sent]


@many
@given(st.lists(st.dates(), min_size=1))
def test_a_date_is_exact(sent: list[dt.date]) -> None:
    assert read_back("date", [(d - EPOCH.date()).days for d in sent]) == sent
    assert read_back("date", [d.isoformat() for d in sent], {"time.precision.mode": "isostring"}) == sent


def _micros(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


@many
@given(st.lists(st.datetimes(), min_size=1))
def test_a_timestamp_is_exact_to_the_microsecond(sent: list[dt.datetime]) -> None:
    assert read_back("timestamp without time zone", [_micros(m) for m in sent]) == sent
    nanoseconds = {"time.precision.mode": "nanoseconds"}
    recent = [m for m in sent if 1700 < m.year < 2200]
    assert read_back("timestamp without time zone", [_micros(m) * 1000 for m in recent], nanoseconds) == recent
    millis = [m.replace(microsecond=m.microsecond // 1000 * 1000) for m in sent]
    assert read_back("timestamp(3) without time zone", [_micros(m) // 1000 for m in millis]) == millis


@many
@given(st.lists(st.integers(-210866803200000000, 9223372036825199999), min_size=1))
def test_a_timestamp_of_any_year_is_exact(sent: list[int]) -> None:
    assert read_back("timestamp without time zone", sent, sql="epoch_us({typed})") == sent


@many
@given(st.lists(st.datetimes(), min_size=1))
def test_a_timestamp_with_zone_is_exact(sent: list[dt.datetime]) -> None:
    texts = [m.isoformat(timespec="microseconds") + "Z" for m in sent]
    got = read_back("timestamp with time zone", texts, sql="epoch_us({typed})")
    assert got == [_micros(m) for m in sent]


@many
@given(st.lists(st.integers(0, DAY), min_size=1))
def test_a_time_is_exact_to_the_end_of_the_day(sent: list[int]) -> None:
    assert read_back("time without time zone", sent, sql="epoch_us({typed})") == sent
    assert (
        read_back(
            "time without time zone",
            [t * 1000 for t in sent],
            {"time.precision.mode": "nanoseconds"},
            sql="epoch_us({typed})",
        )
        == sent
    )


# The connector cuts an interval of 2^31 hours or more; PostgreSQL itself ends at 178 million years.
parts = st.integers(-10_000, 10_000)


@many
@given(st.lists(st.tuples(parts, parts, parts, parts, parts, st.integers(-59_999_999, 59_999_999)), min_size=1))
def test_an_interval_keeps_months_days_and_microseconds_apart(sent: list[tuple[int, ...]]) -> None:
    texts = [f"P{y}Y{mo}M{d}DT{h}H{mi}M{Decimal(us) / 1_000_000:f}S" for y, mo, d, h, mi, us in sent]
    sql = (
        "datepart('year', {typed}) * 12 + datepart('month', {typed}), datepart('day', {typed}), "
        "datepart('hour', {typed}) * 3600000000 + datepart('minute', {typed}) * 60000000 "
        "+ datepart('microsecond', {typed})"
    )
    expected = [(y * 12 + mo, d, (h * 3600 + mi * 60) * 1_000_000 + us) for y, mo, d, h, mi, us in sent]
    assert read_back("interval", texts, STRING_MODES, sql=sql) == expected


@many
@given(st.integers(2, 200).flatmap(lambda n: st.lists(st.text("01", min_size=n, max_size=n), min_size=1)))
def test_bits_are_exact_with_leading_zeros(sent: list[str]) -> None:
    length = len(sent[0])
    assert read_back(f"bit({length})", [_bits(bits) for bits in sent]) == sent
    assert read_back("bit varying", [_bits(bits) for bits in sent]) == [bits.lstrip("0") for bits in sent]


def _bits(text: str) -> str:
    number = int(text, 2)
    return in_base64(number.to_bytes((number.bit_length() + 7) // 8, "little"))


@many
@given(st.lists(st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)), min_size=1))
def test_a_point_is_exact(sent: list[tuple[float, float]]) -> None:
    points = [{"x": x, "y": y, "wkb": "", "srid": None} for x, y in (_floats(list(p)) for p in sent)]
    assert read_back("point", points) == [{"x": x, "y": y} for x, y in sent]


@pytest.mark.parametrize(
    ("type_", "sent"),
    [
        ("integer", "x"),
        ("date", 2**40),
        ("timestamp without time zone", -(2**62)),
        ("time without time zone", DAY + 1),
        ("time(3) without time zone", 2**63 - 1),
        ("timestamp(3) without time zone", 2**63 - 1),
        ("uuid", "no"),
        ("jsonb", "{"),
        ("bytea", "***"),
        ("timestamp with time zone", "yesterday"),
        ("interval", "two days"),
        ("numeric(5,2)", "123456"),
        ("integer[]", [1, "x"]),
        ("bit(3)", "***"),
        ("int4multirange", "/w=="),
    ],
)
def test_a_value_that_cannot_be_read_is_named_and_does_not_stop_the_table(type_: str, sent: Any) -> None:
    schema = schema_of(type_, STRING_MODES)
    column = column_of(schema)
    assert column is not None
    spec, image = raw_spec(schema, exact=True), json.dumps({"v": sent})
    sql = f"SELECT {lossy_expression(column, 'i.v')} FROM (SELECT json_transform(?::JSON, '{spec}') AS i)"
    assert _ENGINE.execute(sql, [image]).fetchone() == (True,)


@pytest.mark.parametrize(("sent", "lossy"), [("1.230", False), ("1.231", True), ("-1.2", False), ("NAN", True)])
def test_a_decimal_that_would_be_rounded_is_named(sent: str, *, lossy: bool) -> None:
    column = column_of(schema_of("numeric(5,2)", STRING_MODES))
    assert column is not None
    assert _ENGINE.execute(f"SELECT {lossy_expression(column, '$1::VARCHAR')}", [sent]).fetchone() == (lossy,)


@pytest.mark.parametrize(
    ("type_", "sent", "shown"),
    [
        ("date", -622191234, "infinity"),
        ("date", -2147472692, "infinity"),
        ("date", -625821272, "-infinity"),
        ("date", -2147472691, "-infinity"),
        ("timestamp without time zone", 9223372036825200000, "infinity"),
        ("timestamp without time zone", -9223372036832400000, "-infinity"),
        ("timestamp(0) without time zone", 9223372036825200, "infinity"),
        ("timestamp(0) without time zone", -9223372036832400, "-infinity"),
        ("timestamp with time zone", "infinity", "infinity"),
        ("timestamp with time zone", "-infinity", "-infinity"),
    ],
)
def test_infinity_is_never_an_ordinary_day(type_: str, sent: Any, shown: str) -> None:
    assert read_back(type_, [sent], sql="{typed}::VARCHAR") == [shown]


@pytest.mark.parametrize(
    ("type_", "sent", "shown"),
    [
        ("line", "ey0wLjUsMS4wRS0zMDAsMS4wRTE2fQ==", "{-0.5,1e-300,1e+16}"),
        ("lseg", "WygwLjAsMC4wKSwoMS4wLDEuMCld", "[(0,0),(1,1)]"),
        ("circle", "PCgxLjBFMjAsLTEuMEUtMTApLDEuMEUxNT4=", "<(1e+20,-1e-10),1e+15>"),
        ("date", -2147472692, "infinity"),
        ("timestamp", 9223372036825200000, "infinity"),
        ("timestamp", -9223372036832400000, "-infinity"),
        ("timestamp(3)", 9223372036825200, "infinity"),
        ("timestamp(3)", -9223372036832400, "-infinity"),
    ],
)
def test_a_log_that_debezium_3_6_filled_reads_as_before(type_: str, sent: Any, shown: str) -> None:
    assert read_back(type_, [sent], sql="({typed})::VARCHAR") == [shown]


numbers = st.floats(allow_nan=False, allow_infinity=False)
points = st.tuples(numbers, numbers)


def binary(points: Sequence[tuple[float, float]]) -> str:
    """A line in well-known binary, little-endian, in base64."""
    return in_base64(struct.pack(f"<BII{2 * len(points)}d", 1, 2, len(points), *(n for p in points for n in p)))


@many
@given(st.lists(points, min_size=1, max_size=5), st.booleans())
def test_a_path_keeps_every_digit_of_its_points(points: list[tuple[float, float]], closed: bool) -> None:
    sent = {"wkb": binary(points), "srid": None, "extensions": {"type": "path", "closed": str(closed).lower()}}
    (shown,) = read_back("path", [sent])
    assert shown[0] + shown[-1] == ("()" if closed else "[]")
    assert [tuple(map(float, p.split(","))) for p in shown[2:-2].split("),(")] == points


@pytest.mark.parametrize("wkb", ["", "AAAAAAIAAAAB", "not base64!", "AQcAAAAA"])
def test_a_shape_that_cannot_be_read_is_null_and_said_to_be(wkb: str) -> None:
    sent = {"wkb": wkb, "srid": None, "extensions": {"type": "lseg"}}
    column = column_of(schema_of("lseg"))
    assert column is not None
    assert read_back("lseg", [sent]) == [None]
    assert read_back("lseg", [sent], sql=lossy_expression(column, "{raw}")) == [True]
