"""What a source needs before it can be captured, as a list of statements: only what is missing, so it may run again.

A connector that creates its publication itself needs to own every table; here an administrator makes the publication
once and the connector's role only reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.capture.preflight import HEARTBEAT, Survey, own_tables, quoted
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import SourceError
from cdc_lake.events import TableId
from cdc_lake.sqltext import ident, literal

_HIDDEN = "'********'"
_PUBLISH_GENERATED_FROM = 18
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement for the source. `doing` completes "may not …"; `shown` stands in for a text that holds a secret."""

    sql: str
    doing: str
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or self.sql


@dataclass(frozen=True, slots=True)
class RoleWish:
    """The role the connector uses. `set_password`: give it `password` (None in a dry run: not made yet)."""

    name: str
    managed: bool
    set_password: bool
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The statements, and the tables that enter a publication that was there before."""

    statements: tuple[Statement, ...]
    added_tables: tuple[TableId, ...]


def plan(connection: Connection, connector: ConnectorFile, survey: Survey, role: RoleWish | None) -> Plan:
    """The statements that prepare the source; none when everything is in place.

    `role` None: the connector's user is known to the Connect worker alone, so nothing can be granted.
    Raises SourceError when something is in the way that only a person can decide about.
    """
    own = own_tables(connector)
    captured = [t.id for t in survey.tables]
    try:
        statements = _own_table_statements(connection, own)
        if role is not None:
            statements += _role_statements(connection, role)
            statements += _grant_statements(connection, role.name, captured, own)
            if role.managed:
                statements += _revoke_statements(connection, role.name, {*captured, *own})
        published, added = _publication_statements(connection, connector, survey, [*captured, *own])
    except psycopg.Error as error:
        raise explain_statement(error, "read what the source already has") from None
    return Plan((*statements, *published), tuple(t for t in added if t not in own))


def execute(connection: Connection, statements: Sequence[Statement]) -> None:
    """Run all statements in one transaction: either the source is prepared or it is as before. Raises SourceError.

    A transaction that PostgreSQL ends for the sake of another one is begun again: autovacuum is in the way of grants
    and publications of a table that has just been filled.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        statement = None
        try:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement.sql.encode())
        except psycopg.errors.DeadlockDetected as error:
            if attempt == _ATTEMPTS:
                raise explain_statement(error, statement.doing if statement else "commit") from None
        except psycopg.Error as error:
            raise explain_statement(error, statement.doing if statement else "commit") from None
        else:
            return


def role_exists(connection: Connection, name: str) -> bool:
    """Whether the source has a role of this name."""
    return _exists(connection, "SELECT oid FROM pg_roles WHERE rolname = %s", name)


def _own_table_statements(connection: Connection, own: Iterable[TableId]) -> list[Statement]:
    found: list[Statement] = []
    schemas: set[str] = set()
    for table in own:
        if table.schema not in schemas and not _exists(connection, "SELECT to_regnamespace(%s)", ident(table.schema)):
            found.append(Statement(f"CREATE SCHEMA {ident(table.schema)}", f"create the schema {table.schema}"))
        schemas.add(table.schema)
        if _exists(connection, "SELECT to_regclass(%s)", quoted(table)):
            continue
        columns = (
            "id integer PRIMARY KEY, beat timestamptz NOT NULL"
            if table == HEARTBEAT
            else "id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048)"
        )
        found.append(Statement(f"CREATE TABLE {quoted(table)} ({columns})", f"create the table {table}"))
        if table == HEARTBEAT:
            insert = f"INSERT INTO {quoted(table)} (id, beat) VALUES (1, clock_timestamp())"
            found.append(Statement(insert, f"write to {table}"))
    return found


def _role_statements(connection: Connection, role: RoleWish) -> list[Statement]:
    row = connection.execute(
        "SELECT rolcanlogin, rolreplication, rolsuper FROM pg_roles WHERE rolname = %s", (role.name,)
    ).fetchone()
    name, doing = ident(role.name), f"make the role {role.name}"
    if row is None and not role.managed:
        raise SourceError(
            f'The role "{role.name}" of the connector file does not exist in the source.',
            why="Its password is not known here, so it cannot be made here.",
            next=f"in the source: CREATE ROLE {name} LOGIN REPLICATION PASSWORD '…';  or write "
            '"${capture:user}" and "${capture:password}" in the connector file',
            code="no_role",
        )
    if row is None:
        made = f"CREATE ROLE {name} LOGIN REPLICATION"
        return [_with_password(connection, made, role, doing) if role.set_password else Statement(made, doing)]
    found = []
    can_login, replicates, superuser = row
    if not can_login:
        found.append(Statement(f"ALTER ROLE {name} LOGIN", doing))
    if not (replicates or superuser):
        found.append(Statement(f"ALTER ROLE {name} REPLICATION", doing))
    if role.managed and role.set_password:
        found.append(_with_password(connection, f"ALTER ROLE {name}", role, f"set the password of {role.name}"))
    return found


def _with_password(connection: Connection, sql: str, role: RoleWish, doing: str) -> Statement:
    shown = f"{sql} PASSWORD {_HIDDEN}"
    if role.password is None:
        return Statement(shown, doing, shown)
    # Only the verifier leaves this process: a password in a statement would stand in the server's log.
    verifier = connection.pgconn.encrypt_password(role.password.encode(), role.name.encode()).decode()
    return Statement(f"{sql} PASSWORD {literal(verifier)}", doing, shown)


