"""`cdc-lake connector …`: capture, over Kafka Connect's REST interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES

if TYPE_CHECKING:
    from cdc_lake.capture.connect import ConnectClient, ConnectorStatus
    from cdc_lake.capture.postgres import Connection
    from cdc_lake.config import Config
    from cdc_lake.connector_file import ConnectorFile

_STATE_SECONDS = 60.0

connector = typer.Typer(no_args_is_help=True, help="Capture a source: connectors of Kafka Connect.")

_File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="The connector's JSON file [default: the configured source's].", show_default=False
    ),
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The connector's name.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add `connector` to the command line."""
    app.add_typer(connector, name="connector")


@connector.command(epilog="Examples: cdc-lake connector plugins · cdc-lake connector plugins --json")
def plugins() -> None:
    """List the connector plugins of the worker."""
    with _client() as client:
        found = client.plugins()
    output.result(found, ["class", "type", "version"], found)


@connector.command(epilog="Examples: cdc-lake connector validate connectors/pos.json · cdc-lake connector validate")
def validate(file: _File = None) -> None:
    """Check a connector file; change nothing.

    The source is looked at and Connect checks every setting. Exit code 3: problems.
    """
    from cdc_lake.capture.register import validate as check

    path = file or _default_file()
    problems = check(output.settings(), path)
    rows = [{"setting": setting, "problem": words} for setting, words in problems]
    if output.as_json():
        output.emit({"file": str(path), "ok": not rows, "problems": rows})
    elif rows:
        output.table(["setting", "problem"], [[r["setting"], r["problem"]] for r in rows])
    else:
        output.say(f"{path} is valid.")
    if rows:
        raise typer.Exit(EXIT_DIFFERENCES)


@connector.command(
    "register",
    epilog="Examples: cdc-lake connector register connectors/pos.json · cdc-lake connector register --dry-run",
)
def register_command(
    file: _File = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL and the differences; change nothing.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until changes are read.")] = 60,
) -> None:
    """Prepare the source and start capturing it.

    Submits the connector and waits until it reads changes. Registering twice changes nothing.
    """
    from cdc_lake.capture.register import register as register_connector
    from cdc_lake.capture.register import rehearse

    path = file or _default_file()
    if dry_run:
        done = rehearse(output.settings(), path, say=output.say)
        if not output.as_json():
            for statement in done.wanted.plan.statements:
                typer.echo(f"{statement};")
    else:
        done = register_connector(output.settings(), path, seconds=timeout, say=output.say)
    if output.as_json():
        output.emit(done.as_dict())


@connector.command("list", epilog="Examples: cdc-lake connector list · cdc-lake connector list --json")
def list_command() -> None:
    """List all connectors and their states."""
    with _client() as client:
        found = client.connectors()
    rows = [
        {
            "name": status.name,
            "state": status.state,
            "tasks": ", ".join(t.state for t in status.tasks) or "none",
            "prefix": config.get("topic.prefix", ""),
            "database": config.get("database.dbname", ""),
            "class": config.get("connector.class", "").rpartition(".")[2],
        }
        for status, config in found
    ]
    output.result(rows, ["name", "state", "tasks", "prefix", "database", "class"], rows)


@connector.command(epilog="Examples: cdc-lake connector status pos · cdc-lake connector status pos --json")
def status(name: _Name) -> None:
    """Show whether a connector really reads.

    Its tasks and its replication slot; of trouble the reason and the next step (exit code 3).
    """
    from cdc_lake.capture.failures import redact
    from cdc_lake.capture.health import health

    with _client() as client:
        running = _file_of(client, name)
        found = health(client, running, _dsn_of(output.settings(), running))
    rows = [{"part": "connector", "state": found.status.state, "worker": found.status.worker}]
    rows += [{"part": f"task {t.id}", "state": t.state, "worker": t.worker} for t in found.status.tasks]
    slot = found.slot
    if output.as_json():
        state = slot and {"name": slot.name, "reading": slot.pid is not None, "retained_bytes": slot.retained_bytes}
        error = found.problem.as_dict()["error"] if found.problem else None
        output.emit({"connector": name, "state": rows[0]["state"], "tasks": rows[1:], "slot": state, "error": error})
    else:
        if slot is not None:
            words = "read" if slot.pid is not None else "not read"
            rows.append({"part": f"slot {slot.name}", "state": words, "worker": f"{slot.retained_bytes:,} bytes kept"})
        output.table(["part", "state", "where"], [list(row.values()) for row in rows])
        if found.problem is not None:
            output.fail(found.problem)
            if output.verbosity() > 0:
                output.say(redact(found.status.failure or ""))
    if found.problem is not None:
        raise typer.Exit(EXIT_DIFFERENCES)


@connector.command(epilog="Examples: cdc-lake connector pause pos · cdc-lake connector resume pos")
def pause(name: _Name) -> None:
    """Pause a connector.

    Changes wait in PostgreSQL, which keeps its change log meanwhile.
    """
    with _client() as client:
        client.pause(name)
        _reached(client, name, "PAUSED")


@connector.command(epilog="Examples: cdc-lake connector resume pos")
def resume(name: _Name) -> None:
    """Let a paused or stopped connector go on."""
    with _client() as client:
        running = _file_of(client, name)
        client.resume(name)
        _reads(client, running)


@connector.command(epilog="Examples: cdc-lake connector stop pos · cdc-lake connector resume pos")
def stop(name: _Name) -> None:
    """Stop a connector; its offsets stay.

    Its tasks end; configuration, offsets and replication slot stay.
    """
    with _client() as client:
        client.stop(name)
        _reached(client, name, "STOPPED")


