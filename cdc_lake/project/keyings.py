"""The keys that a table has had: which shapes were sent under each, and what a row of one is called by another.

ALTER TABLE may put a primary key on other columns, or rename those it is on. No event tells: from then on events name
rows by the new key. An image holds all columns, so what the last image of a row says is its name under the new key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cdc_lake.project.lineage import Lineage
from cdc_lake.project.schema import Column, TableSchema
from cdc_lake.sqltext import literal

_WHOLE = ("SMALLINT", "INTEGER", "BIGINT")
# How the connector writes what a repair wrote as PostgreSQL prints it: as a bare number, or as a string.
_AS_NUMBER, _AS_STRING = ("int",), ("text", "numeric_text")


@dataclass(frozen=True, slots=True)
class Keying:
    """A key: its columns, and the versions whose rows were sent under it.

    `texts` is SQL of this key's text over an image `img`, by the version of the image; a version whose images do not
    tell it is not there.
    """

    columns: tuple[str, ...]
    ids: tuple[str, ...]
    texts: Mapping[str, str]


def find_keyings(
    known: Mapping[str, TableSchema], lineage: Lineage, newest: str, target: TableSchema, placeholder: str
) -> tuple[Keying, ...]:
    """Every key that versions in `known` have, that of `target` (the version `newest`) last; empty when it has none."""
    now = tuple(c.name for c in target.key_columns)
    versions: dict[tuple[str, ...], list[str]] = {}
    for version, schema in known.items():
        names = tuple(c.name for c in schema.key_columns)
        if names:
            versions.setdefault(names, []).append(version)
    if not now or not versions.keys() - {now}:
        return ()
    mine = versions.pop(now, [])
    keys = [_Key(known[ids[-1]], ids[-1], tuple(ids)) for ids in versions.values()]
    keys.append(_Key(target, newest, tuple(dict.fromkeys([*mine, newest]))))
    return tuple(Keying(k.columns, k.ids, _texts(k, known, lineage, placeholder)) for k in keys)


@dataclass(frozen=True, slots=True)
class _Key:
    """A key, as the version `version` of the shape `schema` has it."""

    schema: TableSchema
    version: str
    ids: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.schema.key_columns)


def _texts(key: _Key, known: Mapping[str, TableSchema], lineage: Lineage, placeholder: str) -> dict[str, str]:
    texts = {v: _text(s, v, lineage, key, placeholder) for v, s in known.items()}
    return {version: text for version, text in texts.items() if text is not None}


def keyed_as(schema: TableSchema, wire: TableSchema) -> TableSchema:
    """`schema` with the key that the `wire` has, if it has one."""
    if not wire.key_columns:
        return schema
    places = {c.name: c.key_position for c in wire.columns}
    return replace(schema, columns=tuple(replace(c, key_position=places.get(c.name)) for c in schema.columns))


def _text(schema: TableSchema, version: str, lineage: Lineage, key: _Key, placeholder: str) -> str | None:
    """SQL of the key's text over an image of `version`; None when it cannot be told."""
    columns, parts = {c.name: c for c in schema.columns}, []
    for wanted in key.schema.key_columns:
        held = columns.get(lineage.field_of(version, key.version, wanted.name) or "")
        value = _value(held, wanted) if held is not None else None
        if value is None:
            return None
        # A null, or a value that an update left out, names no row.
        told = f"nullif(nullif({value}, 'null'), {literal(json.dumps(placeholder))})"
        parts.append(f"{literal(json.dumps(wanted.name, ensure_ascii=False) + ':')} || {told}")
    return "'{' || " + " || ',' || ".join(parts) + " || '}'"


def _value(held: Column, wanted: Column) -> str | None:
    """SQL of the text that stands for the value in a key."""
    place = literal("/" + held.name.replace("~", "~0").replace("/", "~1"))
    as_it_is = f"json_extract(img, {place})::VARCHAR"
    if held.encoding == "source_text":
        if wanted.encoding in _AS_NUMBER:
            return f"json_extract_string(img, {place})"
        return as_it_is if wanted.encoding in _AS_STRING else None
    alike = held.lake_type == wanted.lake_type or {held.lake_type, wanted.lake_type} <= set(_WHOLE)
    return as_it_is if held.encoding == wanted.encoding and alike else None
