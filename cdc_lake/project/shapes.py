"""The shapes a table's rows were written in, and the SQL that reads all of them into the newest.

Each image is read with the schema it was written under; versions that read alike share one branch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cdc_lake.connector_file import ConnectorFile
from cdc_lake.events import TableId
from cdc_lake.project.event_columns import schema_of_events
from cdc_lake.project.keyings import Keying, find_keyings, keyed_as
from cdc_lake.project.lineage import Fill, Lineage, Told, read_told
from cdc_lake.project.types import (
    Column,
    TableSchema,
    merged,
    raw_spec,
    schema_from_catalogue,
    schema_from_connect,
    schema_from_images,
    schema_of_repairs,
    shown_as,
    typed_expression,
    unchanged_expression,
    widens,
)
from cdc_lake.sqltext import ident, literal

# A mark made of these characters stands in JSON text as it is, so that a search finds the images that may hold one.
_PLAIN_MARK = re.compile(r"[A-Za-z0-9_.: -]+")


@dataclass(frozen=True, slots=True)
class Written:
    """Rows of these schema ids are read alike: for each target column, where it is in them, or what they show there."""

    schema: TableSchema
    ids: tuple[str, ...]
    places: tuple[Column | Fill, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """`target` is what readers see. `written` are the other ways rows were written; all else is read as `target`.

    `folds` are the ways in which a fold may be laid out, by number, `layout` is the number of a fold that is made now.
    `keyings` are the keys that rows were sent under when there are several, today's the last one.
    """

    target: TableSchema
    written: tuple[Written, ...] = ()
    placeholder: str = ""
    folds: Mapping[int, Written] = field(default_factory=dict)
    layout: int = 0
    keyings: tuple[Keying, ...] = ()

    @property
    def unsure(self) -> list[str]:
        """Columns that older rows do not have, and nothing tells what the source shows there."""
        found = [p for w in self.written for p in zip(self.names, w.places, strict=True)]
        return sorted({name for name, place in found if isinstance(place, Fill) and not place.sure})

    @property
    def converted(self) -> list[str]:
        """Columns whose type was another one: the source converted their values, and sent none of that."""
        found = [p for w in self.written for p in zip(self.target.columns, w.places, strict=True)]
        return sorted({c.name for c, p in found if isinstance(p, Column) and not widens(p.lake_type, c.lake_type)})

    @property
    def lost_keys(self) -> list[tuple[str, ...]]:
        """Older keys under which rows were sent whose images do not tell what they are called by today's."""
        told = self.keyings[-1].texts if self.keyings else {}
        return [k.columns for k in self.keyings[:-1] if not all(i in told for i in k.ids)]

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

    def values(self, written: Written, image: str) -> list[str]:
        """SQL of each target column, from an image that was parsed as `written`."""
        return [
            f"CAST({place.sql} AS {column.lake_type})"
            if isinstance(place, Fill)
            else shown_as(place, column, f"{image}.{ident(place.name)}")
            for place, column in zip(written.places, self.target.columns, strict=True)
        ]

    def marks(self, written: Written, image: str) -> dict[int, str]:
        """Boolean SQL per toastable column: the image says "unchanged" instead of a value."""
        found: dict[int, str] = {}
        for i in self.toastable:
            place = written.places[i]
            mark = None
            if isinstance(place, Column):
                mark = unchanged_expression(place, f"{image}.{ident(place.name)}", self.placeholder)
            found[i] = mark or "false"
        return found

    def branches(self, source: str, image: str, schema_id: str) -> list[tuple[Written, str]]:
        """`source` split by how its rows were written, each with its parsed `image` added as `__image`."""

        def parsed(schema: TableSchema, condition: str) -> str:
            spec = literal(raw_spec(schema))
            return f"(SELECT *, json_transform({image}, {spec}) AS __image FROM {source} WHERE {condition})"

        listed = [i for w in self.written for i in w.ids]
        rest = f"{schema_id} IS NULL OR {schema_id} NOT IN {_in(listed)}" if listed else "true"
        as_target = Written(self.target, (), self.target.columns)
        return [(as_target, parsed(self.target, rest))] + [
            (w, parsed(w.schema, f"{schema_id} IN {_in(w.ids)}")) for w in self.written
        ]

    def decoded(
        self,
        source: str,
        image: str,
        schema_id: str,
        carry: Sequence[str],
        *,
        marks: bool = False,
        unread: bool = False,
    ) -> str:
        """A query: the `carry` columns of `source`, the row's values as c0, c1, …, with `marks` u0, u1, … for the
        toastable ones, and with `unread` the JSON of values that do not fit their column's type of today."""
        selects = []
        for written, relation in self.branches(source, image, schema_id):
            items = [*carry, *(f"{v} AS c{i}" for i, v in enumerate(self.values(written, "__image")))]
            if marks:
                items += [f"{m} AS u{i}" for i, m in self.marks(written, "__image").items()]
            if unread:
                items.append(f"{self._unread(written, '__image')} AS unread")
            selects.append(f"SELECT {', '.join(items)} FROM {relation} AS parsed")
        return " UNION ALL ".join(selects)

    def _unread(self, written: Written, image: str) -> str:
        """SQL of a JSON object: the values that are null or another in the target's type, as they arrived."""
        marks, parts = self.marks(written, image), []
        for i, (place, column) in enumerate(zip(written.places, self.target.columns, strict=True)):
            if isinstance(place, Fill) or column.lake_type == "VARCHAR" or widens(place.lake_type, column.lake_type):
                continue
            raw = f"{image}.{ident(place.name)}"
            value, back = typed_expression(place, raw), shown_as(place, column, raw)
            lost = f"{value} IS DISTINCT FROM TRY_CAST({back} AS {place.lake_type}) AND NOT {marks.get(i, 'false')}"
            name = literal(json.dumps(column.name, ensure_ascii=False) + ":")
            parts.append(f"CASE WHEN {raw} IS NOT NULL AND {lost} THEN {name} || to_json({raw})::VARCHAR END")
        if not parts:
            return "NULL::VARCHAR"
        listed = f"list_filter([{', '.join(parts)}]::VARCHAR[], lambda x: x IS NOT NULL)"
        return f"'{{' || nullif(array_to_string({listed}, ','), '') || '}}'"

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
    unkeyed: Callable[[str], bool] = lambda _: False,
) -> Shapes:
    """The shapes of `table`: inline schemas first, types from the source's catalogue, else what the images say.

    `newest_id` is the schema of the newest row; `sample` gives some images and keys when nothing better is known,
    `unkeyed` says whether rows of a version were sent without a key, other than truncates, which never have one.
    Raises LakeError: columns that differ only in case, or a schema that is none.
    """
    versions = sorted((r for r in rows if r.kind in ("connect", "repair")), key=lambda r: r.recorded)
    entries = sorted((r for r in rows if r.kind == "catalogue"), key=lambda r: r.recorded)
    settings: Mapping[str, str] = max(rows, key=lambda r: r.recorded).settings if rows else {}
    catalogue = schema_from_catalogue(json.loads(entries[-1].definition), entries[-1].settings) if entries else None
    known = {r.schema_id: _read(table, r, catalogue) for r in versions}
    wires = [r.schema_id for r in versions if r.kind == "connect"]
    newest = newest_id if newest_id in wires else next(reversed(wires), None)
    placeholder = ConnectorFile(name="", config=dict(settings)).placeholder
    if newest is None:
        # Events have each field at its own name, whatever version they were written under.
        target = schema_of_events(table, rows) or catalogue or schema_from_images(table, *sample())
        by_name = Lineage({"": [c.name for c in target.columns], **{i: _names(known[i]) for i in known}})
        return Shapes(target, _grouped(known, by_name, "", target), placeholder)
    fields = {r.schema_id: _field_names(r) for r in versions}
    lineage = Lineage(fields, _told(rows))
    targets = {i: _without_dropped(known[i], i, fields) for i in wires}
    target = targets[newest]
    if not target.key_columns and not unkeyed(newest):
        target = _with_key(target, newest, versions, known)
    return Shapes(
        target,
        _grouped(known, lineage, newest, target),
        placeholder,
        {_layout(i, t): Written(t, (), _places(t, i, lineage, newest, target)) for i, t in targets.items()},
        _layout(newest, targets[newest]),
        find_keyings(known, lineage, newest, target, placeholder),
    )


