"""The words of the command line as completion reads them: `complete.json` is what `words` says of the commands."""

from __future__ import annotations

import re
from typing import Any

_CHOICE = re.compile(r"[a-z-]+(\|[a-z-]+)+")
# Options of the whole program that may not stand behind a command.
_AT_THE_FRONT = {"--version", "--install-completion", "--show-completion", "--help"}


def words(command: Any, path: tuple[str, ...] = (), parent: Any = None) -> dict[str, Any]:
    """A command's options, arguments and commands below it, each with what its value completes with."""
    context = command.make_context((path or ("cdc-lake",))[-1], [], parent=parent, resilient_parsing=True)
    shown = [p for p in command.get_params(context) if not p.hidden]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    found: dict[str, Any] = {
        "help": command.get_short_help_str(),
        "options": [_option(p, path) for p in shown if p not in arguments],
    }
    if arguments:
        found["arguments"] = [{"takes": kind(p, path)} | ({"repeats": True} if p.nargs < 0 else {}) for p in arguments]
    if children := getattr(command, "commands", {}):
        found["commands"] = {n: words(c, (*path, n), context) for n, c in children.items() if not c.hidden}
    return found


def _option(option: Any, path: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "names": sorted([*option.opts, *option.secondary_opts], key=lambda name: (len(name), name)),
        "help": option.help or "",
    }
    if not (option.is_flag or option.count):
        found["takes"] = kind(option, path)
    if option.multiple:
        found["repeats"] = True
    if not path and not _AT_THE_FRONT & set(option.opts):
        found["anywhere"] = True
    return found


def kind(parameter: Any, path: tuple[str, ...]) -> str:
    """What completes a parameter, by its metavar: a kind of names, the words of a choice, or "" for nothing."""
    word = str(parameter.metavar or "").strip("[]…")
    if word == "TABLE":
        return "tables"
    if word == "NAME" and path[:1] == ("connector",):
        return "connectors"
    if word == "ID" and path[:1] == ("dlq",):
        return "letters"
    return word if _CHOICE.fullmatch(word) else ""
