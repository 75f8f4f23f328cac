"""Waiting for a connector: until it is in a state, or until it really reads changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cdc_lake.capture.connect import ConnectClient, ConnectorStatus
from cdc_lake.capture.health import diagnose, is_reading, task_error
from cdc_lake.capture.postgres import Connection
from cdc_lake.capture.preflight import read_slot
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import ConnectorError

_POLL_SECONDS = 0.25
# A first look for a reason is worth its round trips only after a start has had the time it usually takes.
_DIAGNOSE_SECONDS = 5.0
# An empty source has no offset before the first heartbeat, so this is not waited for longer.
_DELIVERY_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A connector as Connect has it, where it runs, and how to tell a person of its progress."""

    client: ConnectClient
    connection: Connection
    connector: ConnectorFile
    say: Callable[[str], None]


def must_run(client: ConnectClient, name: str, why: str) -> None:
    """Raise ConnectorError, with the way to start it, unless the connector runs; `why` says what it is needed for."""
    status = client.status(name)
    if status.failure is not None:
        raise task_error(status)
    if status.state in ("PAUSED", "STOPPED"):
        raise ConnectorError(
            f"Connector {name} is {status.state.lower()}.",
            why=f"While it is, {why}.",
            next=f"cdc-lake connector resume {name}",
            code="connector_not_running",
        )


def await_state(client: ConnectClient, name: str, state: str, *, seconds: float) -> ConnectorStatus:
    """Wait until connector and tasks are in `state` (PAUSED or STOPPED). Raises ConnectorError when time runs out."""
    status = client.wait(name, lambda s: s is not None and s.reached(state), seconds=seconds)
    if status is None:
        raise client.unknown(name)
    if not status.reached(state):
        raise _late(name, status, f"was not {state} within {seconds:.0f} s")
    return status


def await_reading(watched: Watched, *, earlier_reader: int | None, seconds: float) -> tuple[ConnectorStatus, bool]:
    """Wait until the task runs and its slot is read by a process other than `earlier_reader` (the task before).

    Returns the status and whether changes are read already: while a long first snapshot runs, the slot exists and
    nobody reads it, which is no failure. Raises ConnectorError or SourceError with the reason when the task failed,
    or runs and cannot read, or does not start in time.
    """
    name = watched.connector.name
    started = time.monotonic()
    deadline, next_look, told = started + seconds, started + _DIAGNOSE_SECONDS, ""
    read_since: float | None = None
    while True:
        status = watched.client.find_status(name)
        if status is not None and status.failure is not None:
            raise task_error(status)
        slot = read_slot(watched.connection, watched.connector)
        reading = is_reading(watched.connection, watched.connector, slot)
        running = status is not None and status.running
        now = time.monotonic()
        if status is not None and running and reading and slot is not None and slot.pid != earlier_reader:
            read_since = read_since or now
            if _has_delivered(watched) or now >= read_since + _DELIVERY_SECONDS:
                watched.say(f"Connector {name}: running, changes are read.")
                return status, True
        told = _tell(watched, told, status, slot_exists=slot is not None)
        if running and not reading and now >= next_look:
            problem = diagnose(watched.client, watched.connector, watched.connection)
            if problem is not None:
                raise problem
            next_look = time.monotonic() + _DIAGNOSE_SECONDS
        if now >= deadline:
            if status is not None and running and slot is not None:
                watched.say(f"Still so after {seconds:.0f} s; it goes on. See: cdc-lake connector status {name}")
                return status, reading
            raise _late(name, status, f"did not start within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def _has_delivered(watched: Watched) -> bool:
    """Whether Kafka has what was read of the existing rows: streaming begins while the last of them are on their way.

    Connect stores an offset once Kafka has acknowledged the records up to it.
    """
    offsets = [entry["offset"] or {} for entry in watched.client.offsets(watched.connector.name)]
    return bool(offsets) and all(not o.get("snapshot") or o.get("last_snapshot_record") for o in offsets)


def _tell(watched: Watched, told: str, status: ConnectorStatus | None, *, slot_exists: bool) -> str:
    now = _describe(status, slot_exists=slot_exists)
    if now != told:
        watched.say(f"Connector {watched.connector.name}: {now}")
    return now


def _describe(status: ConnectorStatus | None, *, slot_exists: bool) -> str:
    if status is None:
        return "waiting for a worker"
    if not status.running:
        states = ", ".join(f"task {t.id} {t.state.lower()}" for t in status.tasks) or "no task yet"
        return f"{status.state.lower()}, {states}"
    return "running, changes are not read yet" if slot_exists else "running, no replication slot yet"


def _late(name: str, status: ConnectorStatus | None, words: str) -> ConnectorError:
    return ConnectorError(
        f"Connector {name} {words}.",
        why=f"Its state is {status.state}." if status else "No worker has taken it.",
        next=f"cdc-lake connector status {name}",
        code="timeout",
    )
