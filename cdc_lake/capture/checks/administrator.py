"""Checks of the user of `source.dsn`: may it prepare the source, or must somebody else run the SQL?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.checks import Check, listed, ok, warn
from cdc_lake.events import TableId

# Before 16 only a superuser makes a role that replicates; from then on one that does so itself may.
_DELEGATED_FROM = 160_000

_ROLE = """
SELECT rolname::text, rolsuper, rolcreaterole, rolreplication,
       has_database_privilege(current_user, current_database(), 'CREATE')
FROM pg_roles WHERE rolname = current_user
"""
_STRANGE = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
  AND NOT pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class AdministratorFacts:
    """The user of `source.dsn`; `strange` are captured tables that it does not own."""

    name: str
    superuser: bool
    makes_roles: bool
    creates: bool
    strange: tuple[TableId, ...] = ()


def read_administrator(connection: Connection, captured: Sequence[TableId]) -> AdministratorFacts:
    """Who is connected, and what it may do. Raises SourceError when the source refuses."""
    names = ([t.schema for t in captured], [t.name for t in captured])
    try:
        row = connection.execute(_ROLE).fetchone()
        strange = connection.execute(_STRANGE, names).fetchall()
    except psycopg.Error as error:
        raise explain_statement(error, "read its own rights") from None
    assert row is not None  # noqa: S101 - the current user is a role
    name, superuser, creates_roles, replicates, creates = row
    makes = creates_roles and replicates and connection.info.server_version >= _DELEGATED_FROM
    return AdministratorFacts(name, superuser, makes, creates, tuple(TableId(s, t) for s, t in strange))


def check_administrator(user: AdministratorFacts) -> Check:
    """Judge the rights."""
    check = "source.rights"
    lacks = []
    if not user.superuser:
        lacks += [] if user.makes_roles else ["a role that replicates"]
        lacks += [] if user.creates else ["a schema and a publication in this database"]
        lacks += [f"the publication of {listed(user.strange)}, which it does not own"] if user.strange else []
    if not lacks:
        return ok(check, f'"{user.name}" may prepare the source')
    return warn(
        check,
        f'"{user.name}" may not make {"; ".join(lacks)}',
        why="`connector register` prepares the source as this user, and would be refused.",
        fix="let an administrator run the setup SQL; `register` then only submits the connector",
    )
