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
import uuid
from hashlib import md5

from cdc_lake.project import encodings
from cdc_lake.project.connect_schema import schema_from_connect
from cdc_lake.project.schema import (
    Column,
    TableSchema,
    checked,
    merged,
    schema_from_catalogue,
    schema_from_images,
)
from cdc_lake.sqltext import ident, literal

__all__ = [
    "Column",
    "TableSchema",
    "lossy_expression",
    "merged",
    "raw_spec",
    "schema_from_catalogue",
    "schema_from_connect",
    "schema_from_images",
    "typed_columns",
    "typed_expression",
    "unchanged_expression",
]


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


def _field(image: str, column: Column) -> str:
    return f"{image}.{ident(column.name)}"


def _as_target(written: Column | None, target: Column, image: str) -> str:
    if written is None:
        return f"NULL::{target.lake_type}"
    value = typed_expression(written, _field(image, written))
    if written.lake_type == target.lake_type:
        return value
    if target.lake_type == "VARCHAR":
        return encodings.printed(written.lake_type, value)
    return f"TRY_CAST({value} AS {target.lake_type})"


# Types of a fixed, small size: PostgreSQL never stores them out of line.
_NEVER_TOASTED = frozenset({"int", "float", "bool", "bit", "point", "timetz", "tz_iso"})
_NEVER_TOASTED_PREFIXES = ("date_", "time_", "timestamp_", "interval_")


def unchanged_expression(column: Column, raw: str, placeholder: str) -> str | None:
    """Boolean SQL: the raw value is the connector's mark for "unchanged, so PostgreSQL did not send it".

    `placeholder` is the connector's `unavailable.value.placeholder`. None when values of the type are never stored out
    of line. A user may store the very same text: only under a schema whose updates can omit values is it a mark.
    """
    is_list, word, _ = encodings.split(column.encoding.rsplit("|", 1)[-1])
    if is_list:
        marks = ", ".join(literal(mark) for mark in _list_marks(placeholder))
        return f"COALESCE(({raw})::VARCHAR IN ({marks}), false)"
    if word in _NEVER_TOASTED or word.startswith(_NEVER_TOASTED_PREFIXES) or column.source_type == "uuid":
        return None
    encoded = base64.b64encode(placeholder.encode()).decode()
    return f"COALESCE(({raw})::VARCHAR IN ({literal(placeholder)}, {literal(encoded)}), false)"


def _list_marks(placeholder: str) -> list[str]:
    data = placeholder.encode()
    # The connector's UUID mark is Java's nameUUIDFromBytes: MD5 without a namespace, version 3.
    digest = uuid.UUID(bytes=md5(data, usedforsecurity=False).digest(), version=3)
    forms: list[object] = [[placeholder], [base64.b64encode(data).decode()], list(data), [str(digest)]]
    return [json.dumps(form, ensure_ascii=False, separators=(",", ":")) for form in forms]
