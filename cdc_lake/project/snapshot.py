"""One source's part of the lake at one moment: versions, tails and the cut. What sessions and folds both start from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import duckdb
from deltalake import DeltaTable

from cdc_lake.errors import CdcLakeError, LakeError, UnavailableError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.layout import (
    current_path,
    dead_letters_path,
    decisions_path,
    local_path,
    patch_path,
    transactions_path,
)
from cdc_lake.land.store_errors import is_away, store_error
from cdc_lake.project.base import Base, placed_base, read_fold
from cdc_lake.project.cache import Kept
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.current import View
from cdc_lake.project.dropped import Lack, Letter, excused, read_letters, topics_named
from cdc_lake.project.files import LogFiles, read_files
from cdc_lake.project.lake import Lake
from cdc_lake.project.moves import settle
from cdc_lake.project.order import Cut, add_folded, find_cut, load_ends
from cdc_lake.project.rekey import keyed_otherwise, with_own_key
from cdc_lake.project.renaming import Renaming
from cdc_lake.project.runs import with_runs
from cdc_lake.project.shapes import SchemaRow, Shapes, resolve_shapes
from cdc_lake.project.surveying import note_complete, partitions_of, still_open, survey_new
from cdc_lake.project.tail import Facts, Tail, count_rows, survey, whole_tail, without_place
from cdc_lake.project.telling import newest_schema, read_schemas, sample, unkeyed_in
from cdc_lake.project.tiered import read_log

T = TypeVar("T")
# A folded table, and what may lie over it.
Opened = tuple[DeltaTable, DeltaTable | None]

_THREADS = 8
# Where the connector has its heartbeat and its signals.
_OWN_SCHEMA = "cdc_lake"


@dataclass(frozen=True, slots=True)
class TableState:
    """A table: its log, its fold (None before the first), and what lies between. With an `error` it cannot be shown.

    `versions` is what was recorded of the shapes of its rows.
    """

    table: TableId
    log: LogFiles
    base: Base | None
    checkpoint: Checkpoint
    tail: Tail
    shapes: Shapes | None = None
    error: CdcLakeError | None = None
    versions: tuple[SchemaRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceState:
    """All tables of a source at one moment. `ends` is the DuckDB relation of transaction positions above `after`.

    `past` says that the moment is an earlier one than that of opening.
    """

    lake: Lake
    source: str
    tables: tuple[TableState, ...]
    transactions: LogFiles | None
    ends: str
    after: int
    cut: Cut
    past: bool = False

    def view(self, con: duckdb.DuckDBPyConnection, state: TableState, name: str) -> View:
        """What `state` shows at the cut; keys that need single events are settled into `<own>.<name>`."""
        if state.shapes is None:
            raise state.error or ValueError("a table without shapes has an error")
        view = View(state.shapes, state.tail, state.base, self.ends, self.cut.position)
        return replace(view, settled=settle(con, view, f"{self.lake.own}.{name}"))

    def renaming(self, con: duckdb.DuckDBPyConnection, state: TableState) -> Renaming | None:
        """Under which keys the rows of a table's whole log are shown at the cut; None: under those they were sent."""
        if state.base is None or state.error is not None or state.shapes is None or not state.shapes.keyings:
            return state.tail.renaming
        return self.whole(con, state)[0].tail.renaming

    def whole(self, con: duckdb.DuckDBPyConnection, state: TableState) -> tuple[TableState, str]:
        """A table as if it had never been folded, and the relation of the positions of all transactions."""
        ends = f"{self.lake.own}.ends_of_all"
        load_ends(con, ends, self.transactions, 0)
        (whole,) = _surveyed(con, [replace(state, base=None, tail=whole_tail(state.log))])
        return with_own_tail(con, whole, ends, self.cut.position, self.lake.own), ends


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the place for our own relations: the in-memory catalogue `lake` with the schema `internal`."""
    con.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.internal; SET TimeZone = 'UTC'")
    hide_progress_bar(con)


def hide_progress_bar(con: duckdb.DuckDBPyConnection) -> None:
    """Keep DuckDB from drawing on stdout, also into a pipe that must hold a result and nothing else."""
    with contextlib.suppress(duckdb.InvalidInputException):  # a notebook without ipywidgets has no bar at all
        con.execute("SET enable_progress_bar = false")


def read_source(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    source: str,
    captured: Callable[[TableId], bool],
    *,
    number: int = 0,
    anew: Collection[TableId] = (),
) -> SourceState:
    """Read the state of `source`; `captured` says which tables the configuration lands.

    Tables in `anew` are read from the start of their log, as if they had never been folded.

    1. Open the folds: what they hold must be covered by the logs that are opened later.
    2. Open the transactions, then the logs: rows of a transaction may be there before its END, not the reverse.
    3. Place the tails and find the cut.
    """
    states, transactions = _open_tables(con, lake, source, anew)
    kept = lake.cache.of(source, transactions) if lake.cache is not None else None
    states, shaped = _shaped(con, lake, source, states, kept)
    sound = [s for s in states if s.error is None]
    after = min((s.tail.cut for s in sound if not s.tail.facts.empty), default=_greatest_cut(sound))
    ends, counts = f"{lake.own}.ends_{number}", f"{lake.own}.counts_{number}"
    load_ends(con, ends, transactions, after, kept)
    for tail in (s.tail for s in sound if s.tail.facts.free and s.tail.facts.placed):
        add_folded(con, ends, transactions, after, without_place(tail, ends))
    floor = max(_greatest_cut(sound), kept.cut if kept is not None else 0)
    landed = {str(s.table): s.tail for s in sound if captured(s.table)}
    count_rows(con, counts, ends, still_open(kept, landed), floor)
    # What stands at or before the start of a tail is complete, though its rows are not there.
    repaired = {name: max(tail.facts.repaired, tail.cut) for name, tail in landed.items()}
    letters = _letters(con, lake, source)
    excuse = _excuse(con, ends, sound, letters)
    awaited = partial(_awaited, {str(s.table) for s in states}, captured)
    cut = find_cut(con, ends, counts, landed=repaired, floor=floor, log=transactions, awaited=awaited, excuse=excuse)
    cut = replace(cut, dropped=sum(x.dropped for x in letters))
    if kept is not None:
        note_complete(con, ends, kept, landed, cut.position)
    tables = tuple(with_own_tail(con, s, ends, cut.position, lake.own) for s in shaped)
    return SourceState(lake, source, tables, transactions, ends, after, cut)


def _shaped(
    con: duckdb.DuckDBPyConnection, lake: Lake, source: str, states: list[TableState], kept: Kept | None
) -> tuple[list[TableState], list[TableState]]:
    """The tables with the facts of their tails; and with their shapes, too, or the error in their place: what is wrong
    with those is no reason for the cut not to wait for a table's rows."""
    known = kept.facts if kept is not None else None
    states = _whole_where_late(con, _surveyed(con, states, known), known)
    shaped = _whole_where_rekeyed(con, _with_shapes(con, lake, source, states), known)
    if kept is not None:
        kept.forget(s.log for s in states)
    return [replace(s, base=w.base, tail=w.tail) for s, w in zip(states, shaped, strict=True)], shaped


