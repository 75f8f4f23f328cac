"""`dlq`: look at dead letters, put them back, or let them go."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES, UsageError

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.config_source import Source
    from cdc_lake.events import TableId
    from cdc_lake.land.dead_letters import DeadLetters, Letter
    from cdc_lake.replay import Replayed

_EXAMPLES = (
    "Examples:  cdc-lake dlq list   ·   cdc-lake dlq show pos.public.orders/0/17   ·   "
    "cdc-lake dlq replay --all --dry-run   ·   cdc-lake dlq drop pos.public.orders/0/17"
)
_SHOWN = 2000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dlq = typer.Typer(no_args_is_help=True, help="Dead letters: records that could not be decoded.", epilog=_EXAMPLES)
    for command in (list_letters, show, replay, drop):
        dlq.command("list" if command is list_letters else None, epilog=_EXAMPLES)(command)
    app.add_typer(dlq, name="dlq")


def list_letters(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were replayed or dropped.")] = False,
) -> None:
    """List dead letters that wait for a decision, oldest first."""
    found = [_row(x) for _, store in _stores() for x in store.all() if everything or x.state == "waiting"]
    columns = ["id", "state", "error_class", "reason", "ingested_at"]
    output.result({"dead_letters": found}, columns, found)
    if any(row["state"] == "waiting" for row in found) and not output.as_json():
        output.say("Next: cdc-lake dlq show ID, then cdc-lake dlq replay ID… or cdc-lake dlq drop ID…")


def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="topic/partition/offset, as list prints it.")],
    reveal: Annotated[bool, typer.Option("--reveal", help="Show key and value; they may hold personal data.")] = False,
) -> None:
    """Show one dead letter: coordinates, reason, headers, and with --reveal its bytes."""
    _, _, found = _find([letter])[0]
    document = {**_row(found), "headers": found.headers, "size": len(found.value or b"")}
    document |= {"key": _text(found.key, reveal=reveal), "value": _text(found.value, reveal=reveal)}
    if output.as_json():
        output.emit(document)
    else:
        output.table(["field", "value"], [[k, v] for k, v in document.items()])


def replay(
    letters: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait for a decision.")] = False,
    value: Annotated[
        Path | None, typer.Option("--value", metavar="FILE", help="A mended value for the one letter that is named.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
) -> None:
    """Decode dead letters again and put them into the log, each at its own place in the order, exactly once.

    Ends with 3 when some are still dead. Tables that were folded past a letter are rebuilt.
    """
    chosen = _choose(letters, everything)
    if value is not None and len(chosen) != 1:
        raise UsageError("--value goes with exactly one ID.", next="cdc-lake dlq replay ID --value FILE")
    done = _replay(chosen, value.read_bytes() if value is not None else None, dry_run=dry_run)
    rows = [
        {"id": r.id, "outcome": r.outcome, "table": str(r.table) if r.table else None, "reason": r.reason} for r in done
    ]
    output.result({"letters": rows}, ["id", "outcome", "table", "reason"], rows)
    if any(r.outcome == "dead" for r in done):
        if not output.as_json():
            output.say("Dead as before. Next: cdc-lake dlq replay ID --value FILE, or cdc-lake dlq drop ID…")
        raise typer.Exit(EXIT_DIFFERENCES)


def drop(
    letters: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait for a decision.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
) -> None:
    """Decide that dead letters are not needed. They stay readable with `dlq list --all`."""
    from cdc_lake.land.dead_letters import DROPPED

    chosen = _choose(letters, everything)
    for store in {id(s): s for _, s, _ in chosen}.values() if not dry_run else ():
        store.decide([x for _, s, x in chosen if s is store], DROPPED)
    rows = [{"id": x.id, "outcome": "would be dropped" if dry_run else "dropped"} for _, _, x in chosen]
    output.result({"letters": rows}, ["id", "outcome"], rows)


def _stores() -> list[tuple[Source, DeadLetters]]:
    from cdc_lake.land.dead_letters import DeadLetters

    config = output.settings()
    options = config.lake.options or None
    return [(s, DeadLetters(config.lake_uri, s.name, options)) for s in config.all_sources]


def _find(ids: list[str]) -> list[tuple[Source, DeadLetters, Letter]]:
    stores = _stores()
    known = {x.id: (source, store, x) for source, store in stores for x in store.all()}
    for one in ids:
        if one not in known:
            stores[0][1].find([one])  # raises, naming the near one
    return [known[one] for one in ids]


def _choose(ids: list[str] | None, everything: bool) -> list[tuple[Source, DeadLetters, Letter]]:
    if bool(ids) == everything:
        raise UsageError("Name dead letters, or --all.", next="cdc-lake dlq list")
    if ids:
        return _find(ids)
    return [(source, store, x) for source, store in _stores() for x in store.all() if x.state == "waiting"]


def _replay(chosen: list[tuple[Source, DeadLetters, Letter]], value: bytes | None, *, dry_run: bool) -> list[Replayed]:
    from cdc_lake import replay as replaying
    from cdc_lake.connector_file import load_connector
    from cdc_lake.event_sink import EventLetters
    from cdc_lake.registry.fetching import open_schemas

    config = output.settings()
    done: list[Replayed] = []
    for source in config.all_sources:
        mine = [(store, x) for s, store, x in chosen if s.name == source.name]
        if not mine:
            continue
        done += replaying.replay(
            mine[0][0],
            [x for _, x in mine],
            load_connector(config.connector_file(source)) if source.captured else None,
            events=None if source.captured else EventLetters(config, source),
            schemas=open_schemas(config),
            value=value,
            dry_run=dry_run,
            rebuild=partial(_rebuild, config, source),
        )
    return done


def _rebuild(config: Config, source: Source, table: TableId) -> None:
    """Fold the table anew when it is folded at all."""
    from cdc_lake.land.layout import current_path
    from cdc_lake.project.fold import rebuild_table
    from cdc_lake.query.session import open_lake

    lake = open_lake(config)
    if lake.open(current_path(lake.root, source.name, table)) is None:
        return
    output.say(f"{table}: rebuilding its fold")
    rebuilt = rebuild_table(lake, source.name, config.captures, table)
    if rebuilt.error is not None:
        raise rebuilt.error


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "state": letter.state,
        "topic": letter.tp.topic,
        "partition": letter.tp.partition,
        "offset": letter.offset,
        "error_class": letter.error_class,
        "reason": letter.reason,
        "ingested_at": letter.ingested_at.isoformat(),
    }


def _text(value: bytes | None, *, reveal: bool) -> str | None:
    if value is None:
        return None
    if not reveal:
        return f"({len(value):,} bytes; --reveal shows them)"
    text = value.decode("utf-8", errors="backslashreplace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(value):,} bytes)"