def _read(table: TableId, row: SchemaRow, catalogue: TableSchema | None) -> TableSchema:
    if row.kind == "repair":
        return schema_of_repairs(json.loads(row.definition))
    wire = schema_from_connect(table, row.definition, row.key_definition, row.settings)
    return keyed_as(merged(wire, catalogue), wire) if catalogue is not None else wire


def _told(rows: Sequence[SchemaRow]) -> dict[str, list[Told]]:
    found: dict[str, list[Told]] = {}
    for row in sorted((r for r in rows if r.kind == "columns"), key=lambda r: r.recorded):
        found.setdefault(row.schema_id, []).append(read_told(row.definition))
    return found


def _without_dropped(target: TableSchema, newest: str, fields: Mapping[str, Sequence[str]]) -> TableSchema:
    """Without columns that the catalogue still knows and an older shape had, but the newest rows no longer have."""
    dropped = {n for names in fields.values() for n in names} - set(fields[newest])
    return replace(target, columns=tuple(c for c in target.columns if c.name not in dropped))


def _with_key(
    target: TableSchema, newest: str, versions: Sequence[SchemaRow], known: Mapping[str, TableSchema]
) -> TableSchema:
    """With the key that another record of the same shape had: one without a key (a truncate) says nothing of it."""
    definition = next(r.definition for r in versions if r.schema_id == newest)
    alike = (r.schema_id for r in reversed(versions) if r.definition == definition)
    keyed = next((known[i] for i in alike if known[i].key_columns), None)
    if target.key_columns or keyed is None:
        return target
    keys = {c.name: c.key_position for c in keyed.columns}
    return replace(target, columns=tuple(replace(c, key_position=keys.get(c.name)) for c in target.columns))


