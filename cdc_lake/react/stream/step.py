"""One model from one position to the next: its rows, the events it could not count, and what it remembers then.

Nothing here depends on a clock or on how far an evaluation goes at once: the rows between two positions are the same
however many steps led there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc_lake.errors import first_line
from cdc_lake.query.merged import OrderedPlaced
from cdc_lake.query.placed import POSITION, Placed
from cdc_lake.react.engine import Memory
from cdc_lake.react.events import micros
from cdc_lake.react.stream.beside import beside_sql
from cdc_lake.react.stream.modelfile import ModelError
from cdc_lake.react.stream.pairs import Pairs
from cdc_lake.react.stream.partials import END, Fold
from cdc_lake.react.stream.query import WINDOW_COLUMNS, Query, Source, text_of
from cdc_lake.react.stream.shape import OWN, Shape, from_sql, own_columns, place, time_of
from cdc_lake.react.stream.work import WORK, Columns, Moment, make, restored, saved
from cdc_lake.sqltext import ident, literal

# An event that a model could not count: which, and why.
_LATE = """{stream} AS stream, {table} AS "table", __row.op, __row.key, __row."row", __why AS why,
    make_timestamptz(__et) AS event_time, __row.tx_id, __tx_order AS tx_order, {position} AS position"""
# What is kept of an event for that: of one that counts nothing, for these are the wide ones.
_ROW = """CASE WHEN __why IS NOT NULL THEN {'op': __op, 'key': CAST(__key AS VARCHAR),
    'row': CAST(coalesce(__after, __before) AS VARCHAR), 'tx_id': __tx_id} END AS __row"""
# What an evaluation needs of every event, beside the columns that the query names.
_NEEDED = (POSITION, "__tx_order", "__et", "__time", "__at", "__why")


@dataclass(frozen=True, slots=True)
class Step:
    """What an evaluation made. `late` are events that came when their time was over, or that have no usable one."""

    rows: pa.Table
    late: pa.Table | None
    memory: Memory


@dataclass(frozen=True, slots=True)
class Input:
    """By alias: relations of the placed changes of streams, and of the versions of tables."""

    placed: OrderedPlaced
    changes: Mapping[str, str]
    versions: Mapping[str, str]


def advance(con: duckdb.DuckDBPyConnection, shape: Shape, memory: Memory, given: Input) -> Step:
    """Evaluate the positions behind `memory`. Raises ModelError when a value cannot be computed; nothing has happened
    then."""
    if not given.placed.after <= memory.position <= given.placed.upto:
        raise ValueError("a model goes on where it is")
    try:
        return _advance(con, shape, memory, given)
    except duckdb.Error as error:
        raise ModelError(
            f"The model {shape.name} cannot be evaluated behind position {memory.position}.",
            why=first_line(error),
            next=f"edit {shape.model.file}, then: cdc-lake stream replay {shape.name}",
            code="model_failed",
        ) from None


def _advance(con: duckdb.DuckDBPyConnection, shape: Shape, memory: Memory, given: Input) -> Step:
    query, placed, relations = shape.query, given.placed, dict(given.versions)
    moment = Moment(placed.ended - shape.model.lateness, placed.clock, shape.model.lateness)
    for number, source in enumerate(query.streams):
        seen = make(con, f"seen_{number}", _seen(shape, source, given.changes[source.alias], placed, memory.position))
        relations[source.alias] = f"({_counted(query, seen)})"
    late = con.sql(_late(shape, relations)).to_arrow_table() if query.timed else None
    items = ", ".join(
        f"(\n{text_of(con, i.node)}\n) AS {ident(n)}" for i, (n, _) in zip(query.items, shape.columns, strict=True)
    )
    kept = None
    if shape.fold is not None:
        groups = _grouped(con, shape.fold, shape.kept[""], memory, from_sql(query, relations, beside=shape.beside))
        rows = _ended(shape, shape.fold, groups, moment)
        kept = saved(groups, shape.kept[""], f"epoch_us({END}) > {moment.watermark}")
    elif len(query.streams) > 1:
        pairs = Pairs(con, query, shape.kept, relations, moment, shape.beside)
        rows = pairs.rows(items, memory.rows)
        kept = pairs.remembered()
    else:
        rows = f"SELECT {items}, {own_columns(query)} {from_sql(query, relations, beside=shape.beside)}"
    found = con.sql(_final(shape, rows)).to_arrow_table()
    return Step(found, late, Memory(placed.upto, placed.ended, con.sql(kept).to_arrow_table() if kept else None))


def _seen(shape: Shape, source: Source, changes: str, placed: OrderedPlaced, after: int) -> str:
    """The new changes of a stream with their event time, and why a model must not count them.

    The watermark of an event is the greatest commit time of its source before its transaction, less the lateness:
    neither a scanner with a wrong clock nor a table that falls silent can move or stop it.
    """
    query = shape.query
    time, model = time_of(query, source), query.model
    # What had landed of the source whose tables the events meet.
    at = "NULL"
    if shape.beside and isinstance(placed, Placed):
        at = f"(SELECT landed FROM ({beside_sql(placed, shape)}) b WHERE b.position = c.{POSITION})"
    own = "__clock" if time is None else micros(time)
    why = f"""CASE WHEN __et IS NULL THEN 'no time' WHEN __et < __clock_before - {model.lateness} THEN 'late'
        WHEN __et > __clock + {model.ahead} THEN 'in the future' END"""
    names = ", ".join(literal(n) for n in sorted({*query.names, *_NEEDED}))
    return f"""SELECT COLUMNS(lambda c: lower(c) IN ({names})), {_ROW if query.timed else "NULL AS __row"} FROM (
        SELECT *, make_timestamptz(__et) AS __time, {why if query.timed else "NULL"} AS __why
        FROM (SELECT *, {own} AS __et FROM (
            SELECT c.*, t.clock AS __clock, t.before AS __clock_before, CAST({at} AS BIGINT) AS __at
            FROM {changes} c JOIN {placed.clock} t ON c.{POSITION} = t.position WHERE c.{POSITION} > {after}
            ) AS {ident(source.alias)})) AS {ident(source.alias)} WHERE {query.own.get(source.alias, "true")}"""


def _counted(query: Query, seen: str) -> str:
    """The events that count, once for each window that they are in."""
    rows, window = f"SELECT * EXCLUDE (__why, __row) FROM {seen} WHERE __why IS NULL", query.model.window
    if window is None:
        return rows
    if window.kind == "session":
        start, size = "__et", window.size
    else:
        # Of a time before 1970 too.
        last = f"(__et - ((__et % {window.every}) + {window.every}) % {window.every})"
        start = f"unnest(range({last} - {window.size - window.every}, {last} + 1, {window.every}))"
        size = window.size
    return f"""SELECT * EXCLUDE (__closed), make_timestamptz(__closed) AS window_start,
        make_timestamptz(__closed + {size}) AS window_end FROM (SELECT *, {start} AS __closed FROM ({rows}))"""


def _late(shape: Shape, relations: Mapping[str, str]) -> str:
    """The events that do not count: of a join all, else those that the query would have looked at."""
    query, parts = shape.query, []
    for number, source in enumerate(query.streams):
        seen = f"{WORK}_seen_{number}"
        table = literal(str(shape.tables[source.alias]))
        shown = _LATE.format(stream=literal(source.alias), table=table, position=POSITION)
        part = f"SELECT {shown} FROM {seen} WHERE __why IS NOT NULL"
        if len(query.streams) == 1:
            none = ", ".join(f"CAST(NULL AS TIMESTAMPTZ) AS {n}" for n in WINDOW_COLUMNS)
            late = {source.alias: f"(SELECT *, {none} FROM {seen} WHERE __why IS NOT NULL)"}
            own = f"{place(query)}, {place(query, '__tx_order')}"
            met = from_sql(query, {**relations, **late}, beside=shape.beside)
            part += f" AND ({POSITION}, __tx_order) IN (SELECT ({own}) {met})"
        parts.append(part)
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY position, tx_order, stream"


def _grouped(con: duckdb.DuckDBPyConnection, fold: Fold, known: Columns, memory: Memory, source: str) -> str:
    """Make the relation of groups: those that were remembered with what new events bring."""
    old = restored(con, "old_groups", memory.rows, known)
    names = ", ".join(n for n, _ in known)
    cast = ", ".join(f"CAST({n} AS {t}) AS {n}" for n, t in known)
    make(con, "new_groups", f"SELECT {names} FROM {old} UNION ALL SELECT {cast} FROM ({fold.partial(source)})")
    return make(con, "groups", fold.merged(f"{WORK}_new_groups"))


def _ended(shape: Shape, fold: Fold, groups: str, moment: Moment) -> str:
    """Rows of the windows that the watermark has passed."""
    items = [f"(\n{text}\n) AS {ident(n)}" for text, (n, _) in zip(fold.items, shape.columns, strict=True)]
    over = moment.closed(f"(SELECT * FROM {groups} WHERE epoch_us({END}) <= {moment.watermark})", f"epoch_us({END})")
    having = f"WHERE (\n{fold.having}\n)" if fold.having else ""
    return f"SELECT {', '.join(items)}, __closed AS {POSITION}, 0 AS __order, {END} AS __time FROM ({over}) {having}"


def _final(shape: Shape, rows: str) -> str:
    """The rows in the types of the model's table, with an id that is the same whenever they are made."""
    shown = ", ".join(f"CAST({ident(n)} AS {t}) AS {ident(n)}" for n, t in shape.columns)
    word = "concat_ws(chr(31), {}, {}, __order, __row, row_number() OVER (PARTITION BY {}, __order, __row))"
    named = word.format(literal(shape.name), POSITION, POSITION)
    own = ", ".join(n for n, _ in OWN)
    return f"""SELECT * EXCLUDE (__order, __row, {own}), {own} FROM (
        SELECT *, left(sha256({named}), 24) AS __id FROM (
            SELECT *, CAST(to_json(r) AS VARCHAR) AS __row FROM (
                SELECT {shown}, {POSITION}, __order, __time FROM ({rows})) r))
        ORDER BY {POSITION}, __order, __id"""