@connector.command(epilog="Examples: cdc-lake connector restart pos")
def restart(name: _Name) -> None:
    """Restart a connector and its tasks.

    Failed ones too; waits until changes are read.
    """
    from cdc_lake.capture.preflight import read_slot

    with _client() as client:
        running = _file_of(client, name)
        with _source_of(output.settings(), running) as connection:
            slot = read_slot(connection, running)
        client.restart(name)
        _reads(client, running, earlier_reader=slot.pid if slot else None)


@connector.command(epilog="Examples: cdc-lake connector delete pos · cdc-lake connector delete pos --drop-slot")
def delete(
    name: _Name,
    drop_slot: Annotated[
        bool, typer.Option("--drop-slot", help="Drop its replication slot too; the next registration reads all rows.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and what would stay.")] = False,
) -> None:
    """Delete a connector.

    Says what stays in the source, and the SQL that removes it.
    """
    from cdc_lake.capture.remove import remove, would_remove

    with _client() as client:
        running = _file_of(client, name)
        if dry_run:
            done = would_remove(running, drop_slot=drop_slot)
        else:
            done = remove(client, running, lambda: _source_of(output.settings(), running), drop_slot=drop_slot)
    gone = "would be" if dry_run else "is"
    output.say(f"Connector {name} {gone} deleted." + (f" Its replication slot {gone} dropped." * done.slot_dropped))
    for what, sql in done.left:
        output.say(f"  stays in the source: {what}. To remove it: {sql}")
    if output.as_json():
        left = [{"what": what, "sql": sql} for what, sql in done.left]
        done_to = {"deleted": not dry_run, "slot_dropped": done.slot_dropped and not dry_run}
        output.emit({"connector": name, **done_to, "left": left})


@connector.command(epilog="Examples: cdc-lake connector offsets pos · cdc-lake connector offsets pos --reset")
def offsets(
    name: _Name,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget the offsets of a stopped connector; it then reads all rows again.")
    ] = False,
) -> None:
    """Show where a connector reads from next."""
    with _client() as client:
        if reset:
            client.status(name)
            client.reset_offsets(name)
            output.say(f"Offsets of {name} are reset. To go on: cdc-lake connector resume {name}")
        found = client.offsets(name)
    if output.as_json():
        output.emit({"connector": name, "offsets": found})
        return
    rows = [[key, value] for entry in found for key, value in {**entry["partition"], **(entry["offset"] or {})}.items()]
    if rows:
        output.table(["field", "value"], [[key, str(value)] for key, value in rows])
    else:
        output.say(f"Connector {name} has no offsets yet.")


@connector.command(
    epilog="Examples: cdc-lake connector snapshot pos public.orders · "
    "cdc-lake connector snapshot pos public.audit --type blocking"
)
def snapshot(
    name: _Name,
    tables: Annotated[list[str], typer.Argument(metavar="TABLE…", help="schema.table, captured by the connector.")],
    kind: Annotated[
        str, typer.Option("--type", help="incremental: beside the changes, needs a key; blocking: changes wait.")
    ] = "incremental",
) -> None:
    """Ask for all rows of tables once more.

    The connector must run; its changes go on being read.
    """
    from cdc_lake.capture.signals import captured_tables, request_snapshot, snapshot_kind

    with _client() as client:
        running = _file_of(client, name)
        wanted = captured_tables(running, tables)
        asked = snapshot_kind(kind)
        with _source_of(output.settings(), running) as connection:
            signal = request_snapshot(connection, running, wanted, asked)
    output.say(f"Asked {name} for the rows of {', '.join(map(str, wanted))} ({asked}).")
    if output.as_json():
        output.emit({"connector": name, "signal": signal, "type": asked, "tables": [str(t) for t in wanted]})


def _client() -> ConnectClient:
    from cdc_lake.capture.connect import ConnectClient

    return ConnectClient(output.settings().connect_url)


def _default_file() -> Path:
    from cdc_lake.errors import UsageError

    config = output.settings()
    if len(config.connected) != 1:
        names = ", ".join(str(config.connector_file(s)) for s in config.connected)
        why = f"Several sources are configured: {names}." if names else "No source of the configuration has one."
        raise UsageError("Which connector file?", why=why, next="name the FILE")
    return config.connector_file(config.connected[0])


def _file_of(client: ConnectClient, name: str) -> ConnectorFile:
    from cdc_lake.connector_file import ConnectorFile

    running = client.config(name)
    if running is None:
        raise client.unknown(name)
    return ConnectorFile(name, running)


def _dsn_of(config: Config, running: ConnectorFile) -> str:
    from cdc_lake.capture.wanted import pick_source

    return config.dsn(pick_source(config, running))


def _source_of(config: Config, running: ConnectorFile) -> Connection:
    from cdc_lake.capture.postgres import open_source

    return open_source(_dsn_of(config, running))


def _reached(client: ConnectClient, name: str, state: str) -> None:
    from cdc_lake.capture.running import await_state

    found: ConnectorStatus = await_state(client, name, state, seconds=_STATE_SECONDS)
    output.say(f"Connector {name} is {found.state.lower()}.")
    if output.as_json():
        output.emit({"connector": name, "state": found.state, "tasks": [t.state for t in found.tasks]})


def _reads(client: ConnectClient, running: ConnectorFile, *, earlier_reader: int | None = None) -> None:
    from cdc_lake.capture.running import Watched, await_reading

    with _source_of(output.settings(), running) as connection:
        watched = Watched(client, connection, running, output.say)
        status, reading = await_reading(watched, earlier_reader=earlier_reader, seconds=_STATE_SECONDS)
    if output.as_json():
        states = [t.state for t in status.tasks]
        output.emit({"connector": running.name, "state": status.state, "tasks": states, "reading": reading})
