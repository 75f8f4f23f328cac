"""A table and a key as a person types them, found in the lake."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from cdc_lake.errors import LakeError, UsageError, suggest
from cdc_lake.events import TableId
from cdc_lake.project.files import scan
from cdc_lake.project.shapes import SchemaRow
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.types import Column
from cdc_lake.query.picked import files_of_keys
from cdc_lake.query.session import Session
from cdc_lake.sqltext import literal

# Types of key columns whose values have one spelling in JSON.
_SIMPLE = {"int16", "int32", "int64", "string"}


def find_table(session: Session, name: str) -> tuple[SourceState, TableState]:
    """The table called `name`, with or without `public.`. Raises UsageError for an unknown one."""
    tables = [(s, t) for s in session.sources for t in s.tables]
    spelled = {str(t.table): (s, t) for s, t in tables}
    spelled |= {t.table.name: (s, t) for s, t in tables if t.table.schema == "public"}
    if name not in spelled:
        hint = suggest(name, spelled) or "It has no change log in this lake."
        raise UsageError(f"There is no table {name}.", why=hint, next="cdc-lake tables", code="no_table")
    return spelled[name]


def read_key(table: TableId, columns: Sequence[Column], text: str) -> dict[str, str]:
    """Each key column with its value as text, from a plain value, `column=value,column=value` or a JSON object.

    Raises UsageError when the text fits none of these, or names other columns than the key's.
    """
    names = [c.name for c in columns]
    found = _json_key(text) if text.lstrip().startswith("{") else _pairs(names, text)
    if found is None and len(names) == 1:
        found = {names[0]: text}
    if found is None:
        raise _key_error(f"{text!r} is no key of {table}.", names, "Its key has several columns.")
    for name in found:
        if name not in names:
            raise _key_error(f"The key of {table} has no column {name}.", names, suggest(name, names))
    missing = [n for n in names if n not in found]
    if missing:
        raise _key_error(f"The key of {table} also has {', '.join(missing)}.", names, "")
    return {n: found[n] for n in names}


def _json_key(text: str) -> dict[str, str]:
    try:
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        # What Python says of a text too deep for it speaks of its own stack.
        why = "It is nested too deeply." if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{text[:200]} is no JSON.", why=why, next='KEY as {"id": 7}', code="bad_key") from None
    return {n: v if isinstance(v, str) else json.dumps(v) for n, v in found.items()}


def _pairs(names: Sequence[str], text: str) -> dict[str, str] | None:
    """`column=value,column=value`; None when the text does not begin so. Values may hold commas and equals signs."""
    starts = list(re.finditer(r'(?:^|,)\s*(?:"([^"]+)"|(\w+))\s*=', text))
    if not starts or starts[0].start() != 0:
        return None
    first = starts[0][1] or starts[0][2]
    if len(names) == 1 and first not in names and not suggest(first, names):
        return None  # a value that holds an equals sign
    marks = [m for m in starts if m is starts[0] or (m[1] or m[2]) in names]
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return {m[1] or m[2]: text[m.end() : end] for m, end in zip(marks, ends, strict=True)}


def _key_error(message: str, names: Sequence[str], why: str) -> UsageError:
    example = ",".join(f"{n}=…" for n in names)
    return UsageError(message, why=why or f"Its key is {', '.join(names)}.", next=f"KEY as {example}", code="bad_key")


def find_keys(session: Session, table: TableState, text: str, *, quick: bool = False) -> list[str]:
    """The log's texts of the key that `text` means: one, or several when its column's type has changed.

    With `quick` they are looked for as the connector writes whole numbers and texts, and no key is read that is spelled
    otherwise, where there is one that is spelled so.

    Raises UsageError for a table without a key and a key that cannot be, LakeError when there never was such a row.
    """
    shapes = table.shapes
    if table.error is not None or shapes is None:
        raise table.error or ValueError("a table without shapes has an error")
    if not shapes.keyed:
        raise UsageError(
            f"{table.table} has no key.",
            why="Its rows cannot be told apart; its history has one row for each time an image appeared.",
            next=f"cdc-lake query 'FROM history.{table.table}'",
            code="no_key",
        )
    columns = shapes.target.key_columns
    wanted = read_key(table.table, columns, text)
    _check_types(session, table.table, columns, wanted)
    if quick and (texts := _spelled_so(session, table, _spellings(table.versions, wanted))):
        return texts
    places = {c.name: i for i, c in enumerate(shapes.target.columns)}
    keys = f"""(SELECT DISTINCT __key AS img, __schema_id AS sid FROM {scan(table.log.paths)}
        WHERE __key IS NOT NULL AND __op <> 'x')"""
    same = " AND ".join(f"c{places[c.name]} = CAST({literal(wanted[c.name])} AS {c.lake_type})" for c in columns)
    rows = session.connection.execute(
        f"SELECT DISTINCT k FROM ({shapes.decoded(keys, 'img', 'sid', ['img AS k'])}) WHERE {same}"
    ).fetchall()
    if not rows:
        raise LakeError(
            f"{table.table} has never had a row {_spelled(wanted)}.",
            why="No change in the log has this key.",
            next=f"cdc-lake changes {table.table} --limit 5",
            code="no_row",
        )
    return [k for (k,) in rows]


def _spelled_so(session: Session, table: TableState, texts: Collection[str]) -> list[str]:
    """Those of `texts` that are keys in the log."""
    if not texts:
        return []
    paths = files_of_keys(session.connection, table.log, texts).paths
    listed = ", ".join(map(literal, sorted(texts)))
    query = f"SELECT DISTINCT __key FROM {scan(paths)} WHERE __key IN ({listed})"
    return [k for (k,) in session.connection.execute(query).fetchall()]


def _spellings(versions: Sequence[SchemaRow], wanted: Mapping[str, str]) -> set[str]:
    """The key's texts by each version that was sent; empty when one is made of other types, or of other columns."""
    found = set[str]()
    for version in (v for v in versions if v.kind != "columns"):
        fields = json.loads(version.key_definition)["fields"] if version.key_definition else []
        kinds = {f["field"]: f["type"] if "name" not in f else "" for f in fields}
        if version.kind != "connect" or kinds.keys() != wanted.keys() or not set(kinds.values()) <= _SIMPLE:
            return set()
        numbers = [n for n, kind in kinds.items() if kind != "string"]
        if not all(re.fullmatch(r"0|-?[1-9][0-9]*", wanted[n]) for n in numbers):
            return set()
        key = {n: int(wanted[n]) if n in numbers else wanted[n] for n in kinds}
        found.add(json.dumps(key, separators=(",", ":"), ensure_ascii=False))
    return found


def _check_types(session: Session, table: TableId, columns: Sequence[Column], wanted: Mapping[str, str]) -> None:
    for column in columns:
        value = wanted[column.name]
        if not _is_value(session, column.lake_type, value):
            raise UsageError(
                f"{value!r} cannot be a value of {column.name}.",
                why=f"The key column {column.name} of {table} is of the type {column.source_type}.",
                next=f"cdc-lake changes {table} --limit 5 shows keys",
                code="bad_key",
            )


def _is_value(session: Session, lake_type: str, value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of the command line, or half of a pair in JSON, that are no text
        return False
    row = session.connection.execute(f"SELECT TRY_CAST({literal(value)} AS {lake_type})").fetchone()
    found = row[0] if row is not None else None
    if not isinstance(found, int | Decimal):
        return found is not None
    try:
        # DuckDB rounds 1.5 to the whole number 2: another row than the one that was asked for.
        return isinstance(found, bool) or Decimal(value) == found
    except InvalidOperation:  # 0x1f
        return True


def _spelled(key: Mapping[str, str]) -> str:
    return ", ".join(f"{n}={v}" for n, v in key.items())
