"""Which columns of two versions of a table are the same one, and what rows show that are older than a column.

PostgreSQL numbers a table's columns. With what the sink recorded of the catalogue when it first saw a version
(`capture.columns`), a renamed column is still the same, and one that was dropped and added again is another. Where
nothing was recorded, names decide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdc_lake.project import encodings
from cdc_lake.project.schema import Column
from cdc_lake.sqltext import literal

# A table by its object id and a column by its number in it.
Identity = tuple[int, int]
# PostgreSQL prints money as the locale has it.
_UNREADABLE = ("money",)


@dataclass(frozen=True, slots=True)
class Fill:
    """What a row shows in a column it is older than, as SQL; `sure` is false when nothing tells."""

    sql: str
    sure: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What the source's catalogue said: the table, the number of each column, and what older rows show in it."""

    table: int
    numbers: Mapping[str, int]
    missing: Mapping[int, tuple[str, str]]
    unsure: frozenset[int]
    last: int


def read_told(definition: str) -> Told:
    """The recorded JSON text."""
    entry = json.loads(definition)
    columns = entry["columns"]
    return Told(
        entry["oid"],
        {c["name"]: c["number"] for c in columns},
        {c["number"]: (c["missing"], c["missing_json"]) for c in columns if "missing" in c},
        frozenset(c["number"] for c in columns if c.get("unsure")),
        entry.get("last") or max((c["number"] for c in columns), default=0),
    )


def numbers_of(fields: Sequence[str], told: Told) -> dict[str, int]:
    """The column numbers of a version's `fields`, which are in the order of their numbers.

    What was told later than the version was made may know a field by another name, or not at all any more. Fields
    between two that are known have the numbers between theirs when there are just as many of those.
    """
    found = {n: told.numbers[n] for n in fields if n in told.numbers}
    taken, gap, low = set(found.values()), list[str](), 0
    for name in (*fields, None):
        if name is not None and name not in found:
            gap.append(name)
            continue
        high = found[name] if name is not None else told.last + 1
        free = [n for n in range(low + 1, high) if n not in taken]
        if len(free) == len(gap):
            found |= dict(zip(gap, free, strict=True))
        gap, low = [], high
    return found


@dataclass(frozen=True, slots=True)
class Lineage:
    """The versions of a table, oldest first: the fields of each, and what was told when it was seen."""

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    told: Mapping[str, Sequence[Told]] = field(default_factory=dict)
    # Asked for every pair of columns of two versions, so each answer is kept.
    _identities: dict[tuple[str, str], Identity | None] = field(default_factory=dict, repr=False, compare=False)

    def identity(self, version: str, name: str) -> Identity | None:
        """The column that `version` calls `name`; None when nobody ever said.

        Where what was told of the version does not say it, the nearest version that has the name answers, an earlier
        one first.
        """
        if (version, name) not in self._identities:
            self._identities[version, name] = self._identified(version, name)
        return self._identities[version, name]

    def _identified(self, version: str, name: str) -> Identity | None:
        order = list(self.fields)
        place = order.index(version)
        for near in (version, *reversed(order[:place]), *order[place + 1 :]):
            if name not in self.fields[near]:
                return None
            for told in reversed(self.told.get(near, ())):
                number = numbers_of(self.fields[near], told).get(name)
                if number is not None:
                    return told.table, number
        return None

    def field_of(self, version: str, target: str, name: str) -> str | None:
        """What `version` calls the column that `target` calls `name`; None when it does not have it."""
        wanted, fields = self.identity(target, name), self.fields[version]
        if wanted is None:
            return name if name in fields else None
        known = {n: self.identity(version, n) for n in fields}
        same = next((n for n, identity in known.items() if identity == wanted), None)
        if same is not None or name not in fields:
            return same
        other = known[name]
        # Of another table of the same name, or of one that nobody said anything about, names are all there is.
        return name if other is None or other[0] != wanted[0] else None

    def fill(self, version: str, target: str, column: Column) -> Fill:
        """What rows of `version`, which does not have it, show in the `column` of `target`."""
        wanted = self.identity(target, column.name)
        if wanted is None:
            return Fill("NULL", sure=False)
        every = [t for listed in self.told.values() for t in listed if t.table == wanted[0]]
        having = [t for t in every if wanted[1] in t.numbers.values()]
        missing = next((t.missing[wanted[1]] for t in having if wanted[1] in t.missing), None)
        if missing is not None:
            sql = _shown(column, *missing)
            return Fill(sql, sure=True) if sql is not None else Fill("NULL", sure=False)
        # A version that was seen while the column was there left it out for a reason of its own.
        before = any(wanted[1] in t.numbers.values() for t in self.told.get(version, ()))
        return Fill("NULL", sure=not before and not (having and wanted[1] in having[0].unsure))


def _shown(column: Column, text: str, as_json: str) -> str | None:
    """SQL of a value in the column's lake type, from its text and its JSON as PostgreSQL prints them."""
    if column.source_type in _UNREADABLE:
        return None
    if column.lake_type.endswith("[]"):
        return f"CAST({literal(as_json)}::JSON AS {column.lake_type})"
    if column.lake_type == "BOOLEAN":
        return "true" if text == "t" else "false"
    return encodings.typed("source_text", column.lake_type, literal(text))
