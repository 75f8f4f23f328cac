"""The shapes a table's rows were written in, and the SQL that reads all of them into the newest.

Each image is read with the schema it was written under; versions that read alike share one branch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdc_lake.connector_file import ConnectorFile
from cdc_lake.events import TableId
from cdc_lake.project.types import (
    TableSchema,
    merged,
    raw_spec,
    schema_from_catalogue,
    schema_from_connect,
    schema_from_images,
    schema_of_repairs,
    typed_columns,
    unchanged_expression,
)
from cdc_lake.sqltext import ident, literal

# A mark made of these characters stands in JSON text as it is, so that a search finds the images that may hold one.
_PLAIN_MARK = re.compile(r"[A-Za-z0-9_.: -]+")


@dataclass(frozen=True, slots=True)
class Written:
    """Rows of these schema ids are read alike."""

    schema: TableSchema
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """`target` is what readers see. `written` are the other ways rows were written; all else is read as `target`."""

    target: TableSchema
    written: tuple[Written, ...] = ()
    placeholder: str = ""

    @property
    def keyed(self) -> bool:
        """Whether rows have a key."""
        return bool(self.target.key_columns)

    @property
    def names(self) -> list[str]:
        """The columns readers see, in order."""
        return [c.name for c in self.target.columns]

    @property
    def toastable(self) -> list[int]:
        """Positions of columns whose value an update may leave out."""
        columns = enumerate(self.target.columns)
        return [i for i, c in columns if unchanged_expression(c, "x", self.placeholder) is not None]

    def values(self, schema: TableSchema, image: str) -> list[str]:
        """SQL of each target column, from a parsed image written under `schema`."""
        items = typed_columns(schema, image, target=self.target)
        return [i.removesuffix(f" AS {ident(n)}") for i, n in zip(items, self.names, strict=True)]

    def marks(self, schema: TableSchema, image: str) -> dict[int, str]:
        """Boolean SQL per toastable column: the image says "unchanged" instead of a value."""
        columns = {c.name: c for c in schema.columns}
        found: dict[int, str] = {}
        for i in self.toastable:
            column = columns.get(self.names[i])
            raw = f"{image}.{ident(self.names[i])}"
            mark = unchanged_expression(column, raw, self.placeholder) if column is not None else None
            found[i] = mark or "false"
        return found

    def branches(self, source: str, image: str, schema_id: str) -> list[tuple[TableSchema, str]]:
        """`source` split by how its rows were written, each with its parsed `image` added as `__image`."""

        def parsed(schema: TableSchema, condition: str) -> str:
            spec = literal(raw_spec(schema))
            return f"(SELECT *, json_transform({image}, {spec}) AS __image FROM {source} WHERE {condition})"

        listed = [i for w in self.written for i in w.ids]
        rest = f"{schema_id} IS NULL OR {schema_id} NOT IN {_in(listed)}" if listed else "true"
        return [(self.target, parsed(self.target, rest))] + [
            (w.schema, parsed(w.schema, f"{schema_id} IN {_in(w.ids)}")) for w in self.written
        ]

    def decoded(self, source: str, image: str, schema_id: str, carry: Sequence[str], *, marks: bool = False) -> str:
        """A query: the `carry` columns of `source`, the row's values as c0, c1, …, and with `marks` u0, u1, … for
        the toastable ones."""
        selects = []
        for schema, relation in self.branches(source, image, schema_id):
            items = [*carry, *(f"{v} AS c{i}" for i, v in enumerate(self.values(schema, "__image")))]
            if marks:
                items += [f"{m} AS u{i}" for i, m in self.marks(schema, "__image").items()]
            selects.append(f"SELECT {', '.join(items)} FROM {relation} AS parsed")
        return " UNION ALL ".join(selects)

    def may_hold_mark(self, image: str) -> str:
        """Cheap boolean SQL, true at least for every image text that says "unchanged" somewhere."""
        if not _PLAIN_MARK.fullmatch(self.placeholder) or any(c.lake_type.endswith("[]") for c in self.target.columns):
            return f"{image} IS NOT NULL"
        encoded = f"to_base64({literal(self.placeholder)}::BLOB)"
        return f"(contains({image}, {literal(self.placeholder)}) OR contains({image}, {encoded}))"


def _in(ids: Iterable[str]) -> str:
    return f"({', '.join(literal(i) for i in ids)})"


@dataclass(frozen=True, slots=True)
class SchemaRow:
    """One version as the lake's `schemas` table has it."""

    schema_id: str
    kind: str
    definition: str
    key_definition: str | None
    settings: Mapping[str, str]
    recorded: tuple[Any, int]


