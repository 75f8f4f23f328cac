"""The names a session knows, for completion and for `\\d`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from cdc_lake.query.session import Session
from cdc_lake.sqltext import ident

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Names:
    """Relations as they can be typed (`orders`, `changes.public.orders`), each with its columns."""

    relations: dict[str, tuple[str, ...]]

    def matching(self, word: str, text: str) -> Iterator[str]:
        """Names that begin with `word`; columns only of relations that `text` names, when it names any."""
        low = word.lower()
        named = [c for r, columns in self.relations.items() if _names(text, r) for c in columns]
        columns = named or [c for columns in self.relations.values() for c in columns]
        seen = set()
        for name in (*columns, *self.relations):
            if name.lower().startswith(low) and name not in seen:
                seen.add(name)
                yield name


def _names(text: str, relation: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(relation)}(?![\w.])", text) is not None


def read_names(session: Session) -> Names:
    """Ask DuckDB which relations and columns there are."""
    rows = session.connection.execute(
        """SELECT database_name, schema_name, table_name, list(column_name ORDER BY column_index)
        FROM duckdb_columns()
        WHERE database_name IN ('current', 'changes', 'history', 'lake') AND schema_name <> 'internal'
        GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    found: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for catalogue, schema, table, columns in rows:
        shown = tuple(quoted(c) for c in columns)
        if catalogue == "current":
            found[quoted(table) if schema == "public" else f"{quoted(schema)}.{quoted(table)}"] = shown
        elif catalogue == "lake":
            found[f"lake.{quoted(table)}"] = shown
        else:
            found[f"{catalogue}.{quoted(schema)}.{quoted(table)}"] = shown
    return Names(dict(found))


def quoted(name: str) -> str:
    """`name` as it must be typed: in quotes only where it needs them."""
    return name if _PLAIN.fullmatch(name) else ident(name)
