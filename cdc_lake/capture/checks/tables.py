"""Checks of the captured tables: can PostgreSQL name each changed row, and does it replicate all of it?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg

from cdc_lake.capture.checks.publication import Captured
from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.capture.preflight import (
    SourceTable,
    choose_tables,
    identity_statement,
    own_tables,
    quoted,
    read_tables,
)
from cdc_lake.checks import Check, fail, listed, many, ok, warn
from cdc_lake.events import TableId

_GENERATED_FROM = 180_000
_STATEMENTS = 20

_DEFERRABLE = """
SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.indisprimary AND NOT i.indimmediate
"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The captured tables with the partitions below them, what the lists name beside, and what the source lacks.

    `deferrable` are tables of the source whose primary key is checked late, `absent` own tables (heartbeat, signals)
    that are not there.
    """

    tables: tuple[SourceTable, ...]
    partitions: tuple[SourceTable, ...]
    unlogged: tuple[SourceTable, ...]
    deferrable: frozenset[TableId]
    own: tuple[TableId, ...]
    absent: tuple[TableId, ...]
    server: int

    @property
    def leaves(self) -> list[SourceTable]:
        """What holds rows: tables that are not partitioned, and partitions."""
        return [t for t in (*self.tables, *self.partitions) if t.kind == "r"]

    @property
    def captured(self) -> Captured:
        """What the publication must have."""
        return Captured(
            frozenset(t.id for t in self.tables),
            frozenset(self.own),
            partitioned=any(t.kind == "p" for t in self.tables),
            generated=any(t.generated_stored for t in self.tables),
            server=self.server,
        )

    @property
    def full(self) -> frozenset[TableId]:
        """Captured tables whose every row is replicated whole before each change (REPLICA IDENTITY FULL)."""
        poor = {oid for t in self.leaves if t.identity != "f" for oid in (t.oid, *t.ancestors)}
        return frozenset(t.id for t in self.tables if t.oid not in poor)


def read_table_facts(connection: Connection, subject: Subject) -> TableFacts:
    """Read the tables. Raises SourceError (also when the lists name no table) and ConfigError (a bad pattern)."""
    try:
        everything = read_tables(connection)
        deferrable = connection.execute(_DEFERRABLE).fetchall()
    except psycopg.Error as error:
        raise explain_statement(error, "read the tables") from None
    tables, partitions, unlogged = choose_tables(everything, subject.connector)
    there = {t.id for t in everything}
    own = own_tables(subject.connector)
    return TableFacts(
        tuple(tables),
        tuple(partitions),
        tuple(unlogged),
        frozenset(TableId(schema, name) for schema, name in deferrable),
        own,
        tuple(t for t in own if t not in there),
        connection.info.server_version,
    )


def check_tables(subject: Subject, facts: TableFacts) -> list[Check]:
    """Judge the tables."""
    return [
        ok("tables.captured", f"{many(len(facts.tables), 'table')}, {many(len(facts.partitions), 'partition')}"),
        _identity(subject, facts),
        _virtual(facts),
        _unlogged(subject, facts),
        _generated(facts),
    ]


def check_own(subject: Subject, facts: TableFacts) -> Check:
    """Are the tables there that the connector writes itself? `register` makes them."""
    name = "tables.own"
    if not facts.absent:
        return ok(name, listed(facts.own) or "the connector has no table of its own")
    return fail(
        name,
        f"missing: {listed(facts.absent)}",
        why="The connector writes heartbeats and reads signals there; without it the WAL is held for ever.",
        fix=subject.register,
    )


def _identity(subject: Subject, facts: TableFacts) -> Check:
    name = "tables.identity"
    nameless = [t for t in facts.leaves if not t.identified]
    if not nameless:
        return ok(name, "PostgreSQL can name every changed row")
    return fail(
        name,
        listed(f"{t.id} has {_missing(t, facts.deferrable)}" for t in nameless),
        why="Once such a table is published, every UPDATE and DELETE on it fails in the source.",
        fix=f'{_statements(map(identity_statement, nameless))}   or add it to "table.exclude.list" in {subject.file}',
    )


def _missing(table: SourceTable, deferrable: frozenset[TableId]) -> str:
    if table.identity == "n":
        return "REPLICA IDENTITY NOTHING"
    if table.identity == "i":
        return "a replica identity index that does not exist any more"
    if table.id in deferrable:
        return "a DEFERRABLE primary key, which is no replica identity"
    return "no primary key and no replica identity"


def _virtual(facts: TableFacts) -> Check:
    name = "tables.virtual_columns"
    found = [t for t in facts.leaves if t.identity == "f" and t.generated_virtual]
    if not found:
        return ok(name, "no virtual column stands in a replica identity")
    return fail(
        name,
        f"REPLICA IDENTITY FULL and a virtual generated column: {listed(t.id for t in found)}",
        why="Once such a table is published, every UPDATE and DELETE on it fails in the source.",
        fix=_statements(f"ALTER TABLE {quoted(t.id)} REPLICA IDENTITY DEFAULT;" for t in found)
        + "   (with a primary key), or make the columns STORED",
    )


def _unlogged(subject: Subject, facts: TableFacts) -> Check:
    name = "tables.unlogged"
    if not facts.unlogged:
        return ok(name, "none is unlogged")
    return warn(
        name,
        f"unlogged: {listed(t.id for t in facts.unlogged)}",
        why="PostgreSQL does not replicate unlogged tables, so they are not captured.",
        fix=_statements(f"ALTER TABLE {quoted(t.id)} SET LOGGED;" for t in facts.unlogged)
        + f"   then: {subject.register}",
    )


def _generated(facts: TableFacts) -> Check:
    name = "tables.generated_columns"
    found = [f"{t.id}.{c}" for t in facts.tables for c in t.generated_stored]
    if not found or facts.server >= _GENERATED_FROM:
        return ok(name, many(len(found), "stored generated column"))
    return warn(
        name,
        f"not replicated before PostgreSQL 18: {listed(found)}",
        why="They would be right in the first snapshot and stale ever after, so `register` leaves them out.",
        fix="pg_upgrade to PostgreSQL 18, or compute them in queries on the lake",
    )


def _statements(parts: Iterable[str]) -> str:
    every: Sequence[str] = list(parts)
    return " ".join(every[:_STATEMENTS]) + (f" … ({len(every) - _STATEMENTS} more)" if len(every) > _STATEMENTS else "")