def resolve_shapes(
    table: TableId,
    rows: Sequence[SchemaRow],
    newest_id: str | None,
    sample: Callable[[], tuple[list[str], list[str]]],
) -> Shapes:
    """The shapes of `table`: inline schemas first, types from the source's catalogue, else what the images say.

    `newest_id` is the schema of the newest row; `sample` gives some images and keys when nothing better is known.
    Raises LakeError: columns that differ only in case, or a schema that is none.
    """
    wires = {
        r.schema_id: schema_from_connect(table, r.definition, r.key_definition, r.settings)
        for r in sorted(rows, key=lambda r: r.recorded)
        if r.kind == "connect"
    }
    entries = sorted((r for r in rows if r.kind == "catalogue"), key=lambda r: r.recorded)
    settings: Mapping[str, str] = max(rows, key=lambda r: r.recorded).settings if rows else {}
    catalogue = schema_from_catalogue(json.loads(entries[-1].definition), entries[-1].settings) if entries else None
    if catalogue is not None:
        wires = {i: _with_types(wire, catalogue) for i, wire in wires.items()}
    repairs = {r.schema_id: schema_of_repairs(json.loads(r.definition)) for r in rows if r.kind == "repair"}
    newest = newest_id if newest_id in wires else next(reversed(wires), None)
    if newest is not None:
        target = _without_dropped(wires[newest], newest, rows)
    else:
        target = catalogue or schema_from_images(table, *sample())
    placeholder = ConnectorFile(name="", config=dict(settings)).placeholder
    return Shapes(target=target, written=_grouped(wires | repairs, target), placeholder=placeholder)


def _with_types(wire: TableSchema, catalogue: TableSchema) -> TableSchema:
    return merged(wire, catalogue)


def _without_dropped(target: TableSchema, newest: str, rows: Sequence[SchemaRow]) -> TableSchema:
    """Without columns that the catalogue still knows and an older shape had, but the newest rows no longer have."""
    fields = {r.schema_id: _field_names(r.definition) for r in rows if r.kind == "connect"}
    dropped = set().union(*fields.values()) - fields[newest]
    return replace(target, columns=tuple(c for c in target.columns if c.name not in dropped))


def _field_names(definition: str) -> set[str]:
    images = {f.get("field"): f for f in json.loads(definition)["fields"]}
    return {f["field"] for f in (images.get("after") or images["before"])["fields"]}


def _grouped(wires: Mapping[str, TableSchema], target: TableSchema) -> tuple[Written, ...]:
    def reading(schema: TableSchema) -> frozenset[tuple[str, str, str]]:
        names = {c.name for c in target.columns}
        return frozenset((c.name, c.lake_type, c.encoding) for c in schema.columns if c.name in names)

    # A shape that only lacks columns reads as the target does: an absent field is null either way.
    whole = reading(target)
    groups: dict[frozenset[tuple[str, str, str]], list[str]] = {}
    for schema_id, schema in wires.items():
        if not reading(schema) <= whole:
            groups.setdefault(reading(schema), []).append(schema_id)
    return tuple(Written(wires[ids[0]], tuple(ids)) for ids in groups.values())
