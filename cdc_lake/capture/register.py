"""Register a connector: look, let Connect check, prepare the source, submit, and wait until changes are read.

1. Survey the source; refuse what would break it or lose changes; work out what is missing.
2. Refuse misspelt settings and what Connect refuses without the source: nothing is prepared for a wrong file.
3. Prepare the source: only what is missing, in one transaction.
4. Compare with what runs; let Connect check again, now with a role that can log in; submit when something differs.
5. Wait until the task runs and its replication slot is read; report a failed task in words.
6. Ask for a snapshot of tables that joined a running capture.

Every step does only what is missing, so registering again, also after an interruption, is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc_lake.capture import prepare, submit
from cdc_lake.capture.connect import ConnectClient, Validation
from cdc_lake.capture.health import refusals
from cdc_lake.capture.postgres import Connection, open_source
from cdc_lake.capture.preflight import Slot
from cdc_lake.capture.running import Watched, await_reading
from cdc_lake.capture.signals import request_snapshot
from cdc_lake.capture.wanted import Wanted, load_for_connect, work_out
from cdc_lake.config import Config
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import ConnectorError, SourceError, UnavailableError
from cdc_lake.events import TableId

Say = Callable[[str], None]
WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Registration:
    """What registering did, or in a dry run would do. `state` is Connect's, ABSENT or UNKNOWN in a dry run."""

    wanted: Wanted
    difference: submit.Difference
    state: str
    streaming: bool = False
    snapshots: tuple[TableId, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        statements = [str(s) for s in self.wanted.plan.statements]
        return {
            "connector": self.wanted.name,
            "changed": bool(statements or self.difference),
            "tables": [str(t.id) for t in self.wanted.survey.tables],
            "statements": statements,
            "difference": self.difference.as_dict(),
            "warnings": [*self.wanted.survey.warnings, *self.notes],
            "state": self.state,
            "streaming": self.streaming,
            "snapshots": [str(t) for t in self.snapshots],
        }


def register(config: Config, file: Path, *, seconds: float = WAIT_SECONDS, say: Say) -> Registration:
    """Bring the source and Connect to what `file` says; `seconds` is how long to wait until changes are read.

    Raises ConfigError (the file), SourceError (source not fit), UnavailableError (Connect or source away) and
    ConnectorError (a setting is refused, or the task failed, in words).
    """
    connector, source = load_for_connect(config, file)
    with open_source(config.dsn(source)) as connection, ConnectClient(config.connect_url) as client:
        running = client.config(connector.name)
        wanted = work_out(config, source, connector, connection, make_secret=True)
        if running is None:
            _refuse_other_reader(wanted.survey.slot)
        _check(wanted, client.validate({**wanted.config, "name": wanted.name}), without_source=True)
        _tell_source(wanted, "preparing", say)
        for statement in wanted.plan.statements:
            say(f"  {statement};")
        prepare.execute(connection, wanted.plan.statements)
        difference = submit.differ(wanted.config, running)
        if running is None:
            say(f"Connector {wanted.name}: new, {len(wanted.config)} settings.")
        else:
            _tell_difference(wanted.name, difference, "differs from what runs", say)
        return _submit(
            _Session(client, connection, wanted, say, _new_tables(wanted, running)),
            difference,
            is_known=running is not None,
            wait=seconds,
        )


def rehearse(config: Config, file: Path, *, say: Say) -> Registration:
    """What `register` would do (its statements are in the answer, not said). Changes nothing; needs no Connect."""
    connector, source = load_for_connect(config, file)
    with open_source(config.dsn(source)) as connection:
        wanted = work_out(config, source, connector, connection, make_secret=False)
    _tell_source(wanted, f"{len(wanted.plan.statements)} statements to run", say)
    running: dict[str, str] | None = None
    state = "UNKNOWN"
    notes: tuple[str, ...] = ()
    try:
        with ConnectClient(config.connect_url) as client:
            running = client.config(connector.name)
            status = client.find_status(connector.name)
            state = "ABSENT" if status is None else status.state
    except UnavailableError as error:
        notes = (f"{error.message} What runs there is not known.",)
        say(f"Warning: {notes[0]}")
    difference = submit.differ(wanted.config, running)
    _tell_difference(connector.name, difference, "new" if running is None else "differs from what runs", say)
    return Registration(wanted, difference, state, notes=notes)


def validate(config: Config, file: Path) -> list[tuple[str, str]]:
    """What is wrong with a connector file, as (setting, words); changes nothing. Raises as `register` does."""
    connector, source = load_for_connect(config, file)
    with open_source(config.dsn(source)) as connection:
        wanted = work_out(config, source, connector, connection, make_secret=False)
    submitted = {**wanted.config, "name": wanted.name}
    if not wanted.role_exists:
        # The secrets file may not be there yet, and Connect gives up on a reference that it cannot resolve.
        submitted["database.password"] = "not made yet"
    with ConnectClient(config.connect_url) as client:
        answer = client.validate(submitted)
    # Before the first registration the role does not exist, so Connect cannot log in: not the file's fault.
    return _misspelt(wanted, answer) + _refusals(wanted, answer, without_source=not wanted.role_exists)


@dataclass(frozen=True, slots=True)
class _Session:
    client: ConnectClient
    connection: Connection
    wanted: Wanted
    say: Say
    new_tables: tuple[TableId, ...]


def _new_tables(wanted: Wanted, running: Mapping[str, str] | None) -> tuple[TableId, ...]:
    """Tables that join: new in the publication, or known there by another name until now."""
    before = (running or {}).get("table.include.list", "").split(",")
    listed = {t.id for t in wanted.survey.tables if submit.table_pattern(t.id) in before}
    # A list that names none of them one by one is not ours: which tables it means is not known.
    joined = {t.id for t in wanted.survey.tables} - listed if listed else set()
    return tuple(sorted(joined | set(wanted.plan.added_tables)))


def _submit(session: _Session, difference: submit.Difference, *, is_known: bool, wait: float) -> Registration:
    client, wanted, name = session.client, session.wanted, session.wanted.name
    status = client.find_status(name) if is_known else None
    earlier_reader = None
    if difference:
        _check(wanted, client.validate({**wanted.config, "name": wanted.name}), without_source=False)
        earlier_reader = wanted.survey.slot.pid if wanted.survey.slot else None
        client.put_config(name, wanted.config)
    elif status is not None and status.failure is not None:
        session.say(f"Connector {name}: its task had failed, restarting it.")
        client.restart(name)
        client.wait(name, lambda s: s is not None and s.failure is None, seconds=wait)
    if status is not None and status.state in ("PAUSED", "STOPPED"):
        session.say(f"Connector {name} is {status.state.lower()}. To go on: cdc-lake connector resume {name}")
        return Registration(wanted, difference, status.state)
    as_submitted = ConnectorFile(name, wanted.config)
    watched = Watched(client, session.connection, as_submitted, session.say)
    try:
        status, streaming = await_reading(watched, earlier_reader=earlier_reader, seconds=wait)
    except BaseException:
        _tell_unread(session)
        raise
    return Registration(wanted, difference, status.state, streaming, _snapshot_new_tables(session))


def _snapshot_new_tables(session: _Session) -> tuple[TableId, ...]:
    """Existing rows of a table that joins a capture are in no change, so they are asked for."""
    wanted = session.wanted
    new = session.new_tables
    if wanted.survey.slot is None or not new:
        return ()  # the first snapshot reads all tables
    keyed = {t.id for t in wanted.survey.tables if t.has_key}
    if "signal.data.collection" in wanted.config and (ready := [t for t in new if t in keyed]):
        request_snapshot(session.connection, wanted.connector, ready)
        session.say(f"New in the capture, existing rows are read beside the changes: {', '.join(map(str, ready))}")
    else:
        ready = []
    for table in (t for t in new if t not in ready):
        session.say(
            f"New in the capture, existing rows are not read yet: {table}. "
            f"Run: cdc-lake connector snapshot {wanted.name} {table} --type blocking"
        )
    return tuple(ready)


def _tell_unread(session: _Session) -> None:
    """What this registration has not come to ask for, no later one will: nothing is new to that one."""
    if session.wanted.survey.slot is not None and session.new_tables:
        tables = " ".join(map(str, session.new_tables))
        session.say(f"New in the capture, existing rows are not read yet: {tables.replace(' ', ', ')}.")
        session.say(f"When the connector runs: cdc-lake connector snapshot {session.wanted.name} {tables}")


def _tell_source(wanted: Wanted, doing: str, say: Say) -> None:
    for warning in wanted.survey.warnings:
        say(f"Warning: {warning}")
    if not wanted.plan.statements:
        say(f"Source: prepared already, {len(wanted.survey.tables)} tables.")
        return
    say(f"Source: {doing} ({len(wanted.survey.tables)} tables)")


def _tell_difference(name: str, difference: submit.Difference, words: str, say: Say) -> None:
    if not difference:
        say(f"Connector {name}: unchanged.")
        return
    say(f"Connector {name}: {words}")
    for line in difference.lines():
        say(f"  {line}")


def _refuse_other_reader(slot: Slot | None) -> None:
    if slot is not None and slot.pid is not None:
        raise SourceError(
            f'The replication slot "{slot.name}" is in use by another connection (process {slot.pid}).',
            why="Connect runs no connector of this name, so somebody else reads the slot.",
            next="stop the other reader, or give this connector a `slot.name` of its own",
            code="slot_in_use",
        )


def _check(wanted: Wanted, answer: Validation, *, without_source: bool) -> None:
    problems = _misspelt(wanted, answer) or _refusals(wanted, answer, without_source=without_source)
    if problems:
        setting, words = problems[0]
        raise ConnectorError(
            f"Connector {wanted.name}, setting `{setting}`: {words}",
            why="; ".join(f"`{key}`: {also}" for key, also in problems[1:]),
            next="edit the connector file (connectors/README.md explains it), then: cdc-lake connector validate FILE",
            code="refused_setting",
        )


def _misspelt(wanted: Wanted, answer: Validation) -> list[tuple[str, str]]:
    return [
        (setting, f"Connect and Debezium know no such setting. {hint}".strip())
        for setting, hint in submit.misspelt(wanted.config, answer.known)
    ]


def _refusals(wanted: Wanted, answer: Validation, *, without_source: bool) -> list[tuple[str, str]]:
    found = refusals(answer, wanted.name)
    return [(key, words) for key, words in found if not (without_source and key.startswith("database."))]
