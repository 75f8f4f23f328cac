"""The columns of a source table as the lake shows them, and how the connector wrote each.

A schema comes from the Connect schema beside an event, from the source's catalogue, or, when neither is there, from the
images themselves. `merged` takes types from the catalogue and encodings from the wire where both are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.project.limits import unsent
from cdc_lake.project.pgtypes import lake_type, parse_type
from cdc_lake.project.wire import Settings, encoding_for


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `source_type` in PostgreSQL's spelling, `lake_type` in DuckDB's.

    `key_position` is the 1-based place in the key; `encoding` is how the connector wrote the value (see `encodings`).
    """

    name: str
    source_type: str
    lake_type: str
    key_position: int | None
    nullable: bool
    encoding: str


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table's columns in the source's order. `origin`: `connect`, `catalogue` or `inferred`."""

    table: TableId
    columns: tuple[Column, ...]
    origin: str

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The key's columns in the key's order; empty for a table without one."""
        keyed = [c for c in self.columns if c.key_position is not None]
        return tuple(sorted(keyed, key=lambda c: c.key_position or 0))


def checked(schema: TableSchema) -> TableSchema:
    """`schema` itself. Raises LakeError when two columns differ only in case: DuckDB cannot hold both."""
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise LakeError(
                f'{schema.table} has the columns "{other}" and "{column.name}", which differ only in case.',
                why="DuckDB ignores case in column names, so a table cannot hold both.",
                next=f"rename one, or leave it out with column.exclude.list in the connector of {schema.table}",
                code="column_case",
            )
    return schema


def schema_from_catalogue(entry: Mapping[str, Any], settings: Settings) -> TableSchema:
    """The schema of a table as the source's catalogue describes it (an entry of `capture.catalogue`).

    `settings` are the connector's modes; what is missing has Debezium's default. Columns that the connector never
    sends (`limits.unsent`) are left out: a query that names one must fail rather than read nulls.
    Raises LakeError for columns that differ only in case.
    """
    missing = unsent(entry)
    columns = [_catalogue_column(c, settings) for c in entry["columns"] if c["name"] not in missing]
    return checked(TableSchema(TableId(entry["schema"], entry["table"]), tuple(columns), "catalogue"))


def schema_of_repairs(entry: Mapping[str, Any]) -> TableSchema:
    """The schema of rows that `verify --repair` wrote: each value, or each element of a list, as PostgreSQL prints it.

    `entry` is one of `capture.catalogue`. Raises LakeError for columns that differ only in case.
    """
    schema = schema_from_catalogue(entry, {})
    columns = [replace(c, encoding=f"{'[]' if c.lake_type.endswith('[]') else ''}source_text") for c in schema.columns]
    return replace(schema, columns=tuple(columns))


def _catalogue_column(entry: Mapping[str, Any], settings: Settings) -> Column:
    declared = parse_type(entry["type"])
    pg, kinds = declared, (entry.get("typtype"), entry.get("element_typtype"), entry.get("base_typtype"))
    domain = entry.get("typtype") == "d" and bool(entry.get("base_type"))
    if domain:
        pg = parse_type(entry["base_type"])
    encoding, lake = encoding_for(pg, settings, is_enum="e" in kinds and kinds[1] != "d"), lake_type(pg)
    if domain and not pg.array and lake != "VARCHAR":
        encoding, lake = f"printed|{lake}|{encoding}", "VARCHAR"
    return Column(
        name=entry["name"],
        source_type=entry["type"],
        lake_type=lake,
        key_position=entry.get("key_position"),
        nullable=not entry.get("not_null", False),
        encoding=encoding,
    )


def merged(wire: TableSchema, catalogue: TableSchema) -> TableSchema:
    """Types, order and keys from the catalogue; encodings from the wire for every column that both know.

    The wire says how values were written, whatever the settings are today; the catalogue knows domains, lengths and
    scales that the wire may leave out. A column whose type was another when the wire's schema was made keeps the
    wire's. Columns that only one side knows are kept, the wire's after the catalogue's.
    """
    written = {c.name: c for c in wire.columns}
    columns = [_merged_column(written.pop(c.name, None), c) for c in catalogue.columns]
    return checked(replace(catalogue, columns=(*columns, *written.values()), origin=wire.origin))


def _merged_column(wire: Column | None, catalogue: Column) -> Column:
    if wire is None:
        return catalogue
    listed, _, inner = catalogue.encoding.rpartition("|")
    if wire.encoding.removeprefix("[]") in ("text", "base64", "text_base64") and _written_as(inner, wire.encoding):
        # Bare strings and bytes say nothing of what is in them; the catalogue does.
        return catalogue
    shown = (catalogue.lake_type, listed.removeprefix("printed|"))
    if wire.encoding.startswith("printed|") or wire.lake_type not in shown:
        return replace(wire, key_position=catalogue.key_position, nullable=catalogue.nullable)
    return replace(catalogue, encoding=f"{listed}|{wire.encoding}" if listed else wire.encoding)


def _written_as(encoding: str, bare: str) -> bool:
    """Whether values of `encoding` look like `bare` on the wire: strings (`text`) or bytes (`base64`)."""
    if encoding.startswith("[]") != bare.startswith("[]"):
        return False
    strings = ("text", "numeric_text", "base64url", "hex", "text_base64url", "text_hex", "geometry_base64url")
    either = ("base64", "text_base64", "geometry_base64")
    word = encoding.removeprefix("[]")
    return word in either or (bare.removeprefix("[]") == "text" and word in (*strings, "geometry_hex"))


def schema_from_images(table: TableId, images: Sequence[str], keys: Sequence[str]) -> TableSchema:
    """The last resort, when events are plain JSON and the source cannot be asked: types as JSON itself has them.

    `images` are row images, `keys` the events' keys, both JSON text. Integers are BIGINT, other numbers DOUBLE, objects
    and arrays JSON; a field of several kinds, or always null, is VARCHAR. Raises LakeError for columns that differ only
    in case.
    """
    kinds: dict[str, set[str]] = {}
    for image in images:
        for name, value in (json.loads(image) or {}).items():
            kinds.setdefault(name, set()).update(_kind(value))
    key_names = list(dict.fromkeys(name for key in keys for name in (json.loads(key) or {})))
    for name in key_names:
        kinds.setdefault(name, set())
    columns = [_inferred_column(name, found, key_names) for name, found in kinds.items()]
    return checked(TableSchema(table, tuple(columns), "inferred"))


def _kind(value: Any) -> set[str]:
    if value is None:
        return set()
    for kind, types in (("boolean", bool), ("bigint", int), ("double precision", float), ("text", str)):
        if isinstance(value, types):
            return {kind}
    return {"json"}


_INFERRED = {"boolean": "bool", "bigint": "int", "double precision": "float", "text": "text", "json": "document"}


def _inferred_column(name: str, kinds: set[str], key_names: list[str]) -> Column:
    if kinds == {"bigint", "double precision"}:
        kinds = {"double precision"}
    kind = next(iter(kinds)) if len(kinds) == 1 else "text"
    position = key_names.index(name) + 1 if name in key_names else None
    return Column(name, kind, lake_type(parse_type(kind)), position, position is None, _INFERRED[kind])