def _grant_statements(
    connection: Connection, role: str, captured: Iterable[TableId], own: Iterable[TableId]
) -> list[Statement]:
    found = []
    database = connection.info.dbname
    wishes = dict[TableId, tuple[str, ...]].fromkeys(captured, ("SELECT",)) | {
        table: ("SELECT", "INSERT", "UPDATE") if table == HEARTBEAT else ("SELECT", "INSERT", "DELETE") for table in own
    }
    exists = role_exists(connection, role)
    if not exists or not _exists(connection, "SELECT has_database_privilege(%s, %s, 'CONNECT')", role, database):
        found.append(_grant("CONNECT", f"DATABASE {ident(database)}", role))
    for schema in dict.fromkeys(table.schema for table in wishes):
        there = exists and _exists(connection, "SELECT to_regnamespace(%s)", ident(schema))
        if not there or not _exists(connection, "SELECT has_schema_privilege(%s, %s, 'USAGE')", role, schema):
            found.append(_grant("USAGE", f"SCHEMA {ident(schema)}", role))
    tables_by_rights: dict[str, list[TableId]] = {}
    for table, rights in wishes.items():
        there = exists and _exists(connection, "SELECT to_regclass(%s)", quoted(table))
        missing = [
            right
            for right in rights
            if not there
            or not _exists(connection, "SELECT has_table_privilege(%s, %s, %s)", role, quoted(table), right)
        ]
        if missing:
            tables_by_rights.setdefault(", ".join(missing), []).append(table)
    for rights_text, tables in tables_by_rights.items():
        found.append(_grant(rights_text, ", ".join(quoted(t) for t in tables), role))
    return found


def _grant(rights: str, on: str, role: str) -> Statement:
    return Statement(f"GRANT {rights} ON {on} TO {ident(role)}", f"grant {rights} on {on}")


def _revoke_statements(connection: Connection, role: str, kept: set[TableId]) -> list[Statement]:
    rows = connection.execute(
        "SELECT DISTINCT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " CROSS JOIN aclexplode(c.relacl) AS acl JOIN pg_roles r ON r.oid = acl.grantee"
        " WHERE r.rolname = %s AND c.relkind IN ('r', 'p') ORDER BY 1, 2",
        (role,),
    ).fetchall()
    gone = [TableId(schema, name) for schema, name in rows if TableId(schema, name) not in kept]
    return [Statement(f"REVOKE ALL ON {quoted(t)} FROM {ident(role)}", f"revoke rights on {t}") for t in gone]


def _publication_statements(
    connection: Connection, connector: ConnectorFile, survey: Survey, wanted: list[TableId]
) -> tuple[list[Statement], list[TableId]]:
    if connector.config.get("publication.autocreate.mode", "all_tables") != "disabled":
        return [], []
    publication = connector.config.get("publication.name", "dbz_publication")
    name, doing = ident(publication), f"make the publication {publication}"
    options = {"publish": "'insert, update, delete, truncate'", "publish_via_partition_root": "true"}
    if survey.server.major >= _PUBLISH_GENERATED_FROM:
        options["publish_generated_columns"] = "stored"
    row = connection.execute("SELECT to_jsonb(p) FROM pg_publication p WHERE pubname = %s", (publication,)).fetchone()
    if row is None:
        tables = ", ".join(f"ONLY {quoted(t)}" for t in wanted)
        return [Statement(f"CREATE PUBLICATION {name} FOR TABLE {tables} WITH ({_options(options)})", doing)], []
    there = _published_tables(connection, publication, row[0])
    added = [t for t in wanted if t not in there]
    gone = sorted(there - set(wanted))
    found = []
    if added:
        tables = ", ".join(f"ONLY {quoted(t)}" for t in added)
        found.append(Statement(f"ALTER PUBLICATION {name} ADD TABLE {tables}", doing))
    if gone:
        tables = ", ".join(f"ONLY {quoted(t)}" for t in gone)
        found.append(Statement(f"ALTER PUBLICATION {name} DROP TABLE {tables}", doing))
    if not _has_options(row[0], generated="publish_generated_columns" in options):
        found.append(Statement(f"ALTER PUBLICATION {name} SET ({_options(options)})", doing))
    return found, added


def _published_tables(connection: Connection, publication: str, row: dict[str, Any]) -> set[TableId]:
    whole_schemas = (
        row["oid"]
        and _exists(connection, "SELECT to_regclass('pg_catalog.pg_publication_namespace')")
        and _exists(connection, "SELECT count(*) FROM pg_publication_namespace WHERE pnpubid = %s::oid", row["oid"])
    )
    if row["puballtables"] or whole_schemas:
        raise SourceError(
            f'The publication "{publication}" publishes {"all tables" if row["puballtables"] else "whole schemas"}.',
            why="Every new table without a key would fail on UPDATE and DELETE, and its tables cannot be listed.",
            next=f"in the source: DROP PUBLICATION {ident(publication)};  or choose another `publication.name`",
            code="publication",
        )
    rows = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid"
        " JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = %s",
        (publication,),
    ).fetchall()
    return {TableId(schema, name) for schema, name in rows}


def _has_options(row: dict[str, Any], *, generated: bool) -> bool:
    return all(row[k] for k in ("pubinsert", "pubupdate", "pubdelete", "pubtruncate", "pubviaroot")) and (
        not generated or row.get("pubgencols") == "s"
    )


def _options(options: dict[str, str]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in options.items())


def _exists(connection: Connection, query: str, *values: str) -> bool:
    row = connection.execute(query.encode(), values).fetchone()
    return bool(row and row[0])
