"""`rules`: evaluate rules over changes, and look after their alerts."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES, EXIT_INTERRUPTED, UsageError

_EXAMPLES = (
    "Examples:  cdc-lake rules check   ·   cdc-lake rules run --until-caught-up   ·   cdc-lake rules list   ·   "
    "cdc-lake rules test low_stock --from 2026-11-01   ·   cdc-lake rules alerts --state open   ·   "
    "cdc-lake rules ack 3f9a   ·   cdc-lake rules resolve 3f9a --note 'delivery booked'   ·   "
    "cdc-lake rules silence 'low_*' --for 2h   ·   cdc-lake rules silences"
)
_Names = Annotated[list[str] | None, typer.Argument(metavar="[RULE]…", help="Names of rules; all without.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The alert's id, or how it begins.")]
_Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why, for those who read it later.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    rules = typer.Typer(no_args_is_help=True, help="Rules over changes, and their alerts.", epilog=_EXAMPLES)
    for command in (check, run, list_rules, try_on_the_past, alerts, ack, resolve, silence, silences):
        named = {"list_rules": "list", "try_on_the_past": "test"}.get(command.__name__)
        rules.command(named, epilog=_EXAMPLES)(command)
    app.add_typer(rules, name="rules")


def check(names: _Names = None) -> None:
    """Check rules against the lake: whether they parse, fit the tables, and can be evaluated change by change.

    Ends with 3 when one is refused. Evaluates and writes nothing.
    """
    from cdc_lake.cli.rules_runner import checked

    found = checked(output.settings(), names)
    rows = [{"rule": c.name, "kind": c.kind, "result": "OK" if c.error is None else "refused"} for c in found]
    documents = [r | (c.error.as_dict() if c.error is not None else {}) for r, c in zip(rows, found, strict=True)]
    output.result({"rules": documents}, ["rule", "kind", "result"], rows)
    for one in found:
        if one.error is not None and not output.as_json():
            output.fail(one.error)
    if any(one.error is not None for one in found):
        raise typer.Exit(EXIT_DIFFERENCES)


def run(
    names: _Names = None,
    *,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that is in the lake now has been evaluated.")
    ] = False,
) -> None:
    """Evaluate rules as changes land, open and resolve alerts, and send them to the outputs.

    One process evaluates a rule. SIGTERM and Ctrl-C end it; killed at any moment, the next run goes on where it was.
    Ends with 3 when a rule stands still or, with --until-caught-up, when messages could not be sent.
    """
    from cdc_lake.cli.rules_runner import run_rules

    done = run_rules(output.settings(), names, until_caught_up=until_caught_up)
    rows = [{"rule": name, **counts} for name, counts in done.found.items()]
    document = {"rules": rows, "waiting": done.waiting, "failed": [e.as_dict()["error"] for e in done.errors]}
    output.result(document, ["rule", "opened", "resolved", "late"], rows)
    if done.waiting:
        output.say(f"{done.waiting} messages wait for their outputs: the next run sends them.")
    for error in done.errors:
        if not output.as_json():
            output.fail(error)
    if done.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if done.errors or (done.waiting and until_caught_up):
        raise typer.Exit(EXIT_DIFFERENCES)


def list_rules() -> None:
    """List rules: how far each is, the source that one over several sources waits for, and its alerts."""
    from cdc_lake.cli.rules_runner import listed

    rows = listed(output.settings())
    columns = ["rule", "kind", "severity", "position", "behind", "waits_for", "open", "acknowledged", "resolved"]
    output.result({"rules": rows}, columns, rows)


def try_on_the_past(
    name: Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")],
    *,
    since: Annotated[
        str | None, typer.Option("--from", metavar="MOMENT", help="A time, an LSN or a transaction [default: all].")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="The same [default: now].")] = None,
) -> None:
    """Run a rule on the past and show what it would have done. Writes and sends nothing."""
    from cdc_lake.cli.rules_runner import tried_on_the_past

    rows = tried_on_the_past(output.settings(), name, since, until)
    shown = [r | {"key": json.dumps(r["key"], ensure_ascii=False)} for r in rows]
    output.result({"rule": name, "found": iso(rows)}, ["at", "change", "id", "key", "title", "evidence_count"], shown)


def alerts(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One alert, with its events.")] = None,
    *,
    state: Annotated[str | None, typer.Option("--state", help="open, acknowledged or resolved.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Only alerts of this rule.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
) -> None:
    """List alerts, newest first; or show one with the events behind it."""
    from cdc_lake.react.alerts import ACKNOWLEDGED, OPEN, RESOLVED, Alerts

    found = Alerts(output.settings())
    if id is not None:
        _show_alert(found.find(id))
        return
    if state not in (None, OPEN, ACKNOWLEDGED, RESOLVED):
        raise UsageError(f"There is no state {state}.", why="There are open, acknowledged and resolved.")
    where = "($1 IS NULL OR state = $1) AND ($2 IS NULL OR rule = $2)"
    rows = found.all(where, [state, rule])[:limit]
    columns = ["id", "state", "severity", "rule", "title", "opened_at", "resolved_at"]
    output.result({"alerts": iso(rows)}, columns, rows)


def _show_alert(alert: dict[str, Any]) -> None:
    if output.as_json():
        output.emit(iso(alert))
        return
    events = alert.pop("evidence") or []
    alert.pop("resolution")
    output.table(["field", "value"], [[k, v] for k, v in alert.items() if v is not None])
    columns = ["at", "stream", "table", "op", "key", "values", "tx_id", "tx_order", "lsn"]
    output.table(columns, [[e[c] for c in columns] for e in events], title="events")


def ack(id: _Id, *, note: _Note = None) -> None:
    """Say that somebody looks after an alert."""
    _decide(id, "acknowledged", note)


def resolve(id: _Id, *, note: _Note = None) -> None:
    """Say that an alert is settled."""
    _decide(id, "resolved", note)


def _decide(id: str, change: str, note: str | None) -> None:
    from cdc_lake.react.alerts import Alerts

    before = Alerts(output.settings()).decide(id, change, by=getpass.getuser(), note=note)
    row = {"id": before["id"], "title": before["title"], "was": before["state"], "is": change}
    if before["state"] == "resolved":
        row["is"] = "resolved"
    output.result(row, ["id", "title", "was", "is"], [row])


def silence(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="A rule's name, or a glob.")],
    *,
    span: Annotated[str, typer.Option("--for", metavar="SPAN", help="For how long, as 2h.")] = "1h",
    key: Annotated[str | None, typer.Option("--key", metavar="JSON", help='Only this key, as {"id": 7}.')] = None,
    note: _Note = None,
) -> None:
    """Send nothing of a rule's alerts for a while. They open and resolve all the same."""
    from cdc_lake.cli.rules_runner import silences_of
    from cdc_lake.react.durations import microseconds

    now = datetime.now(UTC)
    try:
        until = now + timedelta(microseconds=microseconds(span))
        wanted = None if key is None else json.dumps(json.loads(key), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, OverflowError) as error:
        raise UsageError("The silence is not clear.", why=str(error), next="cdc-lake rules silence --help") from None
    for one in silences_of(output.settings(), for_writing=True).values():
        added = one.add(rule, wanted, until, by=getpass.getuser(), note=note, now=now)
        row = {"silence": added.id, "until": added.until}
        output.result(iso(row), ["silence", "until"], [row])


def silences(
    end: Annotated[str | None, typer.Option("--end", metavar="ID", help="End this one now.")] = None,
) -> None:
    """List silences, or end one."""
    from cdc_lake.cli.rules_runner import end_silence, silences_of

    config = output.settings()
    if end is not None:
        end_silence(config, end)
    columns = ["id", "rule", "key", "since", "until", "by", "note"]
    rows = [{c: getattr(s, c) for c in columns} for one in silences_of(config).values() for s in one.all()]
    output.result({"silences": iso(rows)}, columns, rows)


def iso(value: Any) -> Any:
    """Times as ISO 8601, however deep, and keys as JSON."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: iso(inner) for name, inner in value.items()}
    return [iso(inner) for inner in value] if isinstance(value, list | tuple) else value
