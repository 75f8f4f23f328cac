"""The fields that the events of a topic have had, each with the kind of its values: what their table's columns are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import pyarrow as pa

# A topic whose data has names for keys would make a table of thousands of columns; what is beyond stays in `__after`.
MOST = 400
_KINDS = {
    "BOOLEAN": "boolean",
    "BIGINT": "bigint",
    "UBIGINT": "bigint",
    "HUGEINT": "bigint",  # some below nothing, some above
    "DOUBLE": "double precision",
    "VARCHAR": "text",
    "NULL": "",
}


@dataclass(frozen=True)
class Fields:
    """Names and kinds (`boolean`, `bigint`, `double precision`, `text`, `json`; empty: only nulls so far), in the order
    in which they were first seen. It only grows, so that a field which has gone is still a column."""

    kinds: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def definition(self) -> str:
        """As the lake's `schemas` has it."""
        return json.dumps({"fields": [[name, kind] for name, kind in self.kinds.items()]}, ensure_ascii=False)

    @cached_property
    def id(self) -> str:
        """The name of this version."""
        return hashlib.sha256(self.definition.encode()).hexdigest()[:16]

    def with_those_of(self, duck: duckdb.DuckDBPyConnection, images: pa.ChunkedArray) -> Fields:
        """With the fields of `images` (JSON text)."""
        duck.register("images", pa.table({"img": images}))
        try:
            ((text,),) = duck.execute(
                "SELECT json_group_structure(img::JSON) FROM images WHERE img IS NOT NULL"
            ).fetchall()
        finally:
            duck.unregister("images")
        found = json.loads(text) if text is not None else {}
        return self.merged({n: _kind(t) for n, t in found.items()} if isinstance(found, dict) else {})

    def merged(self, others: Mapping[str, str]) -> Fields:
        """With `others`: a field of two kinds is of one that holds both."""
        kinds, folded = dict(self.kinds), {name.lower(): name for name in self.kinds}
        for name, kind in others.items():
            # DuckDB ignores case in names: of two that differ in nothing else the first is a column.
            if folded.setdefault(name.lower(), name) != name or not name:
                continue
            if name in kinds:
                kinds[name] = _wider(kinds[name], kind)
            elif len(kinds) < MOST:
                kinds[name] = kind
        return self if kinds == self.kinds else Fields(kinds)

    @classmethod
    def of(cls, definition: str) -> Fields:
        """What `definition` gave."""
        return cls({str(name): str(kind) for name, kind in json.loads(definition)["fields"]})


def _kind(structure: object) -> str:
    # DuckDB calls it JSON where values are of several kinds.
    return _KINDS.get(structure, "text") if isinstance(structure, str) else "json"


def _wider(one: str, other: str) -> str:
    if one == other or not other:
        return one
    if not one:
        return other
    if {one, other} == {"bigint", "double precision"}:
        return "double precision"
    # Text holds every value as it came; of nothing else can that be said of what a fold has stored already.
    return "text"
