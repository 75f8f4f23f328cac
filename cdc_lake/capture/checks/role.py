"""Checks of the role that the connector logs in with: it may do what it must, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.capture.preflight import HEARTBEAT, quoted
from cdc_lake.checks import Check, fail, listed, ok, warn
from cdc_lake.events import TableId
from cdc_lake.sqltext import ident

_ROLE = """
SELECT rolsuper, rolreplication, rolcanlogin, has_database_privilege(rolname, current_database(), 'CONNECT')
FROM pg_roles WHERE rolname = %s
"""
# Schema and table rights of every table at once: the captured ones may be thousands.
_RIGHTS = """
SELECT n.nspname, c.relname, has_schema_privilege(%(role)s, n.oid, 'USAGE'),
       has_table_privilege(%(role)s, c.oid, 'SELECT'), has_table_privilege(%(role)s, c.oid, 'INSERT'),
       has_table_privilege(%(role)s, c.oid, 'UPDATE'), has_table_privilege(%(role)s, c.oid, 'DELETE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[]))
"""
_RIGHTS_ORDER = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """The role; `missing` are rights that it lacks, each with the GRANT that gives it."""

    name: str
    superuser: bool
    replication: bool
    login: bool
    missing: tuple[tuple[str, str], ...] = ()


def read_role(
    connection: Connection, name: str, captured: Sequence[TableId], own: Sequence[TableId]
) -> RoleFacts | None:
    """The role of this name; None when there is none. Raises SourceError when the source refuses."""
    every = [*captured, *own]
    names = {"role": name, "schemas": [t.schema for t in every], "tables": [t.name for t in every]}
    try:
        row = connection.execute(_ROLE, (name,)).fetchone()
        if row is None:
            return None
        rights = connection.execute(_RIGHTS, names).fetchall()
    except psycopg.Error as error:
        raise explain_statement(error, "read the rights of the connector's role") from None
    superuser, replication, login, may_connect = row
    database, role = connection.info.dbname, ident(name)
    missing = (
        [] if may_connect else [(f"CONNECT on {database}", f"GRANT CONNECT ON DATABASE {ident(database)} TO {role};")]
    )
    closed = sorted({schema for schema, _, usage, *_ in rights if not usage})
    missing += [(f"USAGE on {schema}", f"GRANT USAGE ON SCHEMA {ident(schema)} TO {role};") for schema in closed]
    for schema, table, _, *held in rights:
        where = TableId(schema, table)
        lacks = [r for r, has in zip(_RIGHTS_ORDER, held, strict=True) if r in _needed(where, own) and not has]
        if lacks:
            wish = ", ".join(lacks)
            missing.append((f"{wish} on {where}", f"GRANT {wish} ON {quoted(where)} TO {role};"))
    return RoleFacts(name, superuser, replication, login, tuple(missing))


def missing_role(subject: Subject, name: str) -> Check:
    """The connector's role is not there."""
    return fail(
        "role.exists",
        f'there is no role "{name}"',
        why="The connector cannot log in.",
        fix=f"{subject.register}   (it makes the role when the file says ${{capture:user}})",
    )


def check_role(subject: Subject, role: RoleFacts) -> list[Check]:
    """Judge the role."""
    return [ok("role.exists", f'"{role.name}"'), _superuser(role), _attributes(role), _rights(subject, role)]


def _superuser(role: RoleFacts) -> Check:
    if not role.superuser:
        return ok("role.superuser", "no superuser")
    return warn(
        "role.superuser",
        f'"{role.name}" is a superuser',
        why="Whoever reads the connector's secret owns the whole server.",
        fix=f"ALTER ROLE {ident(role.name)} NOSUPERUSER REPLICATION;   or use ${{capture:user}} in the connector file",
    )


def _attributes(role: RoleFacts) -> Check:
    wanted = (("LOGIN", role.login), ("REPLICATION", role.replication or role.superuser))
    lacks = [attribute for attribute, has in wanted if not has]
    if not lacks:
        return ok("role.attributes", "may log in and replicate")
    return fail(
        "role.attributes",
        f'"{role.name}" lacks {listed(lacks)}',
        why="The connector needs both to read the slot.",
        fix=f"ALTER ROLE {ident(role.name)} {' '.join(lacks)};",
    )


def _rights(subject: Subject, role: RoleFacts) -> Check:
    if role.superuser or not role.missing:
        return ok("role.rights", "may read what is captured")
    return fail(
        "role.rights",
        f'"{role.name}" lacks {listed(what for what, _ in role.missing)}',
        why="The connector stops at the first snapshot or heartbeat that needs it.",
        fix=f"{subject.register}   (it runs {' '.join(grant for _, grant in role.missing[:20])})",
    )


def _needed(table: TableId, own: Sequence[TableId]) -> frozenset[str]:
    if table not in own:
        return frozenset({"SELECT"})
    # The heartbeat is one row, updated in place; signals come and go.
    return frozenset({"SELECT", "INSERT", "UPDATE"} if table == HEARTBEAT else {"SELECT", "INSERT", "DELETE"})
