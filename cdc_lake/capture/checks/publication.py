"""Checks of the publication: does PostgreSQL hand over all that the connector's lists name, and all of it?"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.capture.preflight import quoted
from cdc_lake.checks import Check, fail, listed, many, ok, warn
from cdc_lake.events import TableId
from cdc_lake.sqltext import ident

_OPERATIONS = ("insert", "update", "delete", "truncate")
_GENERATED_FROM = 180_000
_SCHEMAS_FROM = 150_000

_ROW = "SELECT to_jsonb(p) FROM pg_publication p WHERE pubname = %s"
_NAMED = """
SELECT n.nspname, c.relname, COALESCE(to_jsonb(r)->>'prqual', '') <> '' OR COALESCE(to_jsonb(r)->>'prattrs', '') <> ''
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = %s ORDER BY 1, 2
"""
_ALL = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s ORDER BY 1, 2"
_SCHEMAS = "SELECT 1 FROM pg_publication_namespace s JOIN pg_publication p ON p.oid = s.pnpubid WHERE p.pubname = %s"


@dataclass(frozen=True, slots=True)
class PublicationFacts:
    """A publication. `narrowed` are tables that it gives only some rows or columns of; `sweeping`: it names whole
    schemas or everything instead of tables; `generated`: it sends stored generated columns."""

    operations: frozenset[str]
    via_root: bool
    generated: bool
    sweeping: bool
    tables: frozenset[TableId]
    narrowed: tuple[TableId, ...] = ()


@dataclass(frozen=True, slots=True)
class Captured:
    """What the connector's lists name. `partitioned`: some of the tables are; `generated`: some have stored generated
    columns; `server` is the server's version number."""

    tables: frozenset[TableId]
    own: frozenset[TableId]
    partitioned: bool
    generated: bool
    server: int


def read_publication(connection: Connection, name: str) -> PublicationFacts | None:
    """The publication of this name; None when there is none. Raises SourceError when the source refuses."""
    try:
        row = connection.execute(_ROW, (name,)).fetchone()
        if row is None:
            return None
        named = connection.execute(_NAMED, (name,)).fetchall()
        every = connection.execute(_ALL, (name,)).fetchall()
        sweeping = bool(row[0]["puballtables"]) or (
            connection.info.server_version >= _SCHEMAS_FROM
            and connection.execute(_SCHEMAS, (name,)).fetchone() is not None
        )
    except psycopg.Error as error:
        raise explain_statement(error, "read the publication") from None
    found: dict[str, Any] = row[0]
    listed_here = {TableId(schema, table) for schema, table, _ in named}
    everything = {TableId(schema, table) for schema, table in every}
    return PublicationFacts(
        operations=frozenset(o for o in _OPERATIONS if found[f"pub{o}"]),
        via_root=bool(found["pubviaroot"]),
        generated=found.get("pubgencols") in ("s", True),
        sweeping=sweeping,
        # What whole schemas or everything comes to is in no list; the view works it out.
        tables=frozenset(everything if sweeping else listed_here),
        narrowed=tuple(TableId(schema, table) for schema, table, narrow in named if narrow),
    )


def missing_publication(subject: Subject) -> Check:
    """The publication of a registered connector is not there."""
    return fail(
        "publication.exists",
        f'there is no publication "{subject.publication}"',
        why="PostgreSQL has nothing to send to the connector without it.",
        fix=subject.register,
    )


def check_publication(subject: Subject, publication: PublicationFacts, captured: Captured) -> list[Check]:
    """Judge the publication against what the connector's lists name."""
    return [
        _scope(subject, publication),
        _options(subject, publication, captured),
        _unpublished(subject, publication, captured),
        _uncaptured(subject, publication, captured),
        _narrowed(subject, publication),
    ]


def _scope(subject: Subject, publication: PublicationFacts) -> Check:
    if not publication.sweeping:
        return ok("publication.exists", f'"{subject.publication}" names {many(len(publication.tables), "table")}')
    return warn(
        "publication.exists",
        f'"{subject.publication}" publishes whole schemas or all tables',
        why="UPDATE and DELETE fail in the source on every new table without a key.",
        fix=f"DROP PUBLICATION {ident(subject.publication)};   then: {subject.register}",
    )


def _options(subject: Subject, publication: PublicationFacts, captured: Captured) -> Check:
    lost = [f"{o.upper()} is not published" for o in _OPERATIONS if o not in publication.operations]
    weak: list[str] = []
    if not publication.via_root:
        (lost if captured.partitioned else weak).append("partitions are published under their own names")
    options = ["publish = 'insert, update, delete, truncate'", "publish_via_partition_root = true"]
    if captured.server >= _GENERATED_FROM:
        options.append("publish_generated_columns = stored")
        if not publication.generated:
            (lost if captured.generated else weak).append("stored generated columns are not published")
    if not lost and not weak:
        return ok("publication.options", "all operations, under the root of partitions, with generated columns")
    judge = fail if lost else warn
    return judge(
        "publication.options",
        listed([*lost, *weak]),
        why="The lake differs from the source after the first such change, and no error says so."
        if lost
        else "No captured table is touched by it now; the next one may be.",
        fix=f"ALTER PUBLICATION {ident(subject.publication)} SET ({', '.join(options)});",
    )


def _unpublished(subject: Subject, publication: PublicationFacts, captured: Captured) -> Check:
    missing = sorted((captured.tables | captured.own) - publication.tables)
    if not missing:
        return ok("publication.tables", f"{many(len(captured.tables), 'captured table')}, all published")
    return fail(
        "publication.tables",
        f"captured and not published: {listed(missing)}",
        why="PostgreSQL sends no change of them; what changes meanwhile is missed, so their rows are read again.",
        fix=f"{subject.register}   (it runs ALTER PUBLICATION {ident(subject.publication)} ADD TABLE {_sql(missing)})",
    )


def _uncaptured(subject: Subject, publication: PublicationFacts, captured: Captured) -> Check:
    extra = sorted(publication.tables - captured.tables - captured.own)
    if not extra or publication.sweeping:
        return ok("publication.others", "nothing else is published")
    return warn(
        "publication.others",
        f"published and not captured: {listed(extra)}",
        why="Their changes are sent to the connector, which throws them away.",
        fix=f"ALTER PUBLICATION {ident(subject.publication)} DROP TABLE {_sql(extra)};",
    )


def _narrowed(subject: Subject, publication: PublicationFacts) -> Check:
    if not publication.narrowed:
        return ok("publication.filters", "no row filters and no column lists")
    return warn(
        "publication.filters",
        f"only some rows or columns are published of {listed(publication.narrowed)}",
        why="What a filter or a list leaves out is missing in the lake; `verify` reports it.",
        fix=f"ALTER PUBLICATION {ident(subject.publication)} DROP TABLE {_sql(publication.narrowed)};   then: "
        f"{subject.register}",
    )


def _sql(tables: Iterable[TableId] | Collection[TableId]) -> str:
    return ", ".join(f"ONLY {quoted(t)}" for t in tables)