def _awaited(known: Collection[str], captured: Callable[[TableId], bool], name: str) -> bool:
    """Whether the first rows of a table are on their way. Nobody reads our own tables in the source."""
    # The name has no quotes; a schema with a dot in its name makes no other pattern of the configuration fit.
    table = TableId(*name.split(".", 1)) if "." in name else TableId("", name)
    return name not in known and table.schema != _OWN_SCHEMA and captured(table)


def _letters(con: duckdb.DuckDBPyConnection, lake: Lake, source: str) -> list[Letter]:
    letters, decisions = (lake.newest(p(lake.root, source)) for p in (dead_letters_path, decisions_path))
    return read_letters(con, letters, decisions)


def _excuse(
    con: duckdb.DuckDBPyConnection, ends: str, sound: Sequence[TableState], letters: Sequence[Letter]
) -> Callable[[list[Lack]], list[Lack]]:
    """Which missing rows are letters that were dropped; see `dropped.excused`."""
    logs = [(str(s.table), _topics(s), s.tail.relation) for s in sound if s.tail.files]
    landed = frozenset[str]().union(*(_topics(s) for s in sound))
    loose = frozenset(x.topic for x in letters) - landed

    def excuse(lacks: list[Lack]) -> list[Lack]:
        without = {x.table for x in lacks} - {str(s.table) for s in sound}
        return excused(con, ends, lacks, letters, [*logs, *((t, topics_named(t, loose), None) for t in without)])

    return excuse


