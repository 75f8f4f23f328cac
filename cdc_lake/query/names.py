"""The names a session knows, for completion and for `\\d`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cdc_lake.query.needs import CATALOGUES as OF_TABLES
from cdc_lake.query.session import Session
from cdc_lake.query.statements import Piece, pieces
from cdc_lake.sqltext import ident

CATALOGUES = (*OF_TABLES, "lake", "streams")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
# Words behind which a table's name stands.
_BEFORE_TABLE = {"from", "join", "describe", "summarize", "table", "into", "update"}
_NO_ALIAS = {"where", "on", "using", "join", "left", "right", "full", "inner", "cross", "group", "order", "limit", "as"}
_FUNCTION_LETTERS = 2
KEYWORDS = re.findall(
    r"\w+",
    """select from where group by order having limit offset join left right full inner outer cross on using as with
    union all except intersect distinct case when then else end and or not in exists between like ilike is null asc
    desc describe summarize show qualify over partition filter values cast interval true false explain analyze pivot
    unpivot window rows preceding following exclude replace current changes history lake streams""",
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view, and its columns as they are typed."""

    catalogue: str
    schema: str
    name: str
    columns: tuple[str, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """Its whole name, part by part. A catalogue that is not of tables has one schema, which is not typed."""
        schema = (self.schema,) if self.catalogue in OF_TABLES else ()
        return tuple(quoted(p) for p in (self.catalogue, *schema, self.name))

    @property
    def typed(self) -> str:
        """The shortest name: that of a table of `current.public` stands alone."""
        return ".".join(self.path[self._optional :])

    def answers(self, name: str) -> bool:
        """Whether it may be typed as `name`."""
        return name.lower() in {".".join(self.path[i:]).lower() for i in range(self._optional + 1)}

    @property
    def _optional(self) -> int:
        """How many leading parts of the name may be left out."""
        if self.catalogue != "current":
            return 0
        return 2 if self.schema == "public" else 1


@dataclass(frozen=True, slots=True)
class Names:
    """What can be typed: relations with their columns, and functions."""

    relations: tuple[Relation, ...]
    functions: tuple[str, ...]

    def relation(self, name: str) -> Relation | None:
        """The relation that is typed as `name`."""
        return next((r for r in self.relations if r.answers(name)), None)

    def completions(self, before: str, after: str = "") -> tuple[str, list[str]]:
        """The word at the end of `before`, and what it may become, the likely first."""
        typed = list(pieces(before))
        if typed and typed[-1].open and typed[-1].kind != "name":
            return "", []
        word = _word(typed)
        behind = _word_before(typed, word)
        *path, last = _parts(word)
        named = self._named(before + after)
        if path:
            return word, _begin([".".join([*path, n]) for n in self._below(path, named)], word)
        if behind in _BEFORE_TABLE:
            return word, _begin([*self._tables(), *CATALOGUES], last)
        columns = [c for r in named.values() for c in r.columns] or [c for r in self.relations for c in r.columns]
        found = _begin([*columns, *self._tables()], last)
        return word, found + (_words(last, KEYWORDS) if last else []) + _words(last, self.functions, _FUNCTION_LETTERS)

    def _tables(self) -> list[str]:
        return sorted((r.typed for r in self.relations), key=lambda n: (n.count("."), n))

    def _below(self, path: list[str], named: dict[str, Relation]) -> list[str]:
        """What may stand behind `path` and a dot: columns of a table or an alias, tables of a schema, schemas."""
        name = ".".join(path)
        one = named.get(name.lower()) or self.relation(name)
        if one is not None:
            return list(one.columns)
        size, low = len(path), [p.lower() for p in path]
        below = []
        for relation in self.relations:
            ways = [relation.path] if relation.catalogue != "current" else [relation.path, relation.path[1:]]
            below += [w[size] for w in ways if len(w) > size and [p.lower() for p in w[:size]] == low]
        return below

    def _named(self, sql: str) -> dict[str, Relation]:
        """The relations that a query reads, by name and alias."""
        found: dict[str, Relation] = {}
        typed = [p for p in pieces(sql) if p.kind != "comment" and not p.text.isspace()]
        at = 0
        while at < len(typed):
            name, end = _name_at(typed, at)
            relation = self.relation(name) if name else None
            if relation is not None:
                found[name.lower()] = relation
                found[relation.path[-1].lower()] = relation
                alias = typed[end].text.lower() if end < len(typed) else ""
                if alias == "as" and end + 1 < len(typed):
                    alias = typed[end + 1].text.lower()
                if _PLAIN.fullmatch(alias) and alias not in _NO_ALIAS:
                    found[alias] = relation
            at = end
        return found


def _name_at(typed: list[Piece], at: int) -> tuple[str, int]:
    """The dotted name that begins at a piece, and the first piece behind it."""
    if typed[at].kind not in ("word", "name"):
        return "", at + 1
    name, end = typed[at].text, at + 1
    while end + 1 < len(typed) and typed[end].text == "." and typed[end + 1].kind in ("word", "name"):
        name, end = f"{name}.{typed[end + 1].text}", end + 2
    return name, end


def _word(typed: list[Piece]) -> str:
    """The dotted word at the end."""
    size = 0
    for piece in reversed(typed):
        if piece.kind not in ("word", "name") and piece.text != ".":
            break
        size += len(piece.text)
    text = "".join(p.text for p in typed)
    return text[len(text) - size :]


def _word_before(typed: list[Piece], word: str) -> str:
    size = sum(len(p.text) for p in typed) - len(word)
    before = [p for p in typed if p.start < size and p.kind != "comment" and not p.text.isspace()]
    return before[-1].text.lower() if before else ""


def _parts(word: str) -> list[str]:
    """`a."b.c".d` as its parts; the last is what is being typed."""
    parts = [""]
    for piece in pieces(word):
        if piece.text == ".":
            parts.append("")
        else:
            parts[-1] += piece.text
    return parts


def _begin(names: list[str], word: str) -> list[str]:
    """The names that begin with `word`, each once; a name that needs quotes is found without them too."""
    low = word.lower()
    return list(
        dict.fromkeys(n for n in names if n.lower().startswith(low) or n.replace('"', "").lower().startswith(low))
    )


def _words(word: str, words: Sequence[str], letters: int = 1) -> list[str]:
    """Words of the language, in the case that the person types in."""
    if len(word) < letters:
        return []
    found = [w for w in words if w.startswith(word.lower())]
    return [w.upper() for w in found] if word.isupper() else found


def read_names(session: Session) -> Names:
    """Ask DuckDB which relations, columns and functions there are."""
    rows = session.connection.execute(
        """SELECT database_name, schema_name, table_name, list(column_name ORDER BY column_index)
        FROM duckdb_columns()
        WHERE list_contains(?, database_name) AND schema_name <> 'internal'
        GROUP BY ALL ORDER BY ALL""",
        [list(CATALOGUES)],
    ).fetchall()
    functions = session.connection.execute(
        """SELECT DISTINCT function_name FROM duckdb_functions()
        WHERE regexp_full_match(function_name, '[a-z][a-z0-9_]*') ORDER BY ALL"""
    ).fetchall()
    relations = [Relation(c, s, t, tuple(quoted(n) for n in names)) for c, s, t, names in rows]
    relations.sort(key=lambda r: (CATALOGUES.index(r.catalogue), r.schema != "public", r.schema, r.name))
    return Names(tuple(relations), tuple(name for (name,) in functions))


def quoted(name: str) -> str:
    """`name` as it must be typed: in quotes only where it needs them."""
    return name if _PLAIN.fullmatch(name) else ident(name)
