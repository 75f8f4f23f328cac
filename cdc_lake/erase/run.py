"""Erase a person: plan it, do it table by table, and go on where a run was killed.

1. Write the list of erased keys. From here on nothing that was erased lands again.
2. Take the contents out of dead letters, and out of alerts and what rules remember.
3. Take the contents out of the logs, one commit each: what belongs to the person first, the person's own table last,
   for what belongs to the person is found by it.
4. Make the read models anew that still hold any of it.
5. Take it out of what Delta keeps beside the rows, and, when asked, delete the files that were replaced.

What comes behind the logs is told by the list alone, so a later run does what a killed one left.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import duckdb

from cdc_lake.crashpoints import reach
from cdc_lake.erase.alerts import erase_alerts
from cdc_lake.erase.holds import Holds
from cdc_lake.erase.letters import Sought, empty_letters, find_letters
from cdc_lake.erase.links import find_linked, key_values
from cdc_lake.erase.log import empty_rows, mark
from cdc_lake.erase.models import clean_models
from cdc_lake.erase.rows import Part, TableLog, entries_of, key_md5
from cdc_lake.erase.traces import clear_bounds, delete_replaced
from cdc_lake.errors import LakeError, UsageError, suggest
from cdc_lake.events import TableId
from cdc_lake.land.dead_letters import Letter
from cdc_lake.land.erasures import Erasures, add_entries, hashed, read_erasures
from cdc_lake.land.layout import alerts_path, dead_letters_path, log_path, model_paths
from cdc_lake.land.store import DeltaStore
from cdc_lake.land.tier_writing import settle
from cdc_lake.project.fold import fold_connection, rebuild_table
from cdc_lake.project.keys import WHOLE_NUMBERS
from cdc_lake.project.lake import Lake
from cdc_lake.project.snapshot import SourceState, TableState, read_source
from cdc_lake.project.tiered import read_log, tier_table
from cdc_lake.query.keys import find_keys, find_table, read_key
from cdc_lake.query.session import Session
from cdc_lake.sqltext import ident, literal

Tell = Callable[[str], None]
# Rows may land while a log is rewritten: it is looked through again until there are none.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for. `owners` says of a table which of its columns hold the key of which other table, `holds` what
    must not be erased."""

    lake: Lake
    captured: Callable[[TableId], bool]
    owners: Callable[[TableId], Mapping[str, TableId]]
    table: str
    key: str
    apply: bool = False
    delete: bool = False
    memory_mb: int = 1024
    holds: Holds = field(default_factory=Holds)


@dataclass(frozen=True, slots=True)
class Report:
    """What goes or went. `parts` are the tables with rows of the person, `letters` dead letters, `remains` tables from
    which something was erased earlier. `files` says how many replaced files were deleted, or, without `delete`,
    are left; `beyond` what is not reached.
    """

    source: str
    table: TableId
    where: str
    parts: tuple[Part, ...]
    letters: tuple[Letter, ...]
    remains: tuple[TableId, ...]
    files: int = 0
    beyond: tuple[str, ...] = ()


@dataclass(slots=True)
class _Wanted:
    """The rows that go of one table, as far as they are known."""

    keys: set[str] = field(default_factory=set)
    images: list[str] = field(default_factory=list)
    fills: list[str] = field(default_factory=list)
    columns: list[dict[str, str]] = field(default_factory=list)


def erase(job: Job, tell: Tell) -> Report:
    """Plan, and with `apply` do it, which needs `lock.sole_rewriter`.

    Raises UsageError: no such table, a key that cannot be; LakeError: no such row was ever there, or a table cannot be
    rewritten.
    """
    first: Report | None = None
    for _ in range(_ROUNDS):
        with fold_connection(job.memory_mb) as con:
            work = _Work.begin(con, job, tell)
            report = work.plan()
            first = first or report
            if not job.apply or (report is not first and not report.parts):
                return first
            files = work.apply(report)
            first = replace(first, files=first.files + files if job.delete else files)
            if not report.parts:
                return first
    return first if first is not None else report


