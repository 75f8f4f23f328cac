"""DuckDB SQL that reads a value as the connector wrote it: one function per encoding.

An encoding is a word, perhaps with an argument: `date_days`, `bits:8`. Before it may stand `[]` (a list of such values)
or `printed|<lake type>|` (a domain: read as its base type, shown as text). Nothing here raises on a bad value: the
result is null, and `lossy` says so.

Ranges: PostgreSQL's dates are 4713 BC to 5874897 AD and its timestamps 4713 BC to 294276 AD; DuckDB's timestamps end in
294247. The connector writes infinity as a number outside of these (found on the real connector); those become
DuckDB's own infinity, never an ordinary date.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc_lake.project.geometry import geometry
from cdc_lake.project.printing import printed
from cdc_lake.sqltext import literal

_FIRST_DAY, _LAST_DAY = -2440588, 2145042905
_FIRST_MICROSECOND, _LAST_MICROSECOND = -210866803200000000, 9223372036854775806
_TO_MICROSECONDS = {"ms": "{} * 1000", "us": "{}", "ns": "{} // 1000"}

_TIMESTAMP_RANGES = {
    "ms": (_FIRST_MICROSECOND // 1000, _LAST_MICROSECOND // 1000),
    "us": (_FIRST_MICROSECOND, _LAST_MICROSECOND),
    "ns": (-9223372036854775807, 9223372036854775806),
}

# What the connector writes for infinity and -infinity: dates in a snapshot and in the stream, timestamps by unit. The
# last of each is what Debezium before 3.7 wrote, where that was another number.
INFINITE_DAYS = ((-622191234, 2146033979, -2147472692), (-625821272, -2147472691))
INFINITE_TIMESTAMPS = {
    "ms": ((9223372036825200000, 9223372036825200), (-9223372036832400000, -9223372036832400)),
    "us": ((9223372036854775807, 9223372036825200000), (-9223372036854775808, -9223372036832400000)),
    "ns": ((9223372036854775807,), (-9223372036854775808,)),
}

_ISO_INTERVAL = literal(r"^P(-?\d+)Y(-?\d+)M(-?\d+)DT(-?\d+)H(-?\d+)M(-?[\d.]+)S$")
_SPOKEN_INTERVAL = literal(r"\1 years \2 months \3 days \4 hours \5 minutes \6 seconds")


def split(encoding: str) -> tuple[bool, str, str]:
    """Whether it is a list, the word, and the argument (empty when there is none)."""
    is_list = encoding.startswith("[]")
    word, _, argument = encoding.removeprefix("[]").partition(":")
    return is_list, word, argument


def raw_type(encoding: str, *, exact: bool = False) -> str:
    """The type that json_transform gives a value of `encoding`.

    `exact` takes text for all scalars, so that a value which does not fit is seen as it was written; without it numbers
    and booleans are read as such, twice as fast.
    """
    encoding = encoding.rsplit("|", 1)[-1]
    is_list, word, _ = split(encoding)
    if is_list or word in ("point", "document", "numeric_variable"):
        return "JSON"
    if exact:
        return "VARCHAR"
    if word in ("bool", "bit"):
        return "BOOLEAN"
    if word == "float":
        return "DOUBLE"
    numbers = ("int", "date_days", "time_ms", "time_us", "time_ns", "interval_us", "interval_ns")
    return "BIGINT" if word in numbers or word in ("timestamp_ms", "timestamp_us", "timestamp_ns") else "VARCHAR"


def typed(encoding: str, lake: str, raw: str) -> str:
    """SQL of the value in its lake type; null when it cannot be read."""
    if encoding.startswith("printed|"):
        _, base, inner = encoding.split("|", 2)
        return printed(base, typed(inner, base, raw))
    is_list, word, argument = split(encoding)
    if not is_list:
        return _READERS[word](raw, lake, argument)
    items = f"from_json({raw}, '[\"VARCHAR\"]')"
    element = lake.removesuffix("[]")
    expression = _READERS[word]("x", element, argument)
    if expression == "x":
        return items
    if expression == _cast("x", element, argument):
        return f"TRY_CAST({items} AS {lake})"
    return f"list_transform({items}, lambda x: {expression})"


def lossy(encoding: str, lake: str, raw: str) -> str:
    """Boolean SQL: there is a value, and its typed form is null, shorter or rounded."""
    value = typed(encoding, lake, raw)
    is_list, word, _ = split(encoding.rsplit("|", 1)[-1])
    if is_list:
        written = f"from_json({raw}, '[\"VARCHAR\"]')"
        return f"({raw} IS NOT NULL AND list_count({value}) IS DISTINCT FROM list_count({written}))"
    test = f"{value} IS NULL"
    if word == "int":
        test = f"({value})::VARCHAR IS DISTINCT FROM {raw}::VARCHAR"
    elif word == "numeric_text" and lake.startswith("DECIMAL"):
        scale = lake.removesuffix(")").rpartition(",")[2]
        beyond = literal(rf"\.\d{{{scale}}}\d*[1-9]")
        test = f"({test} OR regexp_matches({raw}, {beyond}))"
    return f"({raw} IS NOT NULL AND {test})"


def _cast(raw: str, lake: str, argument: str) -> str:
    return f"TRY_CAST({raw} AS {lake})"


def _text(raw: str, lake: str, argument: str) -> str:
    return raw if lake == "VARCHAR" else _cast(raw, lake, argument)


def _document(raw: str, lake: str, argument: str) -> str:
    return raw if lake == "JSON" else f"({raw})::VARCHAR"


def _numeric_text(raw: str, lake: str, argument: str) -> str:
    if lake != "VARCHAR":
        return _cast(raw, lake, argument)
    return (
        f"CASE {raw} WHEN 'NAN' THEN 'NaN' WHEN 'POSITIVE_INFINITY' THEN 'Infinity' "
        f"WHEN 'NEGATIVE_INFINITY' THEN '-Infinity' ELSE {raw} END"
    )


def _numeric_base64(raw: str, lake: str, argument: str) -> str:
    return _text(_point_placed(_unscaled(raw), argument), lake, "")


def _numeric_variable(raw: str, lake: str, argument: str) -> str:
    digits, scale = _unscaled(f"({raw}->>'value')"), f"TRY_CAST({raw}->>'scale' AS INTEGER)"
    return _text(_point_placed(digits, scale), lake, "")


def _unscaled(raw: str) -> str:
    """A big-endian two's complement number of at most 16 bytes in base64, as HUGEINT."""
    digits = f"hex(TRY(from_base64({raw})))"
    flipped = f"translate({digits}, '0123456789ABCDEF', 'FEDCBA9876543210')"
    return (
        f"(CASE WHEN {digits} >= '8' THEN -1 - TRY_CAST('0x' || {flipped} AS HUGEINT) "
        f"ELSE TRY_CAST('0x' || {digits} AS HUGEINT) END)"
    )


