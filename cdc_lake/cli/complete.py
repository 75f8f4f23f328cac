"""What may stand next in a command line, from live state: tables, connectors, dead letters, and words of a choice.

A shell asks at each press of a key, so nothing heavy is imported where a folder and a file tell. Whatever goes wrong,
nothing is suggested and nothing is said: the person has not run anything yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# That of `config`, which takes longer to import than all that is done here.
DEFAULT_FILE = "cdc-lake.yaml"
_SECONDS = 0.5
_CHOICE = re.compile(r"[a-z-]+(\|[a-z-]+)+")


def attach(command: Any, path: tuple[str, ...] = ()) -> None:
    """Let every parameter of the command tree complete what its metavar names."""
    for parameter in command.params:
        names = _names_for(str(parameter.metavar or ""), path)
        if names is not None:
            parameter._custom_shell_complete = _completer(names)
    for name, child in getattr(command, "commands", {}).items():
        attach(child, (*path, name))


Names = Callable[[dict[str, Any], Path], Iterator[str]]


def _names_for(metavar: str, path: tuple[str, ...]) -> Names | None:
    word = metavar.strip("[]…")
    if word in ("TABLE", "TABLE…", "[TABLE]"):
        return _tables
    if word == "NAME" and path[:1] == ("connector",):
        return _connectors
    if word in ("ID", "ID…") and path[:1] == ("dlq",):
        return _letters
    if _CHOICE.fullmatch(word):
        return lambda _raw, _root: iter(word.split("|"))
    return None


def _completer(names: Names) -> Callable[[Any, Any, str], list[Any]]:
    def complete(context: Any, _parameter: Any, incomplete: str) -> list[Any]:
        from typer._click.shell_completion import CompletionItem

        try:
            raw, root = _configuration(context.find_root().params.get("config"))
            found = sorted({n for n in names(raw, root) if n.startswith(incomplete)})
        except Exception:
            found = []
        return [CompletionItem(name) for name in found]

    return complete


def _configuration(option: str | None) -> tuple[dict[str, Any], Path]:
    """The configuration as its file has it, unchecked, and its folder: checking it costs more than all the rest."""
    import yaml

    file = Path(option or DEFAULT_FILE)
    raw = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return raw if isinstance(raw, dict) else {}, file.absolute().parent


def _tables(raw: dict[str, Any], root: Path) -> Iterator[str]:
    """Tables that have a log: those of `public` without it, too."""
    from cdc_lake.land.naming import decode_name

    for source in _lake(raw, root).iterdir():
        for table in source.glob("log/*/*"):
            schema, name = decode_name(table.parent.name), decode_name(table.name)
            yield f"{schema}.{name}"
            if schema == "public":
                yield name


def _lake(raw: dict[str, Any], root: Path) -> Path:
    uri = str((raw.get("lake") or {}).get("uri", "./lake"))
    if "://" in uri or "${" in uri:
        raise LookupError(uri)  # asking an object store takes longer than a person waits for a key
    return root / Path(uri).expanduser()


def _connectors(raw: dict[str, Any], root: Path) -> Iterator[str]:
    """The connectors of the worker; where it does not answer, those that have a file."""
    from urllib.request import urlopen

    url = (raw.get("connect") or {}).get("url")
    try:
        if url is None:
            url = json.loads((root / ".cdc-lake" / "stack.json").read_text())["connect"]["url"]
        with urlopen(f"{url}/connectors", timeout=_SECONDS) as answer:  # noqa: S310 - the configured address
            yield from json.load(answer)
    except (OSError, ValueError, KeyError, TypeError):
        for file in (root / "connectors").glob("*.json"):
            yield str(json.loads(file.read_text())["name"])


def _letters(raw: dict[str, Any], root: Path) -> Iterator[str]:
    """Dead letters that wait for a decision."""
    from cdc_lake.land.dead_letters import DeadLetters

    lake = _lake(raw, root)
    for source in lake.iterdir():
        if (source / "dead_letters").is_dir():
            yield from (x.id for x in DeadLetters(str(lake), source.name).all() if x.state == "waiting")
