"""DuckDB SQL that reads PostgreSQL's own shapes (line, lseg, box, path, polygon, circle) and prints them as it does.

Two forms arrive. Debezium before 3.7 sent bytes of the text that Java's driver prints. From 3.7 on it sends structs
(`convertBox` and its neighbours in PostgresValueConverter.java): a line as `{"a", "b", "c"}`, a circle as `{"center":
{"x", "y"}, "radius"}`, the others as `{"wkb", "extensions": {"type", "closed"}}` with little-endian well-known binary
(OGC 06-103r4, 8.2). Which form a value has is seen from the value, so that a log may hold both.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc_lake.project.printing import printed
from cdc_lake.sqltext import literal

# In hexadecimal digits: byte order and type of a line and of a polygon, and where the points begin.
_LINE_HEAD, _POLYGON_HEAD = "0102000000", "0103000000"
_LINE_POINTS, _POLYGON_POINTS = 19, 27
_POINT = "STRUCT(x DOUBLE, y DOUBLE)"


def geometry(raw: str, text: str) -> str:
    """SQL of a shape as PostgreSQL prints it, from its raw value; `text` is SQL of the older form's decoded text.

    Null when it cannot be read. A struct of another kind (PostGIS) is shown as the JSON it is.
    """
    return f"CASE WHEN left({raw}, 1) = '{{' THEN {_struct(raw)} ELSE {_respelled(text)} END"


def _respelled(text: str) -> str:
    """Java's numbers (`1.0`, `1.0E20`) as PostgreSQL prints them (`1`, `1e+20`)."""
    tokens = literal(r"-?(?:[0-9.]+(?:E-?[0-9]+)?|NaN|Infinity)|[^-0-9NI]")
    number = printed("DOUBLE", "TRY_CAST(t AS DOUBLE)")
    parts = f"list_transform(regexp_extract_all({text}, {tokens}), lambda t: COALESCE({number}, t))"
    return f"array_to_string({parts}, '')"


def _struct(raw: str) -> str:
    def number(path: str) -> str:
        return f"list_transform([TRY_CAST({raw}->>'$.{path}' AS DOUBLE)], lambda n: {printed('DOUBLE', 'n')})[1]"

    line = " || ',' || ".join(map(number, "abc"))
    center = f"{number('center.x')} || ',' || {number('center.y')}"
    shape = f"{raw}->>'$.extensions.type'"
    known = ", ".join(map(literal, _SHAPES))
    return f"""CASE WHEN {raw}->>'$.radius' IS NOT NULL THEN '<(' || {center} || '),' || {number("radius")} || '>'
        WHEN {raw}->>'$.a' IS NOT NULL THEN '{{' || {line} || '}}'
        WHEN {shape} IN ({known}) THEN {_from_binary(raw, shape)} ELSE {raw} END"""


def _from_binary(raw: str, shape: str) -> str:
    shapes = " ".join(f"WHEN {literal(name)} THEN {text(raw)}" for name, text in _SHAPES.items())
    return f"list_transform([{_points(raw)}], lambda p: CASE {shape} {shapes} END)[1]"


def _points(raw: str) -> str:
    """The points of a line or of a polygon's only ring, each as text; null for another kind."""
    digits = f"hex(TRY(from_base64({raw}->>'$.wkb')))"
    body = (
        f"CASE left({digits}, {len(_LINE_HEAD)}) WHEN '{_LINE_HEAD}' THEN substr({digits}, {_LINE_POINTS}) "
        f"WHEN '{_POLYGON_HEAD}' THEN substr({digits}, {_POLYGON_POINTS}) END"
    )
    numbers = f"{{'x': {_double('left(b, 16)')}, 'y': {_double('right(b, 16)')}}}"
    points = f"list_transform(regexp_extract_all({body}, '.{{32}}'), lambda b: {numbers})"
    return f"list_transform({points}, lambda q: {printed(_POINT, 'q')})"


def _double(digits: str) -> str:
    """Eight little-endian bytes in hexadecimal digits as the number that they are."""
    return f"unhex(array_to_string(list_reverse(regexp_extract_all({digits}, '..')), ''))::BIT::DOUBLE"


def _joined(points: str) -> str:
    return f"array_to_string({points}, ',')"


def _path(raw: str) -> str:
    closed = f"({raw}->>'$.extensions.closed' = 'true')"
    return f"CASE WHEN {closed} THEN '(' || {_joined('p')} || ')' ELSE '[' || {_joined('p')} || ']' END"


# The ring of a box begins at one corner and has the opposite one third; that of a polygon ends where it began.
_SHAPES: dict[str, Callable[[str], str]] = {
    "box": lambda raw: "p[1] || ',' || p[3]",
    "lseg": lambda raw: f"'[' || {_joined('p')} || ']'",
    "path": _path,
    "polygon": lambda raw: f"'(' || {_joined('CASE WHEN len(p) > 1 THEN p[:-2] ELSE p END')} || ')'",
}
