"""The view `history.<schema>.<table>`, evaluated when it is read: what is folded and what has come since, up to the
session's cut, or the whole log where that alone tells (see `project.history_tail`)."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
from deltalake import DeltaTable

from cdc_lake.land.layout import history_path
from cdc_lake.project.history import history_sql
from cdc_lake.project.history_bag import bag_history_sql
from cdc_lake.project.history_names import history_names
from cdc_lake.project.history_tail import find_behind
from cdc_lake.project.life import HISTORY_COLUMNS, Life
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.shapes import Shapes
from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.project.timeline import timeline_sql
from cdc_lake.sqltext import ident


def open_history(source: SourceState, table: TableState) -> DeltaTable | None:
    """The folded history of a table, as it is now; None when there is none that can be read here.

    Raises LakeError when it cannot be read.
    """
    if source.past or table.error is not None or table.shapes is None or not table.shapes.keyed:
        return None
    return source.lake.newest(history_path(source.lake.root, source.source, table.table))


def history_query(
    con: duckdb.DuckDBPyConnection, source: SourceState, table: TableState, opened: DeltaTable | None, name: str
) -> str:
    """As `history_view`, from the folded history `opened` where it can be gone on with. What it finds out is kept in
    tables whose names begin with `name`.

    Raises the table's error when it cannot be shown.
    """
    behind = find_behind(con, source, table, opened, name) if opened is not None else None
    if behind is None or table.shapes is None:
        return history_view(source, table, renaming=source.renaming(con, table))
    return _named(table.shapes, behind.query)


def history_view(
    source: SourceState, table: TableState, *, keys: Iterable[str] | None = None, renaming: Renaming | None = None
) -> str:
    """The query of a table's versions: the source's columns, then `HISTORY_COLUMNS`; with `keys`, of these only.
    `renaming` is that of the table's log (`SourceState.renaming`).

    Raises the table's error when it cannot be shown.
    """
    if table.error is not None or table.shapes is None:
        raise table.error or ValueError("a table without shapes has an error")
    life = Life(
        table.shapes,
        tuple(table.log.paths),
        timeline_sql(source.transactions),
        source.cut.position,
        None if keys is None else tuple(keys),
        table.log.start,
        renaming,
    )
    return _named(table.shapes, history_sql(life) if table.shapes.keyed else bag_history_sql(life))


def _named(shapes: Shapes, inner: str) -> str:
    columns = [f"c{i} AS {ident(n)}" for i, n in enumerate(history_names(shapes))]
    return f"SELECT {', '.join([*columns, *HISTORY_COLUMNS])} FROM ({inner})"
