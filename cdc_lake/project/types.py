"""Types at read: from the JSON that the connector wrote to the types of the lake, as SQL for DuckDB.

The change log keeps images as they arrived. To read one, parse it once into a struct of raw values (`raw_spec`) and
turn each into its type (`typed_expression`). Nothing is rounded; a value that cannot be read is null and
`lossy_expression` names it. A complete statement::

    spec = literal(raw_spec(schema))
    columns = ", ".join(typed_columns(schema, "__image"))
    f'SELECT {columns} FROM (SELECT json_transform(__after, {spec}) AS __image, * FROM changes) AS log'

Each image must be read with the schema it was written under: `timestamp(3)` counts milliseconds and `timestamp`
microseconds, so one schema for all would be silently wrong after an ALTER TABLE.
`typed_columns(old, image, target=new)` reads with the old one and shows the columns of the new one.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from hashlib import md5

from cdc_lake.project import encodings
from cdc_lake.project.connect_schema import schema_from_connect
from cdc_lake.project.limits import unchanged_as_null
from cdc_lake.project.pgtypes import parse_type
from cdc_lake.project.printing import printed
from cdc_lake.project.schema import (
    Column,
    TableSchema,
    checked,
    merged,
    schema_from_catalogue,
    schema_from_images,
    schema_of_repairs,
)
from cdc_lake.sqltext import ident, literal

__all__ = [
    "Column",
    "TableSchema",
    "converted",
    "lossy_expression",
    "merged",
    "printed_expression",
    "raw_spec",
    "schema_from_catalogue",
    "schema_from_connect",
    "schema_from_images",
    "schema_of_repairs",
    "shown_as",
    "typed_columns",
    "typed_expression",
    "unchanged_expression",
    "widens",
]

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def raw_spec(schema: TableSchema, *, exact: bool = False) -> str:
    """The structure for `json_transform`, as JSON text; quote it with `sqltext.literal`.

    With `exact` all scalars are raw text: slower, and `lossy_expression` then also sees numbers that do not fit.
    Raises LakeError for columns that differ only in case.
    """
    columns = checked(schema).columns
    return json.dumps({c.name: encodings.raw_type(c.encoding, exact=exact) for c in columns}, ensure_ascii=False)


def typed_expression(column: Column, raw: str) -> str:
    """SQL of the column's value in its lake type, from its raw value (`raw` is SQL, such as `v."price"`).

    Null when the value cannot be read. Ask `unchanged_expression` first: its marker is no value.
    """
    return encodings.typed(column.encoding, column.lake_type, raw)


def lossy_expression(column: Column, raw: str) -> str:
    """Boolean SQL: the raw value is not null, and the typed one is null, shorter or rounded.

    Meant for the raw values of an exact `raw_spec`.
    """
    return encodings.lossy(column.encoding, column.lake_type, raw)


def typed_columns(schema: TableSchema, image: str, target: TableSchema | None = None) -> list[str]:
    """All columns as `<expression> AS "<name>"`, from the struct that `json_transform` made (`image` is its SQL name).

    With `target` they are the columns of that schema, read as `schema` wrote them: a column `schema` does not have is
    null, one of another type is cast. A full statement stands at the top of this module.
    """
    if target is None:
        return [f"{typed_expression(c, _field(image, c))} AS {ident(c.name)}" for c in schema.columns]
    written = {c.name: c for c in schema.columns}
    return [f"{_as_target(written.get(c.name), c, image)} AS {ident(c.name)}" for c in target.columns]


def shown_as(written: Column, target: Column, raw: str) -> str:
    """SQL of a value that was written as one column, in the type of another: null when it does not fit there."""
    return converted(written.lake_type, target.lake_type, typed_expression(written, raw))


def converted(old: str, new: str, value: str) -> str:
    """SQL of `value`, of the lake type `old`, in the lake type `new`: null when it does not fit there."""
    if old == new:
        return value
    if new == "VARCHAR":
        return printed(old, value)
    return f"TRY_CAST({value} AS {new})"


def widens(old: str, new: str) -> bool:
    """Whether every value of the lake type `old` is one of `new`, and PostgreSQL shows it so after an ALTER TABLE."""
    whole, real = ("SMALLINT", "INTEGER", "BIGINT"), ("FLOAT", "DOUBLE")
    decimals = [_DECIMAL.fullmatch(t) for t in (old, new)]
    if decimals[0] and decimals[1]:
        (p1, s1), (p2, s2) = ((int(m[1]), int(m[2])) for m in decimals if m)
        return s1 <= s2 and p1 - s1 <= p2 - s2
    if old in whole and new in whole:
        return whole.index(old) <= whole.index(new)
    return old == new or (old in real and new == "DOUBLE")


def _field(image: str, column: Column) -> str:
    return f"{image}.{ident(column.name)}"


def _as_target(written: Column | None, target: Column, image: str) -> str:
    return f"NULL::{target.lake_type}" if written is None else shown_as(written, target, _field(image, written))


def printed_expression(column: Column, value: str) -> str:
    """SQL of the column's typed value as PostgreSQL prints it, to be compared with what the source itself prints."""
    boxes = parse_type(column.source_type).name == "box"
    return printed(column.lake_type, value, delimiter=";" if boxes else ",")


def unchanged_expression(column: Column, raw: str, placeholder: str) -> str | None:
    """Boolean SQL: the raw value is the connector's mark for "unchanged, so PostgreSQL did not send it".

    `placeholder` is the connector's `unavailable.value.placeholder`. None when values of the type are never left out,
    and when an omitted one arrives as null (`limits.unchanged_as_null`), which nothing tells from a null that was set.
    A user may store the very same text: only an update of a table without REPLICA IDENTITY FULL can hold a mark.
    """
    is_list, word, _ = encodings.split(column.encoding.rsplit("|", 1)[-1])
    source = parse_type(column.source_type)
    if (is_list and unchanged_as_null(source)) or column.lake_type == "UUID":
        return None
    bare = word.removeprefix("text_").removeprefix("geometry_")
    marks = _list_marks(bare, column.lake_type, placeholder) if is_list else _scalar_marks(bare, placeholder)
    if not marks:
        return None
    return f"COALESCE(({raw})::VARCHAR IN ({', '.join(map(literal, marks))}), false)"


def _scalar_marks(word: str, placeholder: str) -> list[str]:
    if word in ("text", "json", "numeric_text", "hex"):
        return [placeholder]
    if word in ("base64", "base64url"):
        # With a string mode for bytes the mark is the text itself.
        return [base64.b64encode(placeholder.encode()).decode(), placeholder]
    return []


def _list_marks(word: str, lake_type: str, placeholder: str) -> list[str]:
    data = placeholder.encode()
    form: list[object] = []
    if lake_type == "UUID[]":
        # Java's nameUUIDFromBytes: MD5 without a namespace, version 3.
        form = [str(uuid.UUID(bytes=md5(data, usedforsecurity=False).digest(), version=3))]
    elif word in ("int", "date_days"):
        form = list(data)
    elif word == "base64":
        form = [base64.b64encode(data).decode()]
    elif word in ("text", "json"):
        form = [placeholder]
    return [json.dumps(form, ensure_ascii=False, separators=(",", ":"))] if form else []