def _topics(state: TableState) -> frozenset[str]:
    return frozenset(topic for topic, _ in state.log.positions)


def with_own_tail(con: duckdb.DuckDBPyConnection, state: TableState, ends: str, cut: int, own: str) -> TableState:
    """`state` with what the snapshots in its tail mean when it is read at `cut`, and its rows under today's key."""
    if state.error is not None or state.shapes is None:
        return state
    folded = state.base is not None
    tail = with_runs(con, state.tail, ends, cut, keyed=state.shapes.keyed, folded=folded)
    # Rows that a fold lies below were all sent under one key: see `keyed_otherwise`.
    return replace(state, tail=tail if folded else with_own_key(con, state.shapes, tail, ends, cut, own=own))


def _open_tables(
    con: duckdb.DuckDBPyConnection, lake: Lake, source: str, anew: Collection[TableId]
) -> tuple[list[TableState], LogFiles | None]:
    """All tables that have a log, in the order that `read_source` asks for."""
    lake.reach(con)
    tables = lake.tables(source)

    def base(table: TableId) -> Opened | None:
        found = None if table in anew else lake.newest(current_path(lake.root, source, table))
        return None if found is None else (found, lake.newest(patch_path(lake.root, source, table)))

    with ThreadPoolExecutor(_THREADS) as pool:
        bases = list(pool.map(lambda t: _attempt(partial(base, t)), tables))
        transactions = _read_files(lake, transactions_path(lake.root, source))
        logs = list(pool.map(lambda t: _attempt(partial(read_log, lake, source, t)), tables))
        opened = list(zip(tables, logs, bases, strict=True))
        states = list(pool.map(lambda o: _state(con, o[0], o[1], o[2]), [o for o in opened if o[1] is not None]))
    return states, transactions


def attempted(state: TableState, do: Callable[[TableState], TableState]) -> TableState:
    """What `do` makes of a table; with the error in its place where it needs a tier that cannot be read."""
    try:
        return do(state)
    except CdcLakeError as error:
        return replace(state, base=None, tail=Tail(), error=state.error or error)


def _attempt(read: Callable[[], T]) -> T | CdcLakeError:
    """A table that cannot be read does not keep others from being read."""
    try:
        return read()
    except UnavailableError:  # no table can be read then
        raise
    except CdcLakeError as error:
        return error


def _read_files(lake: Lake, path: str) -> LogFiles | None:
    table = lake.newest(path)
    if table is None:
        return None
    return lake.of_version("log", path, table, lambda known: read_files(local_path(path), table, known=known))


def _state(
    con: duckdb.DuckDBPyConnection,
    table: TableId,
    log: LogFiles | CdcLakeError | None,
    base: Opened | CdcLakeError | None,
) -> TableState:
    broken = next((part for part in (log, base) if isinstance(part, CdcLakeError)), None)
    if broken is not None or isinstance(base, CdcLakeError):
        return TableState(table, LogFiles(-1, ()), None, Checkpoint(), Tail(), error=broken)
    if not isinstance(log, LogFiles):
        raise TypeError("a table without a log is no table of the lake")
    bare = TableState(table, log, None, Checkpoint(), Tail())
    return attempted(bare, partial(_placed, con, base))


def _placed(con: duckdb.DuckDBPyConnection, base: Opened | None, state: TableState) -> TableState:
    table, log = state.table, state.log
    if base is None:
        return replace(state, tail=whole_tail(log))
    partitions = partitions_of(con, log)
    folded, checkpoint = read_fold(*base, partitions)
    # Of a partition that is new since the fold, everything is wanted.
    lows = {p: checkpoint.lows.get(p, 0) for p in partitions}
    tail = Tail(tuple(log.reaching(checkpoint.lows)), lows, checkpoint.cut)
    return TableState(table, log, folded, checkpoint, tail)


