"""PostgreSQL's type spellings, and the lake type of each: the table "Types" of the documentation as code.

Two spellings exist for one type: `format_type` (`character varying(20)`, `integer[]`) of the catalogue and the internal
name (`VARCHAR`, `_INT4`) that the connector propagates. Both parse to the same `PgType`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# Internal names and short spellings -> the base name of format_type.
_ALIASES = {
    "int2": "smallint",
    "int4": "integer",
    "int": "integer",
    "int8": "bigint",
    "serial": "integer",
    "bigserial": "bigint",
    "smallserial": "smallint",
    "decimal": "numeric",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "varchar": "character varying",
    "bpchar": "character",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varbit": "bit varying",
}

_LAKE_TYPES = {
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "oid": "BIGINT",
    "money": "DECIMAL(19,2)",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "time without time zone": "TIME",
    "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "json": "JSON",
    "jsonb": "JSON",
    "bytea": "BLOB",
    "point": "STRUCT(x DOUBLE, y DOUBLE)",
}

# Types that the connector knows and that are text in the lake; every other name is an enum or unknown to it.
TEXT_TYPES = frozenset(
    {
        "text",
        "character varying",
        "character",
        "name",
        '"char"',
        "xml",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "int4range",
        "int8range",
        "numrange",
        "tsrange",
        "tstzrange",
        "daterange",
        "tsvector",
        "citext",
        "ltree",
        "isbn",
    }
)

_OTHER_TYPES = frozenset({"numeric", "bit", "bit varying", "time with time zone"})

# The connector sends these as its driver prints them, not as PostgreSQL does.
GEOMETRIC_TYPES = frozenset({"line", "lseg", "box", "path", "polygon", "circle"})

MAX_DECIMAL_DIGITS = 38
# How the connector writes "no length given" of numeric: its driver's figure for an unlimited value.
_UNLIMITED_NUMERIC = 131089
_MAX_SCALE = 1000

_ARRAY = re.compile(r"(\s*\[\d*\])+$")
# Modifiers stand before the zone (`time(3) with time zone`); a quoted name may hold brackets of its own.
_MODIFIERS = re.compile(r"""\s*\((\s*-?\d+\s*(?:,\s*-?\d+\s*)?)\)(?=[^"]*$)""")


@dataclass(frozen=True, slots=True)
class PgType:
    """A type as PostgreSQL has it: `name` as format_type spells it without modifiers, `modifiers` as declared."""

    name: str
    modifiers: tuple[int, ...] = ()
    array: bool = False

    @property
    def element(self) -> PgType:
        """The type of an array's elements."""
        return replace(self, array=False)

    @property
    def fraction_digits(self) -> int:
        """Digits of a second that a time or timestamp type keeps."""
        return self.modifiers[0] if self.modifiers else 6

    def __str__(self) -> str:
        mods = f"({','.join(map(str, self.modifiers))})" if self.modifiers else ""
        head, space, tail = self.name.partition(" ")
        timed = head in ("time", "timestamp") and space
        text = f"{head}{mods} {tail}" if timed else f"{self.name}{mods}"
        return f"{text}[]" if self.array else text


def parse_type(spelling: str) -> PgType:
    """Read a spelling of format_type; a name that is not known is kept as it is (an enum, composite, domain…)."""
    name, array = _ARRAY.sub("", spelling.strip()), bool(_ARRAY.search(spelling.strip()))
    match = _MODIFIERS.search(name)
    mods = tuple(int(m) for m in match[1].split(",")) if match else ()
    name = _MODIFIERS.sub("", name)
    if name.split(" ", 1)[0] == "interval":
        name = "interval"  # its fields and precision change what PostgreSQL stores, not how it is written
    return PgType(_ALIASES.get(name, name), mods, array)


def parse_propagated(name: str, length: int | None, scale: int | None) -> PgType:
    """Read what `column.propagate.source.type` adds to a field: `NUMERIC` with length 10 and scale 2, `_INT4`, …"""
    array = name.startswith("_") and len(name) > 1
    base = name[1:] if array else name
    if base.lower() == "char" or base == '"char"':
        return PgType('"char"', (), array)
    lowered = base.lower() if base.isupper() else base
    known = _ALIASES.get(lowered, lowered)
    return PgType(known, _propagated_modifiers(known, length, scale), array)


def _propagated_modifiers(name: str, length: int | None, scale: int | None) -> tuple[int, ...]:
    if name == "numeric":
        if length is None or length in (0, _UNLIMITED_NUMERIC):
            return ()
        # The connector reads the eleven signed bits of a negative scale as a positive number.
        return (length, (scale or 0) - 2048 if (scale or 0) > _MAX_SCALE else scale or 0)
    if name in ("character varying", "character", "bit", "bit varying"):
        return () if length is None or not 0 < length < 2**31 - 1 else (length,)
    return ()


def is_known(pg: PgType) -> bool:
    """Whether the name is one of PostgreSQL's own types, not one a user made (an enum, a domain, a composite)."""
    return pg.name in _LAKE_TYPES or pg.name in TEXT_TYPES or pg.name in _OTHER_TYPES


def lake_type(pg: PgType) -> str:
    """The DuckDB type that holds every value of `pg` exactly; text where DuckDB has no such type."""
    if pg.array:
        return f"{lake_type(pg.element)}[]"
    if pg.name == "numeric":
        return _decimal(pg.modifiers)
    return _LAKE_TYPES.get(pg.name, "VARCHAR")


def _decimal(modifiers: tuple[int, ...]) -> str:
    if not modifiers:
        return "VARCHAR"
    precision, scale = modifiers[0], modifiers[1] if len(modifiers) > 1 else 0
    # PostgreSQL allows a negative scale (rounds to hundreds) and a scale above the precision (0.000ddd).
    if scale < 0:
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return f"DECIMAL({precision},{scale})" if precision <= MAX_DECIMAL_DIGITS else "VARCHAR"
