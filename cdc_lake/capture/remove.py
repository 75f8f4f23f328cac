"""Delete a connector, and say what of it stays in the source."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.capture.preflight import own_tables, quoted, read_slot
from cdc_lake.capture.running import await_state
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import ConnectorError, SourceError
from cdc_lake.sqltext import ident, literal

_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Removal:
    """What deleting did, and what stays in the source: (what it is, the SQL that removes it)."""

    slot_dropped: bool
    left: tuple[tuple[str, str], ...]


def remove(
    client: ConnectClient, connector: ConnectorFile, open_source: Callable[[], Connection], *, drop_slot: bool
) -> Removal:
    """Delete a connector from Connect; with `drop_slot` also its offsets and, once nobody reads it, its slot.

    The source is only opened to drop the slot, and before anything is deleted. Raises ConnectorError when Connect
    does not let go in time, SourceError when the slot stays in use.
    """
    connection = open_source() if drop_slot else None
    try:
        if connection is not None:
            # Offsets outlive a connector, and without its slot they would point at changes that are gone.
            client.stop(connector.name)
            await_state(client, connector.name, "STOPPED", seconds=_SECONDS)
            client.reset_offsets(connector.name)
        client.delete(connector.name)
        if client.wait(connector.name, lambda status: status is None, seconds=_SECONDS) is not None:
            raise ConnectorError(
                f"Connector {connector.name} is still there after {_SECONDS:.0f} s.",
                next=f"cdc-lake connector status {connector.name}",
                code="timeout",
            )
        dropped = connection is not None and _drop_slot(connection, connector)
    finally:
        if connection is not None:
            connection.close()
    return Removal(dropped, tuple(_left(connector, slot_dropped=drop_slot)))


def would_remove(connector: ConnectorFile, *, drop_slot: bool) -> Removal:
    """What `remove` would do and leave. Asks nobody."""
    return Removal(drop_slot, tuple(_left(connector, slot_dropped=drop_slot)))


def _drop_slot(connection: Connection, connector: ConnectorFile) -> bool:
    deadline = time.monotonic() + _SECONDS
    while (slot := read_slot(connection, connector)) is not None:
        if slot.pid is None:
            try:
                connection.execute("SELECT pg_drop_replication_slot(%s)", (slot.name,))
            except psycopg.errors.ObjectInUse:
                continue  # a reader came back in between
            except psycopg.Error as error:
                raise explain_statement(error, f"drop the replication slot {slot.name}") from None
            return True
        if time.monotonic() >= deadline:
            raise SourceError(
                f'The replication slot "{slot.name}" is still in use by process {slot.pid}.',
                why="Another reader holds it.",
                next=f"end that reader, then in the source: {_drop_sql(slot.name)}",
                code="slot_in_use",
            )
        time.sleep(0.25)
    return False


def _drop_sql(slot: str) -> str:
    return f"SELECT pg_drop_replication_slot({literal(slot)});"


def _left(connector: ConnectorFile, *, slot_dropped: bool) -> list[tuple[str, str]]:
    config = connector.config
    slot = config.get("slot.name", "debezium")
    publication = config.get("publication.name", "dbz_publication")
    left = []
    if not slot_dropped:
        left.append((f"the replication slot {slot}, which keeps WAL until it is dropped", _drop_sql(slot)))
    left.append((f"the publication {publication}", f"DROP PUBLICATION {ident(publication)};"))
    left += [(f"the table {table}", f"DROP TABLE {quoted(table)};") for table in own_tables(connector)]
    role = config.get("database.user", "")
    if role and "${" not in role:
        drop = f"DROP OWNED BY {ident(role)}; DROP ROLE {ident(role)};"
        left.append((f"the role {role}", drop))
    return left
