"""Images and keys of repaired rows: values as PostgreSQL prints them, keys exactly as the connector writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from cdc_lake.project.printing import printed
from cdc_lake.project.types import Column, schema_of_repairs
from cdc_lake.query.compare import source_text
from cdc_lake.sqltext import ident, literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def source_image(entry: Mapping[str, Any]) -> str:
    """PostgreSQL's SQL of a row's image, over the table `t`; it is read with the schema of kind `repair`."""
    parts = []
    for column in schema_of_repairs(entry).columns:
        value = f"t.{ident(column.name)}"
        parts.append(literal(json.dumps(column.name, ensure_ascii=False) + ":") + " || " + _json(column, value))
    return "'{' || " + " || ',' || ".join(parts) + " || '}'"


def _json(column: Column, value: str) -> str:
    if not column.lake_type.endswith("[]"):
        return f"coalesce(to_json({source_text(column.source_type, value)})::text, 'null')"
    element = source_text(column.source_type.removesuffix("[]"), "x")
    # The lake's lists have one dimension: the connector, too, has no value for others.
    items = f"(SELECT json_agg({element}) FROM unnest({value}) x)::text"
    return f"CASE WHEN {value} IS NULL OR array_ndims({value}) > 1 THEN 'null' ELSE coalesce({items}, '[]') END"


def lake_image(entry: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """DuckDB's SQL of a row's image in the same form, over rows `l` that have `columns` as c0, c1, …"""
    known = {c.name for c in schema_of_repairs(entry).columns}
    parts = []
    for i, column in enumerate(columns):
        if column.name not in known:
            continue
        if column.lake_type.endswith("[]"):
            element = printed(column.lake_type.removesuffix("[]"), "e")
            text = f"list_transform(l.c{i}, lambda e: {element})"
        else:
            text = printed(column.lake_type, f"l.c{i}")
        parts.append(f"{literal(column.name)}, {text}")
    return f"json_object({', '.join(parts)})::VARCHAR"


@dataclass(frozen=True, slots=True)
class KeyWriter:
    """Writes a key as the connector's JSON converter does, from the values' texts in the order of `names`."""

    names: list[str]
    writers: tuple[Callable[[str], str], ...]

    @classmethod
    def of(cls, columns: Sequence[Column]) -> KeyWriter | None:
        """None when it is not known how the connector writes one of the key's types."""
        writers = tuple(_WRITERS.get(c.encoding) for c in columns)
        known = tuple(w for w in writers if w is not None)
        return cls([c.name for c in columns], known) if len(known) == len(writers) else None

    def write(self, values: Sequence[str]) -> str:
        """The key's text."""
        parts = [f"{_string(n)}:{w(v)}" for n, w, v in zip(self.names, self.writers, values, strict=True)]
        return f"{{{','.join(parts)}}}"


def _string(text: str) -> str:
    # Jackson writes the digits of an escaped control character in capitals.
    return re.sub(r"\\u00[0-9a-f]{2}", lambda m: "\\u" + m[0][2:].upper(), json.dumps(text, ensure_ascii=False))


def _number(text: str) -> str:
    return text


def _boolean(text: str) -> str:
    return "true" if text == "t" else "false"


def _days(text: str) -> str:
    return str((date.fromisoformat(text) - _EPOCH.date()).days)


def _since_epoch(unit: timedelta) -> Callable[[str], str]:
    return lambda text: str((datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // unit)


_WRITERS: dict[str, Callable[[str], str]] = {
    "int": _number,
    "text": _string,
    "numeric_text": _string,
    "bool": _boolean,
    "date_days": _days,
    "timestamp_ms": _since_epoch(timedelta(milliseconds=1)),
    "timestamp_us": _since_epoch(timedelta(microseconds=1)),
}
