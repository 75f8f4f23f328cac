"""How Debezium writes each PostgreSQL type, as its settings have it. Missing settings have Debezium's defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cdc_lake.project.pgtypes import GEOMETRIC_TYPES, TEXT_TYPES, PgType

Settings = Mapping[str, str]


def encoding_for(pg: PgType, settings: Settings, *, is_enum: bool = False) -> str:
    """The encoding (see `encodings`) of a value of `pg`; that of an array is its element's with `[]` before it."""
    if pg.array:
        return "[]" + encoding_for(pg.element, settings, is_enum=is_enum)
    if pg.name in _ENCODINGS:
        return _ENCODINGS[pg.name](pg, settings)
    if is_enum or pg.name in TEXT_TYPES:
        return "text"
    return unknown_encoding(pg.name, binary_encoding(settings))


def unknown_encoding(name: str, binary: str) -> str:
    """The encoding of a type the connector does not know: bytes (`binary`) of its text."""
    return f"geometry_{binary}" if name in GEOMETRIC_TYPES else f"text_{binary}"


def binary_encoding(settings: Settings) -> str:
    """How bytes are written, and with `include.unknown.datatypes` the text of types the connector does not know."""
    mode = settings.get("binary.handling.mode", "bytes")
    return {"base64-url-safe": "base64url", "hex": "hex"}.get(mode, "base64")


def _fixed(encoding: str) -> Callable[[PgType, Settings], str]:
    return lambda pg, settings: encoding


def _numeric(pg: PgType, settings: Settings) -> str:
    mode = settings.get("decimal.handling.mode", "precise")
    if mode in ("double", "string"):
        return {"double": "float", "string": "numeric_text"}[mode]
    if pg.name == "money":
        return f"numeric_base64:{settings.get('money.fraction.digits', '2')}"
    if not pg.modifiers:
        return "numeric_variable"
    return f"numeric_base64:{pg.modifiers[1] if len(pg.modifiers) > 1 else 0}"


def _bit(pg: PgType, settings: Settings) -> str:
    length = pg.modifiers[0] if pg.modifiers else (1 if pg.name == "bit" else 0)
    if length == 1:
        return "bit"
    return f"bits:{length}" if pg.name == "bit" else "varbits"


def _clock(pg: PgType, settings: Settings) -> str:
    """Times and timestamps without a zone count a unit that depends on the mode and on the declared precision."""
    mode, kind = settings.get("time.precision.mode", "adaptive"), pg.name.split(" ", 1)[0]
    if mode == "adaptive_time_microseconds" and kind == "time":
        return "time_us"
    unit = {"connect": "ms", "isostring": "iso", "microseconds": "us", "nanoseconds": "ns"}.get(mode)
    return f"{kind}_{unit or ('ms' if pg.fraction_digits <= 3 else 'us')}"


def _date(pg: PgType, settings: Settings) -> str:
    return "date_iso" if settings.get("time.precision.mode") == "isostring" else "date_days"


def _interval(pg: PgType, settings: Settings) -> str:
    return "interval_iso" if settings.get("interval.handling.mode") == "string" else "interval_us"


_ENCODINGS: Mapping[str, Callable[[PgType, Settings], str]] = {
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), _fixed("int")),
    **dict.fromkeys(("real", "double precision"), _fixed("float")),
    **dict.fromkeys(("json", "jsonb"), _fixed("json")),
    **dict.fromkeys(("numeric", "money"), _numeric),
    **dict.fromkeys(("bit", "bit varying"), _bit),
    **dict.fromkeys(("time without time zone", "timestamp without time zone"), _clock),
    "time with time zone": _fixed("timetz"),
    "timestamp with time zone": _fixed("tz_iso"),
    "date": _date,
    "interval": _interval,
    "boolean": _fixed("bool"),
    "uuid": _fixed("text"),
    "point": _fixed("point"),
    "bytea": lambda pg, settings: binary_encoding(settings),
}
