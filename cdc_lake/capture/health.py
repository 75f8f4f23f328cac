"""Does a connector really read? Connect says RUNNING while a task tries in vain, again and again.

Debezium retries what it takes for passing trouble, without end and without a word over REST: a wrong password, a
missing grant, a slot that somebody else reads. So the source itself is asked whether the slot is read, and if not, why.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from cdc_lake.capture import prepare
from cdc_lake.capture.connect import ConnectClient, ConnectorStatus, Validation
from cdc_lake.capture.failures import explain
from cdc_lake.capture.postgres import Connection, explain_statement, open_source
from cdc_lake.capture.preflight import Slot, read_slot, survey
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import CdcLakeError, ConnectorError, SourceError


@dataclass(frozen=True, slots=True)
class Health:
    """A connector's state and what is wrong with it; `slot` is None when there is none or it was not asked for."""

    status: ConnectorStatus
    slot: Slot | None
    problem: CdcLakeError | None


def health(client: ConnectClient, connector: ConnectorFile, dsn: str) -> Health:
    """The state of a connector as registered, and of its slot in the source. Never raises for what is wrong there."""
    status = client.status(connector.name)
    if status.failure is not None:
        return Health(status, None, task_error(status))
    if not status.running:
        return Health(status, None, None)
    try:
        with open_source(dsn) as connection:
            if connector.config.get("database.dbname") not in (None, connection.info.dbname):
                return Health(status, None, None)  # a connector of another source than the configured one
            slot = read_slot(connection, connector)
            if is_reading(connection, connector, slot):
                return Health(status, slot, None)
            return Health(status, slot, diagnose(client, connector, connection))
    except CdcLakeError as error:
        return Health(status, None, error)


def task_error(status: ConnectorStatus) -> ConnectorError:
    """The error of a failed connector in words; its `failure` must not be None."""
    words = explain(status.failure or "", name=status.name)
    return ConnectorError(
        f"Connector {status.name} failed: {words.message}", why=words.why, next=words.next, code=words.code
    )


def is_reading(connection: Connection, connector: ConnectorFile, slot: Slot | None) -> bool:
    """Whether the slot is read, and by the connector's role."""
    return slot is not None and slot.pid is not None and _reader(connection, slot.pid) in ("", _user(connector))


def diagnose(client: ConnectClient, connector: ConnectorFile, connection: Connection) -> CdcLakeError | None:
    """Why a running connector reads nothing; None when nothing is wrong, as while the first snapshot is taken.

    `connector` must be as Connect has it, its references filled in.
    """
    answer = client.validate({**connector.config, "name": connector.name})
    refused = refusals(answer, connector.name)
    if refused:
        words = explain("; ".join(e for field in answer.errors for e in field.errors), name=connector.name)
        return ConnectorError(
            f"Connector {connector.name} cannot start: {refused[0][1]}", why=words.why, next=words.next, code=words.code
        )
    slot = read_slot(connection, connector)
    if slot is not None and slot.pid is not None and not is_reading(connection, connector, slot):
        return SourceError(
            f'The replication slot "{slot.name}" is in use by another connection (process {slot.pid}).',
            why=f'It is read by "{_reader(connection, slot.pid)}", not by the connector.',
            next="end that reader, or give this connector a `slot.name` of its own",
            code="slot_in_use",
        )
    return _unprepared(connector, connection)


def refusals(answer: Validation, name: str) -> list[tuple[str, str]]:
    """What Connect refuses, as (setting, words)."""
    found = []
    for field in answer.errors:
        words = "; ".join(explain(e, name=name).message for e in field.errors)
        allowed = f" Allowed: {', '.join(field.allowed)}." if field.allowed else ""
        found.append((field.name, words + allowed))
    return found


def _unprepared(connector: ConnectorFile, connection: Connection) -> CdcLakeError | None:
    user = _user(connector)
    wish = prepare.RoleWish(user, managed=False, set_password=False) if user and "${" not in user else None
    try:
        missing = prepare.plan(connection, connector, survey(connection, connector), wish).statements
    except CdcLakeError as error:
        return error
    if not missing:
        return None
    return SourceError(
        f"The source lacks what connector {connector.name} needs.",
        why="; ".join(str(statement) for statement in missing),
        next="cdc-lake connector register FILE  (adds it)",
        code="not_prepared",
    )


def _reader(connection: Connection, pid: int) -> str:
    """The user of a process that reads a slot; empty when it has just gone."""
    try:
        row = connection.execute("SELECT usename::text FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
    except psycopg.Error as error:
        raise explain_statement(error, "look who reads the replication slot") from None
    return str(row[0]) if row and row[0] else ""


def _user(connector: ConnectorFile) -> str:
    return connector.config.get("database.user", "")
