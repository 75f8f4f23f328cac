"""Look at a source before anything is written: is it fit for capture, what is in it, what does it still need?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from cdc_lake.capture.catalogue import read_catalogue
from cdc_lake.capture.checks import administrator, publication, role, server, storage, tables
from cdc_lake.capture.checks.slot import read_slot
from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.postgres import Connection, explain_statement, open_source
from cdc_lake.capture.preflight import Survey, look, read_tables
from cdc_lake.capture.prepare import RoleWish, Statement, plan
from cdc_lake.capture.secrets import capture_role
from cdc_lake.checks import Check, Status, failed
from cdc_lake.config import STATE_FOLDER
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import CdcLakeError, SourceError
from cdc_lake.events import TableId
from cdc_lake.init.address import Address
from cdc_lake.project.check_columns import check_columns

# What `connector register` refuses to begin with, and a person has to mend first.
_FIRST = ("server.wal_level", "tables.identity")
_RIGHTS = "source.rights"
_OWN_SCHEMA = "cdc_lake"
_SETTING = re.compile(r"`source\.dsn`( (in|of) cdc-lake\.yaml)?")

_SIZES = """
SELECT n.nspname, c.relname, greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the source told.

    `tables` are those that will be captured, with their estimated rows, the largest first. `statements` prepare the
    source; `survey` is None when there is no table to capture yet.
    """

    database: str
    version: str
    checks: tuple[Check, ...]
    tables: tuple[tuple[TableId, int], ...]
    survey: Survey | None
    statements: tuple[Statement, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of capture."""
        return not any(c.status is Status.FAIL for c in self.checks)

    @property
    def needs_setup(self) -> bool:
        """Whether the SQL must be run before the connector can be registered."""
        return any(
            c.status is not Status.OK and (c.name in _FIRST or (c.name == _RIGHTS and self.statements))
            for c in self.checks
        )


def schemas_of(address: Address) -> tuple[str, ...]:
    """The schemas that hold tables; `public` when none does. Raises UnavailableError or SourceError."""
    with _open(address) as connection:
        try:
            found = {t.id.schema for t in read_tables(connection)} - {_OWN_SCHEMA}
        except psycopg.Error as error:
            raise explain_statement(error, "read the tables") from None
    return tuple(sorted(found)) or ("public",)


def inspect(address: Address, connector: ConnectorFile, file: str, folder: Path) -> Found:
    """Look at all that capture needs; nothing is changed. Raises UnavailableError or SourceError."""
    subject = Subject(connector, file)
    with _open(address) as connection:
        slot = read_slot(connection, subject.slot)
        found = server.read_server(connection)
        checks = server.check_server(found, slot_exists=slot is not None)
        state = folder / STATE_FOLDER
        user = capture_role(state, connector.name).name
        try:
            facts = tables.read_table_facts(connection, subject)
        except SourceError as error:
            checks.append(failed("tables.captured", error))
            return Found(connection.info.dbname, found.version, tuple(checks), (), None, ())
        checks += _checks(connection, subject, facts, user, address)
        surveyed = look(connection, connector)
        statements, trouble = _statements(connection, connector, surveyed, user)
        sizes = _sizes(connection)
        sized = sorted(((t.id, sizes.get(t.id, 0)) for t in surveyed.tables), key=lambda pair: (-pair[1], pair[0]))
        return Found(
            connection.info.dbname, found.version, (*checks, *trouble), tuple(sized), surveyed, tuple(statements)
        )


def _checks(
    connection: Connection, subject: Subject, facts: tables.TableFacts, user: str, address: Address
) -> list[Check]:
    captured = [t.id for t in facts.tables]
    checks = tables.check_tables(subject, facts)
    checks += storage.check_storage(facts, storage.read_toast(connection, [t.oid for t in facts.leaves]))
    checks += check_columns(read_catalogue(address.dsn, captured), facts.full)
    published = publication.read_publication(connection, subject.publication)
    if published is not None:
        checks += publication.check_publication(subject, published, facts.captured)
    held = role.read_role(connection, user, captured, [t for t in facts.own if t not in facts.absent])
    if held is not None:
        checks += role.check_role(subject, held)
    checks.append(administrator.check_administrator(administrator.read_administrator(connection, captured)))
    return checks


def _statements(
    connection: Connection, connector: ConnectorFile, surveyed: Survey, user: str
) -> tuple[Sequence[Statement], list[Check]]:
    # The password is made and set by `register`: a file for others to run must not hold it.
    wish = RoleWish(user, managed=True, set_password=False)
    try:
        return plan(connection, connector, surveyed, wish).statements, []
    except CdcLakeError as error:
        return (), [failed("source.preparation", error)]


def _open(address: Address) -> Connection:
    try:
        connection = open_source(address.dsn)
    except CdcLakeError as error:
        # There is no configuration yet that one could correct.
        message, step = (_SETTING.sub("--dsn", text) for text in (error.message, error.next))
        raise type(error)(message, why=error.why, next=step, code=error.code) from None
    if connection.info.host.startswith("/"):
        connection.close()
        raise SourceError(
            "The source's address is a Unix socket, which Kafka Connect cannot use.",
            why="Kafka Connect runs in Java and reaches PostgreSQL over TCP alone.",
            next="name host and port in --dsn",
            code="unix_socket",
        )
    return connection


def _sizes(connection: Connection) -> dict[TableId, int]:
    try:
        rows = connection.execute(_SIZES).fetchall()
    except psycopg.Error as error:
        raise explain_statement(error, "read the sizes of the tables") from None
    return {TableId(schema, name): count for schema, name, count in rows}