@dataclass(frozen=True, slots=True)
class _Work:
    """One look at the lake."""

    con: duckdb.DuckDBPyConnection
    job: Job
    tell: Tell
    state: SourceState
    table: TableState
    texts: frozenset[str]
    listed: Erasures
    row_hash: str
    why: LakeError | None

    @classmethod
    def begin(cls, con: duckdb.DuckDBPyConnection, job: Job, tell: Tell) -> _Work:
        lake = job.lake
        states = [read_source(con, lake, s, job.captured, number=i) for i, s in enumerate(lake.sources())]
        session = Session(con, tuple(states))
        state, table = find_table(session, job.table)
        why, texts = None, frozenset[str]()
        try:
            texts = frozenset(find_keys(session, table, job.key))
        except LakeError as error:
            if error.code != "no_row":
                raise
            why = error
        listed = read_erasures(DeltaStore(lake.options), lake.root, state.source)
        return cls(con, job, tell, state, table, texts, listed, hashed(listed.salt, _asked(con, table, job.key)), why)

    def plan(self) -> Report:
        """What is there of the person. Raises LakeError when there never was anything, or when it is under a hold."""
        self._check_owners()
        remains = self._remains()
        wanted = {self.table.table: _Wanted(set(self.texts))} if self._has_rows(known=bool(remains)) else {}
        beyond = self._follow(wanted)
        logs = {t: self._log(t) for t in wanted}
        for table, one in wanted.items():
            self.job.holds.refuse(self.con, self.state, logs[table].table, one.keys)
        parts = []
        for number, (table, one) in enumerate(reversed(wanted.items())):
            images = f"coalesce({', '.join(one.images)})" if one.images else "NULL"
            fills = " UNION ALL ".join(f"FROM {f}" for f in one.fills)
            part = logs[table].part(logs[table].lines(one.keys), number, images, fills)
            if part.rows or table == self.table.table:
                parts.append(part)
        letters = find_letters(self.job.lake, self.state.source, self._sought(wanted, parts))
        if not parts and not remains and not letters and self.why is not None:
            raise self.why
        return Report(
            self.state.source,
            self.table.table,
            _where(self.table, self.job.key),
            tuple(parts),
            tuple(letters),
            tuple(t for t in remains if t not in {p.table.table for p in parts}),
            beyond=tuple(beyond),
        )

    def _has_rows(self, *, known: bool) -> bool:
        """Whether a row has the key now, or had it last. Raises LakeError when it went over to another."""
        lines = self._log(self.table.table).lines(self.texts) if self.texts else None
        if lines is None or lines.keys or known:
            return lines is not None and bool(lines.keys)
        now = ", ".join(lines.left_for)
        raise LakeError(
            f"The row of {self.table.table} that had the key {self.job.key} has another one now: {now}.",
            why="A row is erased by the key that it has, or had last; its earlier keys go with it.",
            next=f"cdc-lake erase {self.table.table} {shlex.quote(lines.left_for[0])} --dry-run",
            code="key_changed",
        )

    def apply(self, report: Report) -> int:
        """Do what the module says; how many files were deleted."""
        lake, source = self.job.lake, self.state.source
        told = self._write_list(report)
        reach("erase:after-list")
        for part in report.parts:
            mark(part, told)
        empty_letters(lake, source, report.letters)
        alerts = erase_alerts(lake, source, {str(p.table.table): self._changes(p) for p in report.parts})
        if alerts:
            self.tell(f"alerts that lose their contents: {alerts:,}")
        for part in report.parts:
            self.tell(f"{part.table.table}: rows of the log that lose their contents: {part.rows:,}")
            empty_rows(self.con, part, told)
        files = 0
        found = read_erasures(DeltaStore(lake.options), lake.root, source)
        for table in sorted({p.table.table for p in report.parts} | set(report.remains)):
            files += self._finish(table, found)
        homes = sorted({source, *lake.sources()})
        paths = [dead_letters_path(lake.root, source), *(alerts_path(lake.root, home) for home in homes)]
        return files + self._clear(paths)

    def _finish(self, table: TableId, found: Erasures) -> int:
        lake, source = self.job.lake, self.state.source
        rebuild = partial(rebuild_table, lake, source, self.job.captured, memory_mb=self.job.memory_mb)
        if clean_models(self.con, lake, source, table, found, rebuild=rebuild):
            self.tell(f"{table}: its read models were made anew")
        paths = model_paths(lake.root, source, table, lake.options)
        log = read_log(lake, source, table)
        tier = tier_table(source, table, log) if log is not None else None
        if tier is not None:
            settle(lake.open(log_path(lake.root, source, table)), tier)
        tiers = [tier.path] if tier is not None else []
        return self._clear([log_path(lake.root, source, table), *tiers, *paths.values()])

    def _clear(self, paths: list[str]) -> int:
        files = 0
        for path in paths:
            clear_bounds(self.job.lake, path)
            reach("erase:after-bounds")
            files += delete_replaced(self.job.lake, path, dry_run=not self.job.delete)
            reach("erase:after-delete")
        return files

    def _write_list(self, report: Report) -> int:
        """The number of entries that the list has then."""
        erasure = next((e.id for e in self.listed.entries if e.row_hash == self.row_hash), str(uuid.uuid4()))
        entries = [e for p in report.parts for e in entries_of(self.con, p, self.listed.salt, erasure)]
        fresh = [e for e in entries if e not in self.listed.entries]
        if fresh:
            lake = self.job.lake
            add_entries(DeltaStore(lake.options), lake.root, self.state.source, self.listed.salt, fresh)
        return len(self.listed.entries) + len(fresh)

    def _remains(self) -> list[TableId]:
        """Tables of which something was erased together with this key before."""
        own = [e for e in self.listed.of(self.table.table) if e.row_hash == self.row_hash]
        ids = {e.id for e in own}
        return sorted({e.table for e in self.listed.entries if e.id in ids})

    def _follow(self, wanted: dict[TableId, _Wanted]) -> list[str]:
        """Add what belongs to the person in other tables; what cannot be followed is named."""
        beyond, waiting = list[str](), list(wanted)
        number = 0
        while waiting:
            parent = waiting.pop(0)
            lines = self._log(parent).lines(wanted[parent].keys)
            for table, column in self._children(parent):
                child = self._log(table)
                if not child.shapes.keyed:
                    beyond.append(f"{table}: it has no key, so its rows cannot be told apart")
                    continue
                number += 1
                values = key_values(self._log(parent), lines)
                found = find_linked(child, column, values, number)
                one = wanted.setdefault(table, _Wanted())
                one.columns += [{column: v} for v in values]
                one.images.append(found.images)
                one.fills.append(found.fills)
                if not found.keys <= one.keys:
                    one.keys |= found.keys
                    waiting.append(table)
        return list(dict.fromkeys(beyond))

    def _check_owners(self) -> None:
        known = {str(t.table) for t in self.state.tables}
        for table in self.state.tables:
            for column, owner in self.job.owners(table.table).items():
                if str(owner) not in known:
                    raise UsageError(
                        f"There is no table {owner}.",
                        why=suggest(str(owner), known) or f"{table.table} is said to belong to it by {column}.",
                        next="correct `tables.….belongs_to` in cdc-lake.yaml",
                        code="bad_link",
                    )

    def _children(self, parent: TableId) -> list[tuple[TableId, str]]:
        tables = [t.table for t in self.state.tables]
        return [(t, c) for t in tables for c, owner in self.job.owners(t).items() if owner == parent]

    def _log(self, table: TableId) -> TableLog:
        return TableLog.of(self.con, self.state, next(t for t in self.state.tables if t.table == table))

    def _sought(self, wanted: Mapping[TableId, _Wanted], parts: list[Part]) -> list[Sought]:
        found = []
        own = self.table.table
        for table, one in {own: _Wanted(), **wanted}.items():
            log, keys = self._log(table).table.log, set(one.keys)
            for part in (p for p in parts if p.table.table == table):
                keys |= self._sent(part)
            topics = {t for t, _ in log.positions} | {f.topic for f in log.own if f.topic}
            asked = _values(self.table, self.job.key) if table == own else None
            found.append(Sought(frozenset(topics), frozenset(keys), asked, tuple(one.columns)))
        return found

    def _sent(self, part: Part) -> set[str]:
        """The keys under which the rows were sent."""
        return {key for key, _ in self._changes(part)}

    def _changes(self, part: Part) -> set[tuple[str, int]]:
        """The changes that go, each by the key it was sent under and its LSN."""
        rows = self.con.execute(f"SELECT DISTINCT sent, lsn FROM {part.relation} WHERE sent IS NOT NULL").fetchall()
        return {(key, lsn) for key, lsn in rows}