def _point_placed(number: str, scale: str) -> str:
    unsigned = f"ltrim({number}::VARCHAR, '-')"
    digits = f"lpad({unsigned}, greatest({scale} + 1, length({unsigned}))::INTEGER, '0')"
    whole = f"left({digits}, length({digits}) - {scale})"
    fraction = f"CASE WHEN {scale} > 0 THEN '.' || right({digits}, {scale}) ELSE '' END"
    return f"(CASE WHEN {number} < 0 THEN '-' ELSE '' END || {whole} || {fraction})"


def _date_days(raw: str, lake: str, argument: str) -> str:
    days = f"TRY_CAST({raw} AS INTEGER)"
    ordinary = f"WHEN {days} BETWEEN {_FIRST_DAY} AND {_LAST_DAY} THEN DATE '1970-01-01' + {days}"
    return _infinite(days, INFINITE_DAYS, "DATE", ordinary)


def _timestamp(unit: str) -> Callable[[str, str, str], str]:
    to_us = _TO_MICROSECONDS[unit]

    def read(raw: str, lake: str, argument: str) -> str:
        number = f"TRY_CAST({raw} AS BIGINT)"
        low, high = _TIMESTAMP_RANGES[unit]
        endless = ", ".join(map(str, INFINITE_TIMESTAMPS[unit][0]))
        inside = f"{number} BETWEEN {low} AND {high} AND {number} NOT IN ({endless})"
        ordinary = f"WHEN {inside} THEN make_timestamp({to_us.format(number)})"
        return _infinite(number, INFINITE_TIMESTAMPS[unit], "TIMESTAMP", ordinary)

    return read


def _infinite(number: str, infinite: tuple[tuple[int, ...], tuple[int, ...]], lake: str, ordinary: str) -> str:
    """`ordinary` is `WHEN <the number is in range> THEN <its value>`."""
    plus, minus = (", ".join(map(str, numbers)) for numbers in infinite)
    return (
        f"CASE {ordinary} WHEN {number} IN ({plus}) THEN 'infinity'::{lake} "
        f"WHEN {number} IN ({minus}) THEN '-infinity'::{lake} END"
    )


def _time(unit: str) -> Callable[[str, str, str], str]:
    to_us = _TO_MICROSECONDS[unit]
    day = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}[unit]

    def read(raw: str, lake: str, argument: str) -> str:
        number = f"TRY_CAST({raw} AS BIGINT)"
        ordinary = f"TIME '00:00:00' + to_microseconds({to_us.format(number)})"
        return (
            f"CASE WHEN {number} = {day} THEN TIME '24:00:00' WHEN {number} BETWEEN 0 AND {day - 1} THEN {ordinary} END"
        )

    return read