def _surveyed(
    con: duckdb.DuckDBPyConnection, states: list[TableState], known: dict[str, Facts] | None = None
) -> list[TableState]:
    """With the facts of each tail; where a file cannot be read, with the error in their place. `known` are those of
    files that were looked into earlier."""
    tails = [s.tail for s in states]
    try:
        facts = survey(con, tails) if known is None else survey_new(con, known, [s.log for s in states], tails)
    except duckdb.Error:
        return [_surveyed_alone(con, s) for s in states]
    return [replace(s, tail=replace(s.tail, facts=f)) for s, f in zip(states, facts, strict=True)]


def _whole_where_late(
    con: duckdb.DuckDBPyConnection, states: list[TableState], known: dict[str, Facts] | None
) -> list[TableState]:
    """Tables with repairs that stand within their fold, as if never folded: what was folded behind them must win.

    The next fold makes such a table anew from its log.
    """
    late = {s.table for s in states if s.error is None and s.tail.facts.late}
    return _as_if_never_folded(con, states, late, known)


def _whole_where_rekeyed(
    con: duckdb.DuckDBPyConnection, shaped: list[TableState], known: dict[str, Facts] | None
) -> list[TableState]:
    """Tables whose key was redefined since their fold, as if never folded; see `rekey.keyed_otherwise`."""
    others = {s.table for s in shaped if s.shapes is not None and keyed_otherwise(con, s.shapes, s.base, s.tail)}
    return _as_if_never_folded(con, shaped, others, known)


def _as_if_never_folded(
    con: duckdb.DuckDBPyConnection,
    states: list[TableState],
    tables: Collection[TableId],
    known: dict[str, Facts] | None,
) -> list[TableState]:
    """`states` with those of `tables` from the start of their logs."""
    if not tables:
        return states
    whole = [attempted(s, _whole) if s.table in tables else s for s in states]
    return _surveyed(con, whole, known)


def _whole(state: TableState) -> TableState:
    return replace(state, base=None, tail=whole_tail(state.log))


def _surveyed_alone(con: duckdb.DuckDBPyConnection, state: TableState) -> TableState:
    try:
        return replace(state, tail=replace(state.tail, facts=survey(con, [state.tail])[0]))
    except duckdb.Error as error:
        return replace(state, error=unreadable(state, error))


def unreadable(state: TableState, error: Exception) -> LakeError:
    """A data file of a table is missing or damaged. Raises UnavailableError when it is the store that is away: what is
    true of this table is so of all then."""
    place, table = next((f.path for f in state.log.own), ""), state.table
    if is_away(place, error):
        raise store_error(place, error) from error
    return LakeError(
        f"{table} cannot be read: a data file of it is missing or damaged.",
        why=first_line(error),
        next=f"put the file back; if it belongs to the read model: cdc-lake rebuild {table}",
        code="file_unreadable",
    )


def _greatest_cut(states: Collection[TableState]) -> int:
    """A fold's cut is complete, and its table cannot be shown as of an earlier one: no cut may be below. The same goes
    for the start of a log."""
    return max((max(s.checkpoint.cut, s.log.start) for s in states), default=0)


def _with_shapes(
    con: duckdb.DuckDBPyConnection, lake: Lake, source: str, states: Collection[TableState]
) -> list[TableState]:
    recorded = read_schemas(con, lake, source)
    shaped = []
    for state in states:
        if state.error is not None:
            shaped.append(state)
            continue
        try:
            rows = recorded.get(state.table, [])
            newest = newest_schema(con, state.log)
            shapes = resolve_shapes(
                state.table, rows, newest, partial(sample, con, state.log), unkeyed_in(con, state.log)
            )
            base = placed_base(state.base, shapes)
            shaped.append(replace(state, shapes=shapes, base=base, versions=tuple(rows)))
        except UnavailableError:
            raise
        except CdcLakeError as error:
            shaped.append(replace(state, error=error))
        except duckdb.Error as error:
            shaped.append(replace(state, error=unreadable(state, error)))
    return shaped
