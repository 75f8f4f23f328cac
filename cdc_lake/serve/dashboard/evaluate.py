"""What a view shows in a session, as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from cdc_lake.errors import CdcLakeError, UsageError, suggest
from cdc_lake.query.run import SqlError, explain, run_sql
from cdc_lake.query.session import Session
from cdc_lake.serve.dashboard.cells import Cells, read_cells
from cdc_lake.serve.dashboard.viewfile import CLOCK, PAGE_TIME, View

_OPTIONS = 5_000
_LONGEST_VALUE = 200


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment that a page shows: that of its newest transaction, or `at`, the past one that was asked for.

    `data_at` is when that transaction was committed, `read_at` when the lake was read.
    """

    data_at: datetime | None
    read_at: datetime
    at: str | None = None

    @classmethod
    def of(cls, session: Session, at: str | None = None) -> Moment:
        """That of a session."""
        times = [c.source_ts for c in session.cuts.values() if c.source_ts is not None]
        return cls(max(times, default=None), datetime.now(UTC), at)

    @property
    def parameters(self) -> dict[str, datetime]:
        """What `$page_time` and `$clock` are."""
        data_at = self.data_at or self.read_at
        if self.at is None:
            return {PAGE_TIME: data_at, CLOCK: self.read_at}
        try:
            asked = datetime.fromisoformat(self.at)
        except ValueError:  # an LSN or a transaction, whose time is that of the cut
            return {PAGE_TIME: data_at, CLOCK: data_at}
        asked = asked if asked.tzinfo is not None else asked.replace(tzinfo=UTC)
        return {PAGE_TIME: asked, CLOCK: asked}

    def as_dict(self) -> dict[str, Any]:
        """As documents have it."""
        data_at = self.data_at.isoformat() if self.data_at is not None else None
        return {"at": self.at, "data_at": data_at, "read_at": self.read_at.isoformat()}


def evaluate(session: Session, view: View, moment: Moment, given: Mapping[str, str] | None = None) -> str:
    """The document of a view: its head, columns and rows; the same text for the same rows. What fails is in it as
    `error`, and nothing is raised."""
    try:
        if view.error is not None:
            raise view.error
        cells, error = _cells(session, view, moment, _checked(view, given or {})), None
    except CdcLakeError as failed:
        cells, error = Cells("[]", "[]", 0, False), failed.as_dict()["error"]
    head = {**view.as_dict(), "given": dict(given or {}), "error": error}
    return with_cells(head, cells)


def is_gone(document: str) -> bool:
    """Whether a view failed because files that its session reads were removed meanwhile: a new session has others."""
    return '"error": {"code": "files_gone"' in document


def with_cells(head: Mapping[str, Any], cells: Cells) -> str:
    """A document with the columns and rows of a result behind its other fields."""
    text = json.dumps({**head, "truncated": cells.truncated}, ensure_ascii=False)
    return f'{text[:-1]}, "columns": {cells.columns}, "rows": {cells.rows}}}'


def options_of(session: Session, view: View, name: str, moment: Moment) -> str:
    """The values that a parameter may have, as a document. Raises UsageError for an unknown one, SqlError."""
    sql = dict(view.parameters).get(name)
    if sql is None:
        why = suggest(name, [n for n, _ in view.parameters]) or f"{view.name} has no such parameter."
        raise UsageError(f"There is no parameter {name}.", why=why, code="no_parameter")
    head = {"view": view.name, "parameter": name, **moment.as_dict()}
    return with_cells(head, _run(session, sql, moment.parameters, _OPTIONS))


def default_of(session: Session, view: View, moment: Moment) -> dict[str, str]:
    """The first value of each parameter. Raises SqlError."""
    found = {}
    for name, sql in view.parameters:
        rows = json.loads(_run(session, sql, moment.parameters, 1).rows)
        found[name] = str(rows[0][0]) if rows else ""
    return found


def _checked(view: View, given: Mapping[str, str]) -> dict[str, object]:
    known = [name for name, _ in view.parameters]
    for name, value in given.items():
        if name not in known:
            why = suggest(name, known) or f"{view.name} has: {', '.join(known) or 'no parameters'}."
            raise UsageError(f"There is no parameter {name}.", why=why, code="no_parameter")
        if len(value) > _LONGEST_VALUE:
            raise UsageError(f"The value of {name} is too long.", why=f"At most {_LONGEST_VALUE} characters are read.")
    return {name: given.get(name, "") for name in known}


def _cells(session: Session, view: View, moment: Moment, values: Mapping[str, object]) -> Cells:
    return _run(session, view.sql, {**moment.parameters, **values}, view.rows)


def _run(session: Session, sql: str, values: Mapping[str, object], rows: int) -> Cells:
    try:
        found = session.connection.extract_statements(sql)
    except duckdb.Error as error:
        raise explain(session, error, sql) from None
    # A parameter that a statement does not name must not be given.
    named = {str(n) for s in found for n in s.named_parameters}
    result = run_sql(session, sql, {n: v for n, v in values.items() if n in named})
    if result is None:
        raise SqlError("The view has no result.", why="Its last statement is no SELECT.", next="edit its file")
    return read_cells(result, rows)