def _source_text(raw: str, lake: str, argument: str) -> str:
    """The inverse of `printed`: text as PostgreSQL itself prints a value."""
    if lake == "BLOB":
        return f"TRY(unhex(substr({raw}, 3)))"
    if lake.startswith("STRUCT"):
        x, y = (f"TRY_CAST(split_part(trim({raw}, '()'), ',', {i}) AS DOUBLE)" for i in (1, 2))
        return f"CASE WHEN {raw} IS NOT NULL THEN {{'x': {x}, 'y': {y}}} END"
    if lake == "INTERVAL":
        return f"TRY_CAST(replace({raw}, '+', '') AS INTERVAL)"
    if lake in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        year_last, before_christ = literal(r"^(\S+)(.*) BC$"), literal(r"\1 (BC)\2")
        return f"TRY_CAST(regexp_replace({raw}, {year_last}, {before_christ}) AS {lake})"
    return raw if lake == "VARCHAR" else _cast(raw, lake, argument)


def _iso(raw: str, lake: str, argument: str) -> str:
    # Java writes years above 9999 with a plus sign.
    return f"TRY_CAST(ltrim({raw}, '+') AS {lake})"


def _timetz(raw: str, lake: str, argument: str) -> str:
    return f"regexp_replace({raw}, 'Z$', '+00')"


def _interval_iso(raw: str, lake: str, argument: str) -> str:
    return f"TRY_CAST(regexp_replace({raw}, {_ISO_INTERVAL}, {_SPOKEN_INTERVAL}) AS INTERVAL)"


def _interval_us(raw: str, lake: str, argument: str) -> str:
    return f"to_microseconds(TRY_CAST({raw} AS BIGINT))"


def _interval_ns(raw: str, lake: str, argument: str) -> str:
    return f"to_microseconds(TRY_CAST({raw} AS BIGINT) // 1000)"


def _base64(raw: str, lake: str, argument: str) -> str:
    return f"TRY(from_base64({raw}))"


def _base64url(raw: str, lake: str, argument: str) -> str:
    return f"TRY(from_base64(translate({raw}, '-_', '+/')))"


def _hex(raw: str, lake: str, argument: str) -> str:
    return f"TRY(unhex({raw}))"


def _decoded(reader: Callable[[str, str, str], str]) -> Callable[[str, str, str], str]:
    return lambda raw, lake, argument: f"TRY(decode({reader(raw, lake, argument)}))"


def _geometry(reader: Callable[[str, str, str], str]) -> Callable[[str, str, str], str]:
    return lambda raw, lake, argument: geometry(raw, _decoded(reader)(raw, lake, argument))


def _bit(raw: str, lake: str, argument: str) -> str:
    return f"CASE ({raw})::VARCHAR WHEN 'true' THEN '1' WHEN 'false' THEN '0' END"


def _all_bits(raw: str) -> str:
    """All bits of little-endian base64 bytes, highest first."""
    return (
        f"array_to_string(list_reverse(list_transform(regexp_extract_all(hex(TRY(from_base64({raw}))), '..'), "
        f"lambda b: lpad(bin(('0x' || b)::UTINYINT), 8, '0'))), '')"
    )


def _bits(raw: str, lake: str, argument: str) -> str:
    return f"right(lpad({_all_bits(raw)}, greatest({argument}, length({_all_bits(raw)}))::INTEGER, '0'), {argument})"


def _varbits(raw: str, lake: str, argument: str) -> str:
    return f"ltrim({_all_bits(raw)}, '0')"


def _point(raw: str, lake: str, argument: str) -> str:
    return f'from_json({raw}, \'{{"x":"DOUBLE","y":"DOUBLE"}}\')'


_READERS: dict[str, Callable[[str, str, str], str]] = {
    "text": _text,
    "source_text": _source_text,
    "int": _cast,
    "float": _cast,
    "bool": _cast,
    "json": _cast,
    "document": _document,
    "numeric_text": _numeric_text,
    "numeric_base64": _numeric_base64,
    "numeric_variable": _numeric_variable,
    "date_days": _date_days,
    "date_iso": _iso,
    "time_ms": _time("ms"),
    "time_us": _time("us"),
    "time_ns": _time("ns"),
    "time_iso": _cast,
    "timetz": _timetz,
    "timestamp_ms": _timestamp("ms"),
    "timestamp_us": _timestamp("us"),
    "timestamp_ns": _timestamp("ns"),
    "timestamp_iso": _iso,
    "tz_iso": _iso,
    "interval_iso": _interval_iso,
    "interval_us": _interval_us,
    "interval_ns": _interval_ns,
    "base64": _base64,
    "base64url": _base64url,
    "hex": _hex,
    "text_base64": _decoded(_base64),
    "text_base64url": _decoded(_base64url),
    "text_hex": _decoded(_hex),
    "geometry_base64": _geometry(_base64),
    "geometry_base64url": _geometry(_base64url),
    "geometry_hex": _geometry(_hex),
    "bit": _bit,
    "bits": _bits,
    "varbits": _varbits,
    "point": _point,
}