def _field_names(row: SchemaRow) -> list[str]:
    document = json.loads(row.definition)
    if row.kind == "repair":
        return [c["name"] for c in document["columns"]]
    images = {f.get("field"): f for f in document["fields"]}
    return [f["field"] for f in (images.get("after") or images["before"])["fields"]]


def _names(schema: TableSchema) -> list[str]:
    return [c.name for c in schema.columns]


def _places(
    schema: TableSchema, version: str, lineage: Lineage, newest: str, target: TableSchema
) -> tuple[Column | Fill, ...]:
    columns = {c.name: c for c in schema.columns}

    def place(column: Column) -> Column | Fill:
        if column.name not in lineage.fields[newest]:
            return columns.get(column.name) or Fill("NULL", sure=False)
        found = columns.get(lineage.field_of(version, newest, column.name) or "")
        return found or lineage.fill(version, newest, column)

    return tuple(place(c) for c in target.columns)


def _grouped(
    known: Mapping[str, TableSchema], lineage: Lineage, newest: str, target: TableSchema
) -> tuple[Written, ...]:
    """The versions that are not read as the target is, those that read alike together.

    A version that only lacks columns, and shows null there, is read as the target: a field that is not there is null.
    """

    def as_target(version: str, place: Column | Fill, column: Column) -> bool:
        if isinstance(place, Fill):
            return place == Fill("NULL", sure=True) and column.name not in _names(known[version])
        return (place.name, place.lake_type, place.encoding) == (column.name, column.lake_type, column.encoding)

    groups: dict[tuple[Any, ...], Written] = {}
    for version, schema in known.items():
        places = _places(schema, version, lineage, newest, target)
        if version == newest or all(as_target(version, p, c) for p, c in zip(places, target.columns, strict=True)):
            continue
        alike = tuple(p if isinstance(p, Fill) else (p.name, p.lake_type, p.encoding) for p in places)
        before = groups.get(alike, Written(schema, (), places))
        groups[alike] = replace(before, ids=(*before.ids, version))
    return tuple(groups.values())


def _layout(version: str, target: TableSchema) -> int:
    """A number for what a fold under `version` holds, by which later readers know how it was laid out."""
    text = json.dumps([version, [(c.name, c.lake_type) for c in target.columns]])
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