def _values(table: TableState, key: str) -> dict[str, str]:
    """The key as it was asked for, by its columns. Raises the table's error when it cannot be shown."""
    if table.error is not None or table.shapes is None:
        raise table.error or ValueError("a table without shapes has an error")
    return read_key(table.table, table.shapes.target.key_columns, key)


def _asked(con: duckdb.DuckDBPyConnection, table: TableState, key: str) -> str:
    """The MD5 by which `verify` compares rows, of the key as it was asked for."""
    values, shapes = _values(table, key), table.shapes
    if shapes is None:
        raise ValueError("a table whose key was read has shapes")
    columns = [
        f"CAST({literal(values[c.name])} AS {c.lake_type}) AS c{i}"
        for i, c in enumerate(shapes.target.columns)
        if c.name in values
    ]
    row = con.execute(f"SELECT {key_md5(shapes)} FROM (SELECT {', '.join(columns)})").fetchone()
    return str(row[0]) if row is not None else ""


def _where(table: TableState, key: str) -> str:
    """The SQL condition for the row, as a person would write it."""
    columns = table.shapes.target.key_columns if table.shapes is not None else []
    numbers = {c.name for c in columns if c.lake_type in WHOLE_NUMBERS}
    spelled = {n: v if n in numbers and v.isdecimal() else literal(v) for n, v in _values(table, key).items()}
    return " AND ".join(f"{ident(n)} = {v}" for n, v in spelled.items())
