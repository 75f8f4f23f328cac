"""`recover`: mend tables whose newest commit was cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import UsageError

if TYPE_CHECKING:
    from cdc_lake.maintain.recover import Mended

# What has to be done again by a person, for what was decided was in the commit alone.
_AGAIN = {
    "erasures": "the last cdc-lake erase, once more",
    "dead_letter_decisions": "cdc-lake dlq list",
    "alert_silences": "cdc-lake rules silences",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Examples:  cdc-lake recover --dry-run   ·   cdc-lake recover")(recover)


def recover(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which commits are cut off.")] = False,
) -> None:
    """Set aside the newest commit of a table where a disk has left only a part of it.

    The table is as it was before that commit. The sink reads from Kafka again what the commit held: nothing is doubled,
    and where Kafka has it no more the sink says so. A read model is deleted and made anew by the next fold.
    """
    from cdc_lake.maintain.recover import recover as mend

    config = output.settings()
    if not dry_run:
        _require_no_sink()
    options = config.lake.options or None
    found = [m for s in config.all_sources for m in mend(config.lake_uri, s.name, options, dry_run=dry_run)]
    if output.as_json():
        output.emit({"dry_run": dry_run, "recovered": [_row(m) for m in found]})
        return
    for one in found:
        output.say(_line(one, dry_run=dry_run))
    if not found:
        output.say("No commit is cut off. What else is wrong: cdc-lake doctor")
    elif dry_run:
        output.say("Next: cdc-lake recover")
    else:
        _say_next(found)


def _require_no_sink() -> None:
    from pathlib import Path

    from cdc_lake.cli.watch_state import sinks_of
    from cdc_lake.config import DEFAULT_FILE

    running = next(sinks_of(Path(output.config_option() or DEFAULT_FILE).absolute()), None)
    if running is not None:
        raise UsageError(
            f"A sink of this project is running (pid {running.pid}).",
            why="It has the tables open as they were, and might write behind the commit that is set aside.",
            next=f"stop it (kill {running.pid}), then: cdc-lake recover",
        )


def _line(one: Mended, *, dry_run: bool) -> str:
    name = " ".join(part for part in (one.kind, one.table) if part)
    what = f"{one.source}: commit {one.torn.version} of {name} is not whole: {one.torn.why}."
    if dry_run:
        return what
    return f"{what} " + (f"It is kept as {one.kept}" if one.kept else "The read model is deleted.")


def _say_next(found: list[Mended]) -> None:
    for kind, again in _AGAIN.items():
        if any(one.kind == kind for one in found):
            output.say(f"Next: {again}")
    if any(one.kind in ("log", "transactions", "schemas", "dead_letters") for one in found):
        output.say("Next: cdc-lake sink run --until-caught-up  (it reads again what the commit held), cdc-lake verify")
    if any(not one.kept for one in found):
        output.say("Next: cdc-lake fold")


def _row(one: Mended) -> dict[str, Any]:
    return {
        "source": one.source,
        "kind": one.kind,
        "table": one.table,
        "version": one.torn.version,
        "why": one.torn.why,
        "kept": one.kept,
    }
