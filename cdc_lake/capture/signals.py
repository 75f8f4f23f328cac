"""Signals to a running connector, written into its signal table in the source."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Literal

import psycopg

from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.capture.preflight import quoted, signal_table
from cdc_lake.capture.submit import table_pattern, unescaped
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import ConnectorError, UsageError, suggest
from cdc_lake.events import TableId

SnapshotKind = Literal["incremental", "blocking"]


def request_snapshot(
    connection: Connection, connector: ConnectorFile, tables: Sequence[TableId], kind: SnapshotKind = "incremental"
) -> str:
    """Ask a running connector to read `tables` again; returns the signal's id.

    `incremental` reads in chunks beside the stream of changes and needs a primary key; `blocking` stops the stream
    meanwhile. The connector acts on the signal when it reads it from the change log: nothing happens while it is
    stopped. Raises ConnectorError when the connector has no signal table, SourceError when the source refuses.
    """
    target = signal_table(connector.config.get("signal.data.collection", ""))
    if target is None:
        raise ConnectorError(
            f"Connector {connector.name} has no signal table.",
            why="`signal.data.collection` is not set in its file.",
            next='add "signal.data.collection": "cdc_lake.signals" to the connector file and register again',
            code="no_signals",
        )
    signal = str(uuid.uuid4())
    data = json.dumps({"data-collections": [table_pattern(t) for t in tables], "type": kind})
    statement = f"INSERT INTO {quoted(target)} (id, type, data) VALUES (%s, 'execute-snapshot', %s)"
    try:
        connection.execute(statement.encode(), (signal, data))
    except psycopg.Error as error:
        raise explain_statement(error, f"write to {target}") from None
    return signal


def captured_tables(connector: ConnectorFile, names: Sequence[str]) -> list[TableId]:
    """`schema.table` (or a table of `public`) as captured tables. Raises UsageError for one that is not captured."""
    captured = {unescaped(pattern): pattern for pattern in connector.include_tables}
    found = []
    for name in names:
        full = name if "." in name else f"public.{name}"
        if full not in captured:
            hint = suggest(full, captured)
            raise UsageError(
                f"Connector {connector.name} does not capture a table {full}.",
                why=hint or f"It captures: {', '.join(captured)}.",
                next="correct the name, or register the connector again when the table is new",
            )
        schema, _, table = full.partition(".")
        found.append(TableId(schema, table))
    return found


def snapshot_kind(text: str) -> SnapshotKind:
    """`incremental` or `blocking`; UsageError for anything else."""
    if text == "incremental":
        return "incremental"
    if text == "blocking":
        return "blocking"
    hint = suggest(text, ("incremental", "blocking"))
    raise UsageError(f"There is no snapshot of type {text!r}.", why=hint, next="--type incremental or --type blocking")
