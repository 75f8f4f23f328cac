"""Values of a result as JSON has them: dates and times ISO 8601, decimals as text, bytes base64, nothing rounded.

Arrow's own numbers are used instead of Python's dates, which end in the year 9999 and know no infinity.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

DuckType = duckdb.sqltypes.DuckDBPyType
Values = list[Any]

_DAY_US = 86_400_000_000
_ERA_DAYS = 146_097  # days in 400 years, after which the calendar repeats
_DAYS_TO_2000 = 10_957
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}


class Raw(str):
    """JSON text that goes out as it is, so that no number in it changes."""

    __slots__ = ()


def plain(column: pa.Array, kind: DuckType) -> Values:
    """The column's values as text, numbers, booleans, None, `Raw`, and lists and dicts of these."""
    if str(kind) == "JSON":
        return [None if v is None else Raw(v) for v in column.to_pylist()]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return _CONVERT.get(kind.id, _default)(column, kind)


def dumps(value: Any) -> str:
    """A value of `plain` as JSON text."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(dumps(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(k, ensure_ascii=False)}:{dumps(v)}' for k, v in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def as_text(value: Any) -> str:
    """A value of `plain` as a person reads it."""
    if isinstance(value, str):
        return str(value)
    return "" if value is None else dumps(value)


def _default(column: pa.Array, _kind: DuckType) -> Values:
    values = column.to_pylist()
    return [v if v is None or isinstance(v, (bool, int, float, str)) else str(v) for v in values]


def _each(convert: Callable[[Any], Any]) -> Callable[[pa.Array, DuckType], Values]:
    def column_of(column: pa.Array, _kind: DuckType) -> Values:
        return [None if v is None else convert(v) for v in column.to_pylist()]

    return column_of


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _bits(value: bytes) -> str:
    # DuckDB's own form: the first byte counts the unused bits that follow it.
    return "".join(f"{byte:08b}" for byte in value[1:])[value[0] :]


def _interval(value: Any) -> str:
    """ISO 8601, such as P1Y2M3DT4H5M6.5S."""
    years, months = _whole(value.months, 12)
    hours, rest = _whole(value.nanoseconds // 1000, 3_600_000_000)
    minutes, micros = _whole(rest, 60_000_000)
    day_part = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M"), (value.days, "D")) if n)
    seconds = format(Decimal(micros).scaleb(-6).normalize(), "f") if micros else ""
    time_part = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    return f"P{day_part}T{time_part}" if time_part else f"P{day_part or '0D'}"


def _whole(value: int, unit: int) -> tuple[int, int]:
    """Quotient and rest with the sign of `value`."""
    whole, rest = divmod(abs(value), unit)
    return (whole, rest) if value >= 0 else (-whole, -rest)


def _iso_date(days: int) -> str:
    era, within = divmod(days - _DAYS_TO_2000, _ERA_DAYS)
    day = date(2000, 1, 1) + timedelta(days=within)
    year = day.year + 400 * era
    return f"{'-' if year < 0 else ''}{abs(year):04d}-{day.month:02d}-{day.day:02d}"


def _iso_time(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:06d}" if fraction else text


def _dates(column: pa.Array, _kind: DuckType) -> Values:
    limit = (1 << 31) - 1
    return [_unbounded(v, limit, _iso_date) for v in column.cast(pa.int32()).to_pylist()]


def _timestamps(column: pa.Array, kind: DuckType) -> Values:
    unit, zone = column.type.unit, "+00:00" if column.type.tz else ""
    limit = (1 << 63) - 1

    def iso(value: int) -> str:
        micros = value // 1000 if unit == "ns" else value * _UNITS[unit]
        days, rest = divmod(micros, _DAY_US)
        nanos = f"{value % 1000:03d}" if unit == "ns" and value % 1000 else ""
        time = _iso_time(rest)
        if nanos and "." not in time:
            time += ".000000"
        return f"{_iso_date(days)}T{time}{nanos}{zone}"

    return [_unbounded(v, limit, iso) for v in column.cast(pa.int64()).to_pylist()]


def _unbounded(value: int | None, limit: int, iso: Callable[[int], str]) -> str | None:
    if value is None:
        return None
    if abs(value) >= limit:
        return "infinity" if value > 0 else "-infinity"
    return iso(value)


def _times(column: pa.Array, kind: DuckType) -> Values:
    if not pa.types.is_time64(column.type):
        return _default(column, kind)
    scale = 1000 if column.type.unit == "ns" else 1
    return [None if v is None else _iso_time(v // scale) for v in column.cast(pa.int64()).to_pylist()]


def _children(kind: DuckType) -> dict[str, DuckType]:
    return {name: child for name, child in kind.children if isinstance(child, DuckType)}


def _lists(column: pa.Array, kind: DuckType) -> Values:
    child = _children(kind)["child"]
    return [None if not v.is_valid else plain(v.values, child) for v in column]


def _structs(column: pa.Array, kind: DuckType) -> Values:
    fields = {name: plain(column.field(i), child) for i, (name, child) in enumerate(_children(kind).items())}
    valid = column.is_valid().to_pylist()
    return [{n: values[i] for n, values in fields.items()} if valid[i] else None for i in range(len(column))]


def _maps(column: pa.Array, kind: DuckType) -> Values:
    children = _children(kind)
    found: Values = []
    for value in column:
        if not value.is_valid:
            found.append(None)
            continue
        keys = plain(value.values.field(0), children["key"])
        found.append(dict(zip(map(as_text, keys), plain(value.values.field(1), children["value"]), strict=True)))
    return found


_CONVERT: dict[str, Callable[[pa.Array, DuckType], Values]] = {
    "float": _each(_number),
    "double": _each(_number),
    "decimal": _each(lambda v: format(v, "f")),
    "hugeint": _each(int),
    "blob": _each(lambda v: base64.b64encode(v).decode()),
    "bit": _each(_bits),
    "date": _dates,
    "timestamp": _timestamps,
    "timestamp_s": _timestamps,
    "timestamp_ms": _timestamps,
    "timestamp_ns": _timestamps,
    "timestamp with time zone": _timestamps,
    "time": _times,
    "interval": _each(_interval),
    "list": _lists,
    "array": _lists,
    "struct": _structs,
    "map": _maps,
}
