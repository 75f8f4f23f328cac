"""Waiting for a connector, and the true reason when its task fails."""

from __future__ import annotations

import time
from collections.abc import Callable

from cdc_lake.capture.connect import ConnectClient, ConnectorStatus
from cdc_lake.capture.failures import explain
from cdc_lake.capture.postgres import Connection
from cdc_lake.capture.preflight import read_slot
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import ConnectorError

_POLL_SECONDS = 0.25


def task_error(status: ConnectorStatus) -> ConnectorError:
    """The error of a failed connector in words; its `failure` must not be None."""
    words = explain(status.failure or "", name=status.name)
    return ConnectorError(
        f"Connector {status.name} failed: {words.message}", why=words.why, next=words.next, code=words.code
    )


def await_state(client: ConnectClient, name: str, state: str, *, seconds: float) -> ConnectorStatus:
    """Wait until connector and tasks are in `state`. Raises ConnectorError when the task fails or time runs out."""

    def done(status: ConnectorStatus | None) -> bool:
        return status is not None and (status.reached(state) or (state == "RUNNING" and status.failure is not None))

    status = client.wait(name, done, seconds=seconds)
    if status is None:
        raise client.unknown(name)
    if state == "RUNNING" and status.failure is not None:
        raise task_error(status)
    if not status.reached(state):
        raise _late(status, f"was not {state} within {seconds:.0f} s")
    return status


def await_streaming(
    client: ConnectClient,
    connector: ConnectorFile,
    connection: Connection,
    *,
    earlier_reader: int | None,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[ConnectorStatus, bool]:
    """Wait until the task runs and its slot is read by a process other than `earlier_reader` (the task before).

    Returns the status and whether changes are read already: while a long first snapshot runs the slot exists and
    nobody reads it, which is no failure. Raises ConnectorError when the task fails or does not start in time.
    """
    deadline = time.monotonic() + seconds
    told = ""
    while True:
        status = client.find_status(connector.name)
        if status is not None and status.failure is not None:
            raise task_error(status)
        slot = read_slot(connection, connector)
        reader = slot.pid if slot is not None else None
        running = status is not None and status.running
        if status is not None and running and reader is not None and reader != earlier_reader:
            say(f"Connector {connector.name}: running, changes are read.")
            return status, True
        now = _describe(status, slot_exists=slot is not None)
        if now != told:
            say(f"Connector {connector.name}: {now}")
            told = now
        if time.monotonic() >= deadline:
            if status is not None and running and slot is not None:
                say(f"Still so after {seconds:.0f} s; it goes on. See: cdc-lake connector status {connector.name}")
                return status, reader is not None
            raise _late(status, f"did not start within {seconds:.0f} s: {now}", connector.name)
        time.sleep(_POLL_SECONDS)


def _describe(status: ConnectorStatus | None, *, slot_exists: bool) -> str:
    if status is None:
        return "waiting for a worker"
    if not status.running:
        states = ", ".join(f"task {t.id} {t.state.lower()}" for t in status.tasks) or "no task yet"
        return f"{status.state.lower()}, {states}"
    return "running, the existing rows are read first" if slot_exists else "running, no replication slot yet"


def _late(status: ConnectorStatus | None, words: str, name: str = "") -> ConnectorError:
    return ConnectorError(
        f"Connector {status.name if status else name} {words}.",
        why=f"Its state is {status.state}." if status else "No worker has taken it.",
        next=f"cdc-lake connector status {status.name if status else name}",
        code="timeout",
    )
