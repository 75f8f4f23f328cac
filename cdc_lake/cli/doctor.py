"""`doctor`: is everything as it must be, and if not, what mends it?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES

if TYPE_CHECKING:
    from rich.text import Text

    from cdc_lake.checks import Check, Skipped

_COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}
_WIDTH = 26  # of names; the few longer ones push their words to the right


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Examples:  cdc-lake doctor   ·   cdc-lake doctor --timeout 180   ·   cdc-lake --json doctor")(
        doctor
    )


def doctor(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which what is not checked yet fails.")] = 90.0,
) -> None:
    """Check source, slot, publication, tables, connector, broker, topics, lake and versions; change nothing.

    Each check is OK, WARN or FAIL; what is not OK comes with the command or SQL that mends it. Ends with 3 when
    something fails, with 0 otherwise.
    """
    from cdc_lake.checks import Status
    from cdc_lake.cli.doctor_run import examine

    checks, skipped = examine(output.settings(), seconds=timeout, say=output.say)
    count = {status: sum(check.status is status for check in checks) for status in Status}
    if output.as_json():
        output.emit(
            {
                "checks": [check.as_dict() for check in checks],
                "skipped": [skip.as_dict() for skip in skipped],
                "ok": not count[Status.FAIL],
            }
        )
    else:
        _show(checks, skipped)
        output.say(
            ", ".join(f"{number} {status}" for status, number in count.items()) + f", {len(skipped)} not checked."
        )
    if any(check.name == "doctor.deadline" for check in checks):
        _leave()
    if count[Status.FAIL]:
        raise typer.Exit(EXIT_DIFFERENCES)


def _leave() -> NoReturn:
    """End now: to take a thread down that waits in native code is what a Python that ends may crash of."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_DIFFERENCES)


def _show(checks: list[Check], skipped: list[Skipped]) -> None:
    from rich.text import Text

    out = output.console()
    sources = dict.fromkeys([*(c.source for c in checks), *(s.source for s in skipped)])
    for source in sources:
        out.print(Text(f"\nsource {source}" if source else "\nthis machine, Connect, Kafka and the lake", style="bold"))
        mine = [c for c in checks if c.source == source]
        not_made = [s for s in skipped if s.source == source]
        names = [*(c.name for c in mine), *(s.name for s in not_made)]
        parts = dict.fromkeys(name.partition(".")[0] for name in names)
        for part in parts:
            for text in _lines(part, mine, not_made):
                out.print(text)


def _lines(part: str, checks: list[Check], skipped: list[Skipped]) -> Iterator[Text]:
    """What is to be read of one part, such as `slot`."""
    from rich.text import Text

    mine = [c for c in checks if c.name.partition(".")[0] == part]
    good = [c for c in mine if not c.why]
    # A long list of settings that are as they should be hides the one that is not.
    brief = part == "settings" and output.verbosity() < 1 and len(good) > 1
    if brief:
        yield line("OK", "settings", f"{len(good)} of {len(mine)} as they should be")
    for check in (c for c in mine if c.why or not brief):
        yield line(check.status, check.name, check.found)
        yield from (Text(f"       {word}: {text}") for word, text in (("why", check.why), ("fix", check.fix)) if text)
    for skip in (s for s in skipped if s.name.partition(".")[0] == part):
        yield Text(f"  –    {skip.name:<{_WIDTH}}  not checked, because of {skip.because}", style="dim")


def line(status: str, name: str, found: str) -> Text:
    """A finding on one line."""
    from rich.text import Text

    return Text.assemble("  ", (f"{status:<5}", _COLOURS[status]), f"{name:<{_WIDTH}}  {found}")
