"""Run SQL that a person typed: results as Arrow batches, errors as words that show where and what is near."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc_lake.errors import NEXT, CdcLakeError, suggest
from cdc_lake.query.session import Session

_BATCH_ROWS = 2048
_NO_TABLE = re.compile(r'(?:Table|View) with name "?(.+?)"? does not exist')
# How an error of our own reaches us through a function that SQL called.
_IN_FUNCTION = re.compile(r"Python exception occurred while executing the UDF: \w+: ")
_NO_COLUMN = re.compile(r'Referenced column "(.+?)" not found')


@dataclass(frozen=True, slots=True)
class Result:
    """Columns in order and their rows, read as they are needed. Names may repeat.

    The connection takes no other statement until the rows are read to the end or `close` is called.
    """

    columns: tuple[str, ...]
    types: tuple[duckdb.sqltypes.DuckDBPyType, ...]
    reader: pa.RecordBatchReader
    explain: Callable[[Exception], SqlError]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows. Raises SqlError for a value that cannot be computed."""
        try:
            yield from self.reader
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise self.explain(error) from None
        self.close()

    def close(self) -> None:
        """Drop the rows that were not read."""
        self.reader.close()


class SqlError(CdcLakeError):
    """The SQL is wrong, or a value could not be computed."""

    default_code = "sql"


def run_sql(session: Session, sql: str, parameters: Mapping[str, object] | None = None) -> Result | None:
    """Run one or more statements; the last one's result, None when it has none. `parameters` are those that the SQL
    names (`$name`), and no other.

    Raises SqlError: now for what the text shows to be wrong, while rows are read for what only values show.
    """
    try:
        relation = session.connection.sql(sql, params=dict(parameters) if parameters else None)
        if relation is None:
            return None
        columns, types = tuple(relation.columns), tuple(relation.types)
        reader = relation.to_arrow_reader(_BATCH_ROWS)
    except duckdb.Error as error:
        raise explain(session, error, sql) from None
    return Result(columns, types, reader, lambda error: explain(session, error, sql))


def explain(session: Session, error: Exception, sql: str) -> SqlError:
    """DuckDB's error in our words: what, where (the line with a caret), and the nearest name."""
    first, _, rest = str(error).strip().partition("\n")
    place = _place(rest) or _place(_told_again(session, error, sql))
    table = _NO_TABLE.search(first)
    if table is not None:
        typed = _as_typed(table.group(1), sql)
        hint = suggest(typed, _table_names(session)) or _listed(session)
        return SqlError(f"There is no table {typed}.", why=_lines(hint, place), next="cdc-lake tables")
    column = _NO_COLUMN.search(first)
    if column is not None:
        hint = suggest(column.group(1), re.findall(r'"([^"]+)"', rest.split("\n\n")[0]))
        return SqlError(f"There is no column {column.group(1)}.", why=_lines(hint, place), next="cdc-lake tables")
    kind, _, message = _IN_FUNCTION.sub("", first).partition(": ")
    if kind == "IO Error" and _GONE.search(message):
        return SqlError(message, why=_FILES_GONE, next="run it again in a new session", code="files_gone")
    if kind == "Invalid Input Error" and not place:  # one of our own that came through DuckDB
        why, _, following = f"\n{rest.strip()}".partition(f"\n{NEXT}")
        return SqlError(message or kind, why=why.strip(), next=following)
    return SqlError(message or kind, why=place, next=_NEXT)


_GONE = re.compile(r"(No files found|No such file|HTTP 404).*\.parquet|\.parquet.*(No such file|HTTP 404)", re.S)
_FILES_GONE = (
    "A session reads the files that were there when it was opened, and this one is older than what "
    "`cdc-lake maintain --keep` keeps of replaced files; or somebody deleted the file."
)
_NEXT = "correct the query; the tables and their columns: cdc-lake tables"


def _as_typed(name: str, sql: str) -> str:
    """The whole name in the query that ends with `name`: DuckDB leaves out what it could resolve."""
    found = re.search(rf'(?:(?:\w+|"[^"]+")\.)*"?{re.escape(name)}"?', sql)
    return found.group(0) if found is not None else name


def _told_again(session: Session, error: Exception, sql: str) -> str:
    """The error of a statement that names what is not there, as DuckDB tells it with the place: not to a relation."""
    con = session.connection
    if not isinstance(error, (duckdb.BinderException, duckdb.CatalogException)) or len(con.extract_statements(sql)) > 1:
        return ""
    try:
        con.execute(sql)
    except duckdb.Error as again:
        return str(again).partition("\n")[2]
    return ""


def _place(rest: str) -> str:
    found = re.search(r"LINE \d+:.*(\n[ ]*\^+[~^]*)?", rest)
    # On lines of their own, so that the caret stands under what it means.
    return f"Here:\n{found.group(0).rstrip()}" if found is not None else ""


def _lines(*parts: str) -> str:
    return "\n".join(p for p in parts if p)


def _table_names(session: Session) -> list[str]:
    names = []
    for table in session.tables:
        if table.schema == "public":
            names.append(table.name)
        names.append(str(table))
        names += [f"{catalogue}.{table}" for catalogue in ("current", "changes", "history")]
    lake = ("tables", "folds", "cut", "transactions", "schemas", "dead_letters", "alerts", "late_events", "audit")
    models = session.connection.execute("SELECT DISTINCT model FROM lake.streams").fetchall()
    own = [f"lake.{name}" for name in (*lake, "streams", "stream_late_events")]
    return [*names, *own, *(f"streams.{model}" for (model,) in models)]


def _listed(session: Session) -> str:
    tables = [t.name if t.schema == "public" else str(t) for t in session.tables]
    if not tables:
        return "No table has landed yet: cdc-lake sink run"
    shown = ", ".join(tables[:12])
    return f"There are: {shown}{', …' if len(tables) > 12 else ''}"
