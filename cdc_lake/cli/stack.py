"""`up`, `down`, `status`: the embedded PostgreSQL, Kafka and Connect."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output

if TYPE_CHECKING:
    from cdc_lake.local.stack import Stack


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Examples:  cdc-lake up   ·   cdc-lake --json up")(up)
    app.command(epilog="Examples:  cdc-lake down   ·   cdc-lake down --wipe")(down)
    app.command(epilog="Examples:  cdc-lake status   ·   cdc-lake status --watch   ·   cdc-lake --json status")(status)


def up() -> None:
    """Start the embedded PostgreSQL, Kafka and Connect; what already runs is left alone."""
    from cdc_lake.local.stack import Stack

    config = output.settings()
    stack = Stack(config.state_folder)
    with _interruptible():
        stack.up(output.say)
    described = stack.status()
    if output.as_json():
        output.emit({"stack": described})
    else:
        _show(described)
        output.say("Next: cdc-lake connector register connectors/pos.json   ·   stop with: cdc-lake down")


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete the stack's databases, topics and logs too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be stopped and deleted.")] = False,
) -> None:
    """Stop the embedded stack; its data stays unless --wipe is given."""
    from cdc_lake.local.stack import Stack

    config = output.settings()
    stack = Stack(config.state_folder)
    if dry_run:
        _would_go(stack, wipe=wipe)
        return
    stack.down(wipe=wipe, progress=output.say)
    if wipe:
        output.say(f"The lake is not touched. To delete it too, remove {config.lake_uri}")
    if output.as_json():
        output.emit({"stack": stack.status()})
    else:
        output.say("The stack is down.")


def _would_go(stack: Stack, *, wipe: bool) -> None:
    parts = stack.status()
    runs = [name for name, part in parts.items() if part["state"] != "stopped"]
    output.say(f"Would be stopped: {', '.join(runs) or 'nothing, no part runs'}.")
    folders = [str(f) for f in stack.wiped() if f.exists()] if wipe else []
    for folder in folders:
        output.say(f"Would be deleted: {folder}")
    if output.as_json():
        output.emit({"would_stop": runs, "would_delete": folders})


def status(
    lake_only: Annotated[
        bool, typer.Option("--lake", help="Only what the lake itself tells; the stack and Kafka are not asked.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Full screen, anew every two seconds, until q.")] = False,
) -> None:
    """Show the stack, the sources, each table's rows and lag, and the cut that readers see."""
    from cdc_lake.cli.stack_status import connector_lines, lake, show, stack_lines
    from cdc_lake.local.stack import Stack

    config = output.settings()
    if watch:
        from cdc_lake.cli.watch import watch_status

        watch_status(config)
        return
    if lake_only:
        found = lake(config, broker_runs=False)
        output.emit(found) if output.as_json() else show(found)
        return
    parts = Stack(config.state_folder).status()
    broker_runs = config.kafka is not None or parts["kafka"]["state"] == "running"
    document = {"stack": parts, **lake(config, broker_runs=broker_runs)}
    if output.as_json():
        output.emit(document)
        return
    # A project with a Kafka and a Connect of its own has no embedded stack, unless somebody has started one.
    if config.kafka is None or config.connect is None or any(part["state"] != "stopped" for part in parts.values()):
        _show(parts)
    troubles = stack_lines(config, parts)
    if config.connect is not None or parts["connect"]["state"] == "running":
        troubles += connector_lines(config)
    show(document, troubles)


def _show(stack: dict[str, dict[str, Any]]) -> None:
    from cdc_lake.local.stack import ADDRESSES

    rows = [
        [name, part["state"], _without_password(part[ADDRESSES[name]]), part.get("pid")] for name, part in stack.items()
    ]
    output.table(["part", "state", "address", "pid"], [[str(v) if v is not None else "" for v in r] for r in rows])


def _without_password(address: str | None) -> str | None:
    from urllib.parse import urlsplit

    if address is None or "://" not in address:
        return address
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@")).geturl()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A closed terminal or a plain `kill` ends `up` as Ctrl-C does: nothing half-started is left behind."""

    def interrupt(_number: int, _frame: object) -> None:
        for number in before:  # what was started is being stopped: a second word must not break that off
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
