"""`history`: all versions of one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output

if TYPE_CHECKING:
    from rich.text import Text

    from cdc_lake.query.versions import RowHistory, Version

_EXAMPLES = (
    "Examples:  cdc-lake history products 17   ·   cdc-lake history public.inventory store_id=3,product_id=17   ·   "
    """cdc-lake history inventory '{"store_id": 3, "product_id": 17}' --json"""
)
_WORDS = {"c": "created", "u": "updated", "r": "read by a snapshot"}
_LONGEST = 200


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(history)


def history(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, or a table of public.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="A value; column=value,column=value; or a JSON object.")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME|LSN|TX", help="Only what was known then.")
    ] = None,
) -> None:
    """Show every version of a row, the newest last, and what changed from one to the next.

    A version is what a transaction left behind; what it did in between is in `changes`.
    """
    from cdc_lake.query.session import open_session
    from cdc_lake.query.versions import row_history

    session = open_session(output.settings(), as_of=as_of)
    try:
        found = row_history(session, table, key)
    finally:
        session.close()
    if output.as_json():
        _emit(found)
    else:
        _show(found)


def _emit(found: RowHistory) -> None:
    from cdc_lake.query.values import dumps

    versions = [{**v.row, **v.own, "__changed": v.changed} for v in found.versions]
    print(dumps({"table": found.table, "key": found.key, "versions": versions}), flush=True)


def _show(found: RowHistory) -> None:
    console = output.console()
    for i, version in enumerate(found.versions):
        console.print(_headline(version), soft_wrap=True)
        for line in _changes(version):
            console.print(line, soft_wrap=True)
        end = _end(version)
        following = found.versions[i + 1] if i + 1 < len(found.versions) else None
        if end is not None and (following is None or following.before is not version.row):
            console.print(end, soft_wrap=True)


def _headline(version: Version) -> Text:
    from rich.text import Text

    own = version.own
    words = _WORDS[own["__op"]]
    if own["__previous_key"] is not None:
        words = f"key changed from {_key(own['__previous_key'])}"
    return Text(f"{own['__valid_from']}  {words}{_transaction(own['__tx_id'])}", style="bold")


def _changes(version: Version) -> list[Text]:
    from rich.text import Text

    if version.before is None:
        return [Text(f"    {c} = {_value(v)}") for c, v in version.row.items()]
    lines = [
        Text.assemble(f"    {c}  {_value(version.before[c])} → ", (_value(version.row[c]), "bold yellow"))
        for c in version.changed
    ]
    return lines or [Text("    nothing changed", style="dim")]


def _end(version: Version) -> Text | None:
    from rich.text import Text

    own = version.own
    if own["__ended_by"] not in {"d", "t"}:
        return None
    words = "truncated" if own["__ended_by"] == "t" else "deleted"
    if own["__next_key"] is not None:
        words = f"key changed to {_key(own['__next_key'])}"
    return Text(f"{own['__valid_to']}  {words}{_transaction(own['__ended_tx_id'])}", style="bold")


def _transaction(tx_id: str | None) -> str:
    return f"  transaction {tx_id}" if tx_id is not None else ""


def _key(text: str) -> str:
    import json

    return ", ".join(f"{n}={v}" for n, v in json.loads(text).items())


def _value(value: Any) -> str:
    from cdc_lake.query.values import as_text

    if value is None:
        return "null"
    text = as_text(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
